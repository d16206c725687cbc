"""Minimising a smooth function of many variables: L-BFGS (Liu and Nocedal 1989)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Minimum", "minimize"]

Floats = NDArray[np.float64]


class Minimum(NamedTuple):
    """Where the search ended."""

    x: Floats
    value: float
    n_iterations: int
    converged: bool


def minimize(
    function: Callable[[Floats], tuple[float, Floats]],
    x: Floats,
    *,
    max_iterations: int,
    tolerance: float,
    memory: int = 10,
) -> Minimum:
    """Return a point where no component of the gradient exceeds `tolerance`, if there is time.

    Parameters
    ----------
    function : callable
        From a point to the value and the gradient there.
    x : ndarray
        Where to start.
    max_iterations : int
    tolerance : float
    memory : int
        Steps whose curvature is remembered.

    Notes
    -----
    A step is halved until the value falls by a ten-thousandth of what the gradient promises
    (Armijo), so that the value never grows. Memory is O(memory * n).

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm.models.lbfgs import minimize
    >>> bowl = lambda x: (float(x @ x), 2 * x)
    >>> found = minimize(bowl, np.ones(2), max_iterations=9, tolerance=1e-9)
    >>> found.converged, found.x.round(6).tolist()
    (True, [0.0, 0.0])
    """
    value, gradient = function(x)
    pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=memory)
    for iteration in range(max_iterations):
        if np.abs(gradient).max(initial=0.0) <= tolerance:
            return Minimum(x, value, iteration, True)
        direction = -_two_loops(gradient, pairs)
        slope = float(direction @ gradient)
        if slope >= 0:  # the curvature that is remembered is of another place
            pairs.clear()
            direction, slope = -gradient, -float(gradient @ gradient)
        step = 1.0 if pairs else min(1.0, 1.0 / float(np.abs(gradient).sum()))
        while True:
            point = x + step * direction
            next_value, next_gradient = function(point)
            if next_value <= value + 1e-4 * step * slope:
                break
            step /= 2
            if step < 1e-20:  # rounding hides any further descent
                return Minimum(x, value, iteration, False)
        moved, turned = point - x, next_gradient - gradient
        curvature = float(moved @ turned)
        if curvature > 1e-12 * float(turned @ turned):
            pairs.append((moved, turned, curvature))
        x, value, gradient = point, next_value, next_gradient
    return Minimum(x, value, max_iterations, bool(np.abs(gradient).max(initial=0.0) <= tolerance))


def _two_loops(gradient: Floats, pairs: deque[tuple[Floats, Floats, float]]) -> Floats:
    """The gradient times an estimate of the inverse of the curvature."""
    out = gradient.copy()
    shares = []
    for moved, turned, curvature in reversed(pairs):
        share = float(moved @ out) / curvature
        shares.append(share)
        out -= share * turned
    if pairs:
        _, turned, curvature = pairs[-1]
        out *= curvature / float(turned @ turned)
    for (moved, turned, curvature), share in zip(pairs, reversed(shares), strict=True):
        out += moved * (share - float(turned @ out) / curvature)
    return out

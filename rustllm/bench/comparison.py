"""Several callables that do the same, timed in turn, with ratios that say how sure they are."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rustllm.bench.machine import machine_facts
from rustllm.bench.measurement import (
    Clock,
    Measurement,
    calibrate,
    quiet,
    sample,
    seconds,
)
from rustllm.errors import ArgumentError

__all__ = ["Comparison", "Ratio", "compare"]

_RESAMPLES = 1000


@dataclass(frozen=True)
class Ratio:
    """How many times faster one candidate is than another.

    Attributes
    ----------
    value : float
        Median over the rounds of the other's time divided by this one's.
    low, high : float
        Bounds that hold the median in 95 of 100 resamplings of the rounds.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Comparison:
    """Measurements of the same work by several candidates, round by round.

    Attributes
    ----------
    measurements : dict of str to Measurement
        Sample `i` of each was taken in round `i`.
    facts : dict
        The machine and the versions.
    """

    measurements: dict[str, Measurement]
    facts: dict[str, Any]

    def ratio(self, name: str, to: str) -> Ratio:
        """Return how many times faster `name` is than `to`; above 1 it is faster."""
        mine, other = self.measurements[name].samples, self.measurements[to].samples
        rounds = [b / a if a else float("inf") for a, b in zip(mine, other, strict=True)]
        draw = random.Random(0)
        medians = sorted(
            statistics.median(draw.choices(rounds, k=len(rounds))) for _ in range(_RESAMPLES)
        )
        cut = _RESAMPLES // 40
        return Ratio(statistics.median(rounds), medians[cut], medians[-1 - cut])

    def fastest(self) -> str:
        """Return the name of the candidate with the smallest median."""
        return min(self.measurements, key=lambda name: self.measurements[name].median)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, with the ratio of the first candidate to each."""
        first = next(iter(self.measurements))
        return {
            "version": 1,
            "facts": self.facts,
            "measurements": {n: m.to_dict() for n, m in self.measurements.items()},
            "ratios": {
                name: {"value": ratio.value, "low": ratio.low, "high": ratio.high}
                for name in self.measurements
                if name != first
                for ratio in (self.ratio(first, name),)
            },
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict())

    def __str__(self) -> str:
        first = next(iter(self.measurements))
        width = max(map(len, self.measurements))
        lines = []
        for name, result in self.measurements.items():
            line = f"{name:<{width}}  {seconds(result.median):>8} ± {result.spread / 2:.1%}"
            if name != first:
                line += f"  {first} is {self.ratio(first, name)} as fast"
            lines.append(line)
        return "\n".join(lines)


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 9,
    warmup: int = 1,
    min_time: float = 0.02,
    n_items: int | None = None,
    n_bytes: int | None = None,
    check: Callable[[Any, Any], bool] | None = None,
    clock: Clock = time.perf_counter_ns,
) -> Comparison:
    """Time candidates in turn: every round takes one sample of each, in a rotating order.

    Parameters
    ----------
    candidates : mapping of str to callable
        Ratios are given of the first to the others.
    rounds, warmup : int
    min_time : float
        Seconds that a sample lasts at least.
    n_items, n_bytes : int, optional
        Work of one call.
    check : callable, optional
        Called as ``check(first, other)`` on the results of one call of each: a comparison of things
        that do not give the same is none.
    clock : callable
        Nanoseconds that only grow.

    Raises
    ------
    ArgumentError
        There is no candidate, `rounds` is below 1, or `check` says that results differ.

    Examples
    --------
    >>> from rustllm.bench import compare
    >>> numbers = list(range(200))
    >>> result = compare(
    ...     {"sum": lambda: sum(numbers), "loop": lambda: [x for x in numbers]},
    ...     rounds=3, min_time=0,
    ... )
    >>> sorted(result.to_dict()["ratios"])
    ['loop']
    """
    if not candidates:
        raise ArgumentError("there is nothing to compare")
    if rounds < 1 or warmup < 0 or min_time < 0:
        raise ArgumentError("rounds must be at least 1, warmup and min_time not negative")
    names = list(candidates)
    if check is not None:
        first = candidates[names[0]]()
        for name in names[1:]:
            if not check(first, candidates[name]()):
                raise ArgumentError(f"{names[0]} and {name} do not give the same", key=name)
    for name in names:
        for _ in range(warmup):
            candidates[name]()
    samples: dict[str, list[float]] = {name: [] for name in names}
    with quiet():
        loops = {name: calibrate(candidates[name], min_time, clock) for name in names}
        for turn in range(rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                samples[name].append(sample(candidates[name], loops[name], clock))
    return Comparison(
        {
            name: Measurement(name, tuple(samples[name]), loops[name], n_items, n_bytes)
            for name in names
        },
        machine_facts(),
    )

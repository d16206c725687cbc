"""Time of one callable: samples, their median, and how far they spread."""

from __future__ import annotations

import gc
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from rustllm.errors import ArgumentError, FileFormatError

__all__ = ["Measurement", "measure"]

Clock = Callable[[], int]


@dataclass(frozen=True)
class Measurement:
    """Samples of the time of one call.

    Attributes
    ----------
    name : str
    samples : tuple of float
        Seconds a call; each is the mean over `loops` calls.
    loops : int
        Calls in a sample.
    n_items, n_bytes : int, optional
        Work of one call, for the throughputs.

    Examples
    --------
    >>> from rustllm.bench import Measurement
    >>> result = Measurement("sum", (0.2, 0.1, 0.4), loops=1, n_items=50)
    >>> result.median, result.best, result.items_per_second
    (0.2, 0.1, 250.0)
    """

    name: str
    samples: tuple[float, ...]
    loops: int = 1
    n_items: int | None = None
    n_bytes: int | None = None

    def __post_init__(self) -> None:
        if not self.samples:
            raise ArgumentError("a measurement needs at least one sample")
        if not all(math.isfinite(s) and s >= 0 for s in self.samples):
            raise ArgumentError("a sample must be finite and not negative")

    @property
    def median(self) -> float:
        """Median of the samples in seconds."""
        return statistics.median(self.samples)

    @property
    def best(self) -> float:
        """Smallest sample in seconds: the least disturbed one."""
        return min(self.samples)

    @property
    def spread(self) -> float:
        """Distance between the quartiles, as a share of the median."""
        low, high = quartiles(self.samples)
        return (high - low) / self.median if self.median else 0.0

    @property
    def items_per_second(self) -> float | None:
        """Items a second at the median, when `n_items` is known."""
        return self._per_second(self.n_items)

    @property
    def bytes_per_second(self) -> float | None:
        """Bytes a second at the median, when `n_bytes` is known."""
        return self._per_second(self.n_bytes)

    def _per_second(self, amount: int | None) -> float | None:
        if amount is None:
            return None
        return amount / self.median if self.median else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement and what follows from it as plain values."""
        values = asdict(self)
        values["samples"] = list(self.samples)
        values["median"] = self.median
        values["spread"] = self.spread
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; FileFormatError when it is something else."""
        try:
            return cls(
                str(values["name"]),
                tuple(float(s) for s in values["samples"]),
                int(values["loops"]),
                values.get("n_items"),
                values.get("n_bytes"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"this is no measurement: {error}") from error

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict())

    def __str__(self) -> str:
        text = f"{self.name}: {seconds(self.median)} ± {self.spread / 2:.1%}"
        if (rate := self.bytes_per_second) is not None:
            text += f", {rate / 1e6:,.1f} MB/s"
        if (rate := self.items_per_second) is not None:
            text += f", {rate:,.0f} items/s"
        return text


def measure(
    function: Callable[[], object],
    *,
    name: str | None = None,
    repeats: int = 7,
    warmup: int = 1,
    min_time: float = 0.02,
    n_items: int | None = None,
    n_bytes: int | None = None,
    clock: Clock = time.perf_counter_ns,
) -> Measurement:
    """Time a callable.

    It is called `warmup` times, then as often as it takes to fill `min_time`; that many calls are
    one sample, and there are `repeats` samples. Garbage collection is off meanwhile.

    Parameters
    ----------
    function : callable
        Without arguments; its result is dropped.
    name : str, optional
    repeats, warmup : int
    min_time : float
        Seconds that a sample lasts at least; 0 for one call a sample.
    n_items, n_bytes : int, optional
        Work of one call, for the throughputs.
    clock : callable
        Nanoseconds that only grow.

    Raises
    ------
    ArgumentError
        `repeats` is below 1, or `warmup` or `min_time` negative.

    Examples
    --------
    >>> from rustllm.bench import measure
    >>> result = measure(lambda: sum(range(100)), repeats=3, min_time=0, n_items=100)
    >>> len(result.samples), result.items_per_second > 0
    (3, True)
    """
    if repeats < 1 or warmup < 0 or min_time < 0:
        raise ArgumentError("repeats must be at least 1, warmup and min_time not negative")
    for _ in range(warmup):
        function()
    with quiet():
        loops = calibrate(function, min_time, clock)
        samples = tuple(sample(function, loops, clock) for _ in range(repeats))
    if name is None:
        name = getattr(function, "__name__", type(function).__name__)
    return Measurement(name, samples, loops, n_items, n_bytes)


class quiet:  # noqa: N801  reads as a statement: `with quiet():`
    """Block without garbage collection, which would hit one candidate and not the other."""

    def __enter__(self) -> None:
        self._was_on = gc.isenabled()
        gc.collect()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was_on:
            gc.enable()


def sample(function: Callable[[], object], loops: int, clock: Clock) -> float:
    """Return the mean time of `loops` calls in seconds."""
    calls = range(loops)
    start = clock()
    for _ in calls:
        function()
    return (clock() - start) / loops * 1e-9


def calibrate(function: Callable[[], object], min_time: float, clock: Clock) -> int:
    """Return how many calls fill `min_time` seconds."""
    loops = 1
    while (seconds_each := sample(function, loops, clock)) * loops < min_time:
        # Aim a little above, grow at most tenfold: the first calls may be the slowest.
        wanted = math.ceil(1.2 * min_time / seconds_each) if seconds_each > 0 else 10 * loops
        loops = max(loops + 1, min(wanted, 10 * loops))
    return loops


def quartiles(samples: tuple[float, ...]) -> tuple[float, float]:
    """Return the lower and upper quartile, interpolated."""
    if len(samples) == 1:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def seconds(value: float) -> str:
    """Write a time with a unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"

"""Combinators that need no buffer and no thread."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, overload

from rustllm.errors import ArgumentError

__all__ = ["interleave", "pipe", "rate", "zip_longest"]

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


@overload
def pipe(source: Iterable[T], /) -> Iterator[T]: ...
@overload
def pipe(source: Iterable[T], first: Callable[[Iterator[T]], Iterable[A]], /) -> Iterator[A]: ...
@overload
def pipe(
    source: Iterable[T],
    first: Callable[[Iterator[T]], Iterable[A]],
    second: Callable[[Iterator[A]], Iterable[B]],
    /,
) -> Iterator[B]: ...
@overload
def pipe(
    source: Iterable[T],
    first: Callable[[Iterator[T]], Iterable[A]],
    second: Callable[[Iterator[A]], Iterable[B]],
    third: Callable[[Iterator[B]], Iterable[C]],
    /,
) -> Iterator[C]: ...
@overload
def pipe(
    source: Iterable[T],
    first: Callable[[Iterator[T]], Iterable[A]],
    second: Callable[[Iterator[A]], Iterable[B]],
    third: Callable[[Iterator[B]], Iterable[C]],
    fourth: Callable[[Iterator[C]], Iterable[D]],
    /,
) -> Iterator[D]: ...
@overload
def pipe(
    source: Iterable[Any],
    first: Callable[[Iterator[Any]], Iterable[Any]],
    second: Callable[[Iterator[Any]], Iterable[Any]],
    third: Callable[[Iterator[Any]], Iterable[Any]],
    fourth: Callable[[Iterator[Any]], Iterable[Any]],
    fifth: Callable[[Iterator[Any]], Iterable[Any]],
    /,
    *more: Callable[[Iterator[Any]], Iterable[Any]],
) -> Iterator[Any]: ...
def pipe(
    source: Iterable[Any], /, *stages: Callable[[Iterator[Any]], Iterable[Any]]
) -> Iterator[Any]:
    """Send `source` through stages, each a function from an iterator to an iterable.

    Examples
    --------
    >>> from functools import partial
    >>> from rustllm import chunks, stream
    >>> list(stream.pipe(range(5), lambda s: (2 * x for x in s), partial(chunks, size=2)))
    [(0, 2), (4, 6), (8,)]
    """
    stream = iter(source)
    for stage in stages:
        stream = iter(stage(stream))
    return stream


def zip_longest(*sources: Iterable[Any], fill: Any = None) -> Iterator[tuple[Any, ...]]:
    """Yield one item of each source at a time, `fill` for those that have ended.

    Examples
    --------
    >>> from rustllm import stream
    >>> list(stream.zip_longest([1, 2], [3], fill=0))
    [(1, 3), (2, 0)]
    """
    return itertools.zip_longest(*sources, fillvalue=fill)


def interleave(*sources: Iterable[T], size: int = 1) -> Iterator[T]:
    """Yield `size` items of each source in turn; a source that has ended is passed over.

    Parameters
    ----------
    *sources : iterable
    size : int
        Items in a turn.

    Raises
    ------
    ArgumentError
        `size` is below 1.

    Examples
    --------
    >>> from rustllm import stream
    >>> "".join(stream.interleave("abcde", "123", "x", size=2))
    'ab12xcd3e'
    """
    if size < 1:
        raise ArgumentError(f"size must be at least 1, got {size}")
    return _interleave([iter(source) for source in sources], size)


def _interleave(sources: list[Iterator[T]], size: int) -> Iterator[T]:
    while sources:
        left = []
        for source in sources:
            n = 0
            for item in itertools.islice(source, size):
                n += 1
                yield item
            if n == size:
                left.append(source)
        sources = left


def rate(
    source: Iterable[T],
    per_second: float,
    *,
    burst: float = 1,
    cost: Callable[[T], float] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[T]:
    """Yield the items no faster than `per_second`, on average and apart from a burst.

    A bucket holds up to `burst` units and fills by `per_second` a second; an item takes its cost
    out, and waits until there is enough. One that costs more than the bucket holds waits for a full
    bucket and leaves it in debt.

    Parameters
    ----------
    source : iterable
    per_second : float
        Units a second.
    burst : float
        Units that may be saved up.
    cost : callable, optional
        Units an item takes, such as its tokens; 1 by default.
    clock, sleep : callable
        Seconds that only grow, and a way to wait; for tests.

    Raises
    ------
    ArgumentError
        `per_second` or `burst` is not positive, or a cost is negative.

    Examples
    --------
    >>> from rustllm import stream
    >>> list(stream.rate("abc", per_second=1000))
    ['a', 'b', 'c']
    """
    bucket = Bucket(per_second, burst, clock)
    return _rate(iter(source), bucket, cost, sleep)


def _rate(
    source: Iterator[T],
    bucket: Bucket,
    cost: Callable[[T], float] | None,
    sleep: Callable[[float], object],
) -> Iterator[T]:
    for item in source:
        units = 1.0 if cost is None else cost(item)
        while (seconds := bucket.wait_for(units)) > 0:
            sleep(seconds)
        bucket.take(units)
        yield item


class Bucket:
    """A token bucket: what `rate` counts with."""

    __slots__ = ("_burst", "_clock", "_level", "_per_second", "_then")

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float]) -> None:
        if not per_second > 0 or not burst > 0:
            raise ArgumentError(
                f"per_second and burst must be positive, got {per_second} and {burst}"
            )
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._level = burst
        self._then = clock()

    def wait_for(self, units: float) -> float:
        """Seconds until `units` can be taken, 0 if they can now."""
        if not units >= 0:
            raise ArgumentError(f"a cost must not be negative, got {units}")
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._then) * self._per_second)
        self._then = now
        missing = min(units, self._burst) - self._level
        # Rounding may leave a rest too small for the clock to show; that is no reason to wait.
        return missing / self._per_second if missing > 1e-9 * self._burst else 0.0

    def take(self, units: float) -> None:
        """Take `units` out."""
        self._level -= units

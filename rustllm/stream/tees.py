"""One source for several consumers, with a bound on how far they may drift apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rustllm._core.tee import Branch, branches
from rustllm.errors import ArgumentError

__all__ = ["Branch", "tee"]

T = TypeVar("T")


def tee(source: Iterable[T], n: int = 2, *, lag: int = 1024) -> tuple[Branch[T], ...]:
    """Give every item of `source` to each of `n` iterators.

    Unlike ``itertools.tee``, which stores without bound what a slow branch has not read, this
    raises once the fastest is `lag` items ahead of the slowest. The item is not lost: the call can
    be repeated when the slow branch has moved on. A branch that is closed or dropped counts no
    more.

    Parameters
    ----------
    source : iterable
    n : int
        Number of iterators.
    lag : int
        Items that may be stored.

    Raises
    ------
    ArgumentError
        `n` is negative, or `lag` below 1.
    MemoryLimitError
        From a branch that is too far ahead; ``branch`` is the number of the slowest.

    Examples
    --------
    >>> from rustllm import stream
    >>> ids, to_count = stream.tee(iter([5, 7, 9]))
    >>> next(ids), list(to_count), list(ids)
    (5, [5, 7, 9], [7, 9])
    """
    if not 0 <= n < 1 << 31 or lag < 1:
        raise ArgumentError(f"n must not be negative and lag at least 1, got {n} and {lag}")
    # no ring of items reaches 62 bits
    return branches(source, n, min(lag, 1 << 62))

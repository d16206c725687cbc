"""One source for several consumers, with a bound on how far they may drift apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

from rustllm.errors import ArgumentError, MemoryLimitError, StateError

__all__ = ["Branch", "tee"]

T = TypeVar("T")


class _Shared:
    """The source, and the items that the fastest branch has read and the slowest has not."""

    __slots__ = ("buffer", "busy", "error", "first", "lag", "positions", "source")

    def __init__(self, source: Iterable[Any], n: int, lag: int) -> None:
        self.source: Iterator[Any] | None = iter(source)
        self.error: Exception | None = None
        self.buffer: deque[Any] = deque()
        self.first = 0  # number of the item at the left of the buffer
        self.lag = lag
        self.positions: dict[int, int] = dict.fromkeys(range(n), 0)
        self.busy = False

    def forget(self) -> None:
        """Drop the items that every branch has read."""
        slowest = min(self.positions.values(), default=self.first + len(self.buffer))
        while self.first < slowest and self.buffer:
            self.buffer.popleft()
            self.first += 1

    def read(self) -> None:
        """Add one item to the buffer; StopIteration or the source's error at its end."""
        if self.source is None:
            raise self.error or StopIteration
        if len(self.buffer) >= self.lag:
            slowest = min(self.positions, key=lambda branch: self.positions[branch])
            raise MemoryLimitError(
                f"branch {slowest} of a tee is {len(self.buffer)} items behind",
                hint="read or close the slow branch, or give a larger lag",
                branch=slowest,
            )
        if self.busy:
            raise StateError("the source of a tee asked for the item it was to give")
        self.busy = True
        try:
            self.buffer.append(next(self.source))
        except StopIteration:
            self.source = None
            raise
        except Exception as error:
            self.source = None
            self.error = error
            raise
        finally:
            self.busy = False


class Branch(Iterator[T], Generic[T]):
    """One of the iterators that `tee` makes.

    Notes
    -----
    The branches of one tee belong to one thread.
    """

    __slots__ = ("_index", "_shared")

    def __init__(self, shared: _Shared, index: int) -> None:
        self._shared = shared
        self._index = index

    def __iter__(self) -> Branch[T]:
        return self

    def __next__(self) -> T:
        shared = self._shared
        position = shared.positions.get(self._index)
        if position is None:
            raise StopIteration
        if position == shared.first + len(shared.buffer):
            shared.read()
        item = shared.buffer[position - shared.first]
        shared.positions[self._index] = position + 1
        if position == shared.first:
            shared.forget()
        return cast("T", item)

    def close(self) -> None:
        """End the branch: it holds nothing back any more."""
        if self._shared.positions.pop(self._index, None) is not None:
            self._shared.forget()

    def __del__(self) -> None:
        if hasattr(self, "_shared"):
            self.close()


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
    if n < 0 or lag < 1:
        raise ArgumentError(f"n must not be negative and lag at least 1, got {n} and {lag}")
    shared = _Shared(source, n, lag)
    return tuple(Branch(shared, index) for index in range(n))

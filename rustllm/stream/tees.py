"""One source for several consumers, with a bound on how far they may drift apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

from rustllm.errors import ArgumentError, MemoryLimitError, StateError

__all__ = ["Branch", "tee"]

T = TypeVar("T")


class _Shared:
    """The source, and for each branch the items that it has not given out."""

    __slots__ = ("busy", "error", "lag", "queues", "source")

    def __init__(self, source: Iterable[Any], n: int, lag: int) -> None:
        self.source: Iterator[Any] | None = iter(source)
        self.error: Exception | None = None
        self.lag = lag
        self.queues: dict[int, deque[Any]] = {index: deque() for index in range(n)}
        self.busy = False

    def read(self) -> None:
        """Read one item for every branch; StopIteration or the source's error at its end."""
        if self.source is None:
            raise self.error or StopIteration
        for index, queue in self.queues.items():
            if len(queue) >= self.lag:
                raise MemoryLimitError(
                    f"branch {index} of a tee is {len(queue)} items behind",
                    hint="read or close the slow branch, or give a larger lag",
                    branch=index,
                )
        if self.busy:
            raise StateError("the source of a tee asked for the item it was to give")
        self.busy = True
        try:
            item = next(self.source)
        except StopIteration:
            self.source = None
            raise
        except Exception as error:
            self.source = None
            self.error = error
            raise
        finally:
            self.busy = False
        for queue in self.queues.values():
            queue.append(item)


class Branch(Iterator[T], Generic[T]):
    """One of the iterators that `tee` makes.

    Notes
    -----
    The branches of one tee belong to one thread.
    """

    __slots__ = ("_index", "_queue", "_shared")

    def __init__(self, shared: _Shared, index: int) -> None:
        self._shared = shared
        self._index = index
        self._queue = shared.queues[index]

    def __iter__(self) -> Branch[T]:
        return self

    def __next__(self) -> T:
        if not self._queue:
            if self._index not in self._shared.queues:
                raise StopIteration
            self._shared.read()
        return cast("T", self._queue.popleft())

    def close(self) -> None:
        """End the branch: it holds nothing back any more."""
        self._shared.queues.pop(self._index, None)
        self._queue.clear()

    def __del__(self) -> None:
        if hasattr(self, "_queue"):
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

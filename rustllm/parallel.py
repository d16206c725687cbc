"""`parallel_map`: map with several workers, never further ahead than its bounds allow.

``Executor.map`` and ``Pool.imap`` pull their whole input at once. Here the consumer itself pulls,
when it asks for a result, and only while fewer than `max_items` items and `max_bytes` bytes are
between the source and itself; so a source larger than memory is mapped in bounded memory, and a
slow consumer slows the source down.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Self, TypeVar, cast

from rustllm.errors import ArgumentError, StateError

if TYPE_CHECKING:
    from rustllm._workers import WorkerGroup

__all__ = ["ParallelMap", "Progress", "parallel_map"]

T = TypeVar("T")
U = TypeVar("U")


class Progress(NamedTuple):
    """Counters of a `ParallelMap`."""

    pulled: int
    """Items taken from the source."""
    yielded: int
    """Results handed out."""
    in_flight: int
    """Items between the two."""
    bytes_in_flight: int
    """Bytes charged to them."""
    peak_in_flight: int
    """Largest `in_flight` so far."""
    peak_bytes: int
    """Largest `bytes_in_flight` so far."""


class _Task:
    """Consecutive items on their way through a worker, and then their results."""

    __slots__ = ("costs", "done", "error", "items", "next", "results", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.items: list[Any] = []
        self.costs: list[int] = []
        self.results: list[Any] = []
        self.error: BaseException | None = None
        self.next = 0
        self.done = False


class ParallelMap(Iterator[U], Generic[U]):
    """The results of `parallel_map`; close it, or leave its ``with`` block, to stop early.

    Notes
    -----
    Belongs to one consumer: two threads that ask at once are refused with StateError, as is a child
    process that inherited it by fork. No lock is held while the function or the source runs.
    """

    def __init__(
        self,
        function: Callable[[Any], U],
        source: Iterable[Any],
        *,
        workers: int,
        mode: str,
        ordered: bool,
        max_items: int,
        max_bytes: int | None,
        size_of: Callable[[Any], int],
        chunksize: int,
        start_method: str | None,
    ) -> None:
        self._function = function
        self._source: Iterator[Any] | None = iter(source)
        self._workers = workers
        self._mode = mode
        self._ordered = ordered
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._chunksize = chunksize
        self._start_method = start_method
        self._group: WorkerGroup | None = None
        self._pending: deque[_Task] = deque()  # ordered: in order; unordered: in order of arrival
        self._n_out = 0  # tasks with the workers
        self._source_error: BaseException | None = None
        self._busy = False
        self._closed = False
        self._pid = os.getpid()
        self._pulled = self._yielded = 0
        self._bytes = self._peak_items = self._peak_bytes = 0

    # -- the iterator ---------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> U:
        if self._closed:
            raise StopIteration
        if self._busy:
            raise StateError("another call is waiting for this parallel_map's next result")
        if self._pid != os.getpid():
            raise StateError("this parallel_map belongs to the process that made it")
        self._busy = True
        try:
            return self._next()
        except StopIteration:
            self._stop(wait=True)
            raise
        except (KeyboardInterrupt, SystemExit):
            # A worker may be in the middle of a long call; do not make the user wait for it.
            self._stop(wait=False)
            raise
        except BaseException:
            self._stop(wait=True)
            raise
        finally:
            self._busy = False

    def _next(self) -> U:
        if self._mode == "inline":
            return self._next_inline()
        while True:
            ready = bool(self._pending) and self._pending[0].done
            # With a result at hand the source can wait until half the room is free: handing the
            # workers many items at a time costs far fewer switches between threads.
            if not ready or 2 * (self._pulled - self._yielded) <= self._max_items:
                self._fill()
            if ready:
                task = self._pending[0]
                if task.next < len(task.results):
                    return self._hand_out(task)
                self._pending.popleft()
                if task.error is not None:
                    raise _passable(task.error)
                continue
            if self._n_out == 0:
                if self._source_error is not None:
                    raise self._source_error
                raise StopIteration
            self._receive()

    def _hand_out(self, task: _Task) -> U:
        index = task.next
        task.next += 1
        result = task.results[index]
        task.results[index] = None
        self._bytes -= task.costs[index]
        self._yielded += 1
        return cast("U", result)

    def _receive(self) -> None:
        task = cast("WorkerGroup", self._group).receive()
        self._n_out -= 1
        task.done = True
        # From here on an item is worth what its result takes, and no longer what it took itself.
        if self._max_bytes is not None:
            costs = [self._size_of(result) for result in task.results]
            spare = [0] * (len(task.items) - len(costs))
            self._bytes += sum(costs) - sum(task.costs)
            self._peak_bytes = max(self._peak_bytes, self._bytes)
            task.costs = costs + spare
        task.items.clear()
        if not self._ordered:
            self._pending.append(task)

    def _fill(self) -> None:
        """Pull items and hand them to the workers until a bound or the end of the source."""
        while self._source is not None and self._room() > 0:
            task = _Task(self._pulled)
            for _ in range(min(self._chunksize, self._room())):
                if self._max_bytes is not None and self._bytes >= self._max_bytes:
                    break
                if not self._pull(task):
                    break
            if not task.items:
                return
            if self._group is None:
                self._start()
            if self._ordered:
                self._pending.append(task)
            self._n_out += 1
            cast("WorkerGroup", self._group).send(task)

    def _room(self) -> int:
        """How many more items may be in flight; the byte bound lets one through when idle."""
        in_flight = self._pulled - self._yielded
        if self._max_bytes is not None and self._bytes >= self._max_bytes and in_flight:
            return 0
        return self._max_items - in_flight

    def _pull(self, task: _Task) -> bool:
        try:
            item = next(cast("Iterator[Any]", self._source))
        except StopIteration:
            self._source = None
            return False
        except Exception as error:
            # Raised when the results of the items before it have been handed out.
            self._source = None
            self._source_error = error
            return False
        cost = 0 if self._max_bytes is None else self._size_of(item)
        task.items.append(item)
        task.costs.append(cost)
        self._pulled += 1
        self._bytes += cost
        self._peak_items = max(self._peak_items, self._pulled - self._yielded)
        self._peak_bytes = max(self._peak_bytes, self._bytes)
        return True

    def _next_inline(self) -> U:
        from rustllm._workers import note_position

        item = next(cast("Iterator[Any]", self._source))
        index = self._pulled
        self._pulled += 1
        self._peak_items = 1
        try:
            result = self._function(item)
        except Exception as error:
            note_position(error, index)
            raise _passable(error) from error.__cause__
        self._yielded += 1
        return result

    def _start(self) -> None:
        from rustllm._workers import WorkerGroup

        self._group = WorkerGroup(self._function, self._workers, self._mode, self._start_method)

    # -- the end --------------------------------------------------------------------------------

    def _stop(self, *, wait: bool) -> None:
        self._closed = True
        self._source = None
        self._pending.clear()
        group, self._group = self._group, None
        if group is not None and self._pid == os.getpid():
            group.stop(wait=wait)

    def close(self) -> None:
        """Stop: cancel what waits, let each worker end the item it is at, and join all workers.

        Closing twice is harmless, as is closing after the end.
        """
        self._stop(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop(wait=not isinstance(error, KeyboardInterrupt | SystemExit))

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._stop(wait=False)

    @property
    def progress(self) -> Progress:
        """Counters, for tests and for progress bars."""
        in_flight = self._pulled - self._yielded
        return Progress(
            self._pulled,
            self._yielded,
            in_flight,
            self._bytes,
            self._peak_items,
            self._peak_bytes,
        )


def _passable(error: BaseException) -> BaseException:
    """Return the error; a StopIteration, which would pass for the end, inside a RuntimeError."""
    if not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError("the function raised StopIteration")
    wrapped.__cause__ = error
    return wrapped


def _size_of(value: object) -> int:
    """Bytes that a text, buffer, array or object takes, as far as it says."""
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    return sys.getsizeof(value)


def parallel_map(
    function: Callable[[T], U],
    source: Iterable[T],
    *,
    workers: int | None = None,
    mode: Literal["threads", "processes", "inline"] = "threads",
    ordered: bool = True,
    max_items: int | None = None,
    max_bytes: int | None = None,
    size_of: Callable[[Any], int] = _size_of,
    chunksize: int = 1,
    start_method: str | None = None,
) -> ParallelMap[U]:
    """Yield ``function(item)`` for each item of `source`, computed by several workers.

    Parameters
    ----------
    function : callable
        In processes it must be importable, and items and results picklable.
    source : iterable
        Read by the consumer's own thread, while it waits for a result.
    workers : int, optional
        Threads or processes; by default as many as the process may use cores.
    mode : {"threads", "processes", "inline"}
        Threads suit functions that release the GIL, as all of this library's kernels do. "inline"
        calls the function in the consumer, with the same results and errors.
    ordered : bool
        Results in the order of their items, or as they come.
    max_items : int, optional
        Most items between source and consumer; by default twice ``workers * chunksize``, and at
        least 32.
    max_bytes : int, optional
        Nothing is pulled while the items and results in between take this much, by `size_of`. An
        item's size is known only once it is there, so that one may go over.
    size_of : callable
        Bytes of an item or of a result; by default its ``nbytes``, length or ``sys.getsizeof``.
    chunksize : int
        Items handed to a worker at once; more pays when a call takes only microseconds.
    start_method : str, optional
        How processes start; by default "forkserver" where there is one, else "spawn".

    Returns
    -------
    ParallelMap
        An iterator with `close` and `progress` that is also a context manager. Workers start with
        the first ``next``, and are joined at the end, at an error, and by `close`.

    Raises
    ------
    ArgumentError
        A bound is below 1.
    Exception
        What the function or the source raised: in order, at the position of the item and after all
        results before it; with a note that names the item. Nothing more is pulled, what waits is
        cancelled, and the workers are joined before it is raised.

    Notes
    -----
    The function runs in a copy of the context (`contextvars`) that called `parallel_map`, so error
    contexts reach into the workers. A source that blocks holds back results that are ready; put
    `rustllm.stream.prefetch` before it. After Ctrl-C threads are left to end the call they are in,
    unwaited for; processes are terminated.

    Examples
    --------
    >>> from rustllm import parallel_map
    >>> list(parallel_map(str.upper, ["a", "b", "c"], workers=2))
    ['A', 'B', 'C']
    >>> texts = ("x" * n for n in range(10**9))
    >>> with parallel_map(len, texts, workers=2, max_items=4) as lengths:
    ...     next(lengths), next(lengths), lengths.progress.pulled <= 6
    (0, 1, True)
    """
    if workers is None:
        workers = _n_cores()
    for name, value in (("workers", workers), ("chunksize", chunksize)):
        if value < 1:
            raise ArgumentError(f"{name} must be at least 1, got {value}", key=name)
    if max_items is None:
        max_items = max(2 * workers * chunksize, 32)
    if max_items < 1 or (max_bytes is not None and max_bytes < 1):
        raise ArgumentError("max_items and max_bytes must be at least 1")
    if mode not in ("threads", "processes", "inline"):
        raise ArgumentError(
            f"mode must be 'threads', 'processes' or 'inline', got {mode!r}", key="mode"
        )
    return ParallelMap(
        function,
        source,
        workers=workers,
        mode=mode,
        ordered=ordered,
        max_items=max_items,
        max_bytes=max_bytes,
        size_of=size_of,
        chunksize=chunksize,
        start_method=start_method,
    )


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

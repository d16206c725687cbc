"""Reading ahead in threads: one source (`prefetch`) or several at once (`merge`)."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextvars import copy_context
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from rustllm.errors import ArgumentError, StateError

__all__ = ["ReadAhead", "merge", "prefetch"]

T = TypeVar("T")

# An untimed wait for a lock hears Ctrl-C everywhere but on Windows.
_WAIT = 0.1 if sys.platform == "win32" else None


class _End:
    """Message of a thread whose source has ended, with the error that ended it."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class ReadAhead(Iterator[T], Generic[T]):
    """Items of sources that threads read ahead, at most `n` items each; an iterator to be closed.

    Notes
    -----
    Belongs to one consumer at a time. Each source is read by one thread only, in the context
    (`contextvars`) of the caller. `close` waits for the reads under way; an iterator that is
    dropped lets its threads end without waiting.
    """

    def __init__(self, sources: Iterable[Iterable[T]], n: int) -> None:
        if n < 1:
            raise ArgumentError(f"the number of items to read ahead must be at least 1, got {n}")
        self._sources: list[Iterable[T]] | None = list(sources)
        self._n = n
        self._out: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._permits: list[SimpleQueue[bool]] = []
        self._threads: list[threading.Thread] = []
        self._n_open = len(self._sources)
        self._closed = False
        self._pid = os.getpid()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        if self._pid != os.getpid():
            raise StateError("this stream belongs to the process that made it")
        try:
            if self._sources is not None:
                self._start(self._sources)
                self._sources = None
            while self._n_open:
                index, item = self._get()
                if not isinstance(item, _End):
                    self._permits[index].put(True)
                    return cast("T", item)
                self._n_open -= 1
                if item.error is not None:
                    raise item.error
        except (KeyboardInterrupt, SystemExit):
            self._stop(wait=False)
            raise
        except BaseException:
            self._stop(wait=True)
            raise
        self._stop(wait=True)
        raise StopIteration

    def _get(self) -> tuple[int, Any]:
        while True:
            try:
                return self._out.get(timeout=_WAIT)
            except Empty:
                continue

    def _start(self, sources: list[Iterable[T]]) -> None:
        context = copy_context()
        for index, source in enumerate(sources):
            permits: SimpleQueue[bool] = SimpleQueue()
            for _ in range(self._n):
                permits.put(True)
            self._permits.append(permits)
            thread = threading.Thread(
                target=context.copy().run,
                args=(_read, index, source, permits, self._out),
                name="rustllm-reader",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)

    def _stop(self, *, wait: bool) -> None:
        self._closed = True
        self._sources = None
        if self._pid != os.getpid():
            return
        for permits in self._permits:
            # False goes in behind permits not yet used, which must not be used any more.
            while not permits.empty():
                try:
                    permits.get_nowait()
                except Empty:
                    break
            permits.put(False)
        if wait:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join()

    def close(self) -> None:
        """Stop reading, and join the threads once they have ended the reads they are at."""
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


def _read(
    index: int,
    source: Iterable[Any],
    permits: SimpleQueue[bool],
    out: SimpleQueue[tuple[int, Any]],
) -> None:
    # Nothing here refers to the ReadAhead, so that dropping it is seen.
    error: BaseException | None = None
    try:
        items = iter(source)
        while permits.get():
            try:
                item = next(items)
            except StopIteration:
                break
            out.put((index, item))
            del item
    except BaseException as raised:
        error = raised
    out.put((index, _End(error)))


def prefetch(source: Iterable[T], n: int = 2) -> ReadAhead[T]:
    """Read up to `n` items ahead of the consumer, in a thread.

    Useful where the source waits (for a disk, a network, a kernel that releases the GIL) and the
    consumer computes. The thread starts with the first ``next``.

    Parameters
    ----------
    source : iterable
        Read by one other thread only.
    n : int
        Items that may be read and not yet consumed.

    Returns
    -------
    ReadAhead
        An iterator with `close`, also a context manager. An error of the source is raised after
        the items before it.

    Raises
    ------
    ArgumentError
        `n` is below 1.

    Examples
    --------
    >>> from rustllm import stream
    >>> with stream.prefetch(iter("abc"), 2) as letters:
    ...     next(letters)
    'a'
    """
    return ReadAhead([source], n)


def merge(*sources: Iterable[T], n: int = 2) -> ReadAhead[T]:
    """Yield the items of all sources as they come, each source read by a thread of its own.

    Parameters
    ----------
    *sources : iterable
        Items of one source keep their order.
    n : int
        Items of each source that may be read and not yet consumed.

    Returns
    -------
    ReadAhead
        An iterator with `close`, also a context manager. The first error ends it, as it comes.

    Raises
    ------
    ArgumentError
        `n` is below 1.

    Examples
    --------
    >>> from rustllm import stream
    >>> sorted(stream.merge("ace", "bd"))
    ['a', 'b', 'c', 'd', 'e']
    """
    return ReadAhead(sources, n)

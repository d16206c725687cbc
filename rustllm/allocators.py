"""Wrappers that put a limit, statistics, tracking or failures on purpose around an allocator.

Each wrapper is an allocator itself, so they compose: ``Limited(Counted(Arena()), 1 << 20)``. Use
them to bound one part of a program that shares an arena with others, to see what it asks for, to
find who still holds memory, and to test what happens when memory runs out.
"""

from __future__ import annotations

import threading
import traceback
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rustllm._core.arena import ArenaBuffer
from rustllm.errors import ArgumentError, LiveViewError, MemoryLimitError, OutOfMemoryError

__all__ = [
    "AllocationRecord",
    "Allocator",
    "AllocatorCounts",
    "Counted",
    "FailAfter",
    "Limited",
    "Tracked",
]

Shape = int | tuple[int, ...] | list[int]


@runtime_checkable
class Allocator(Protocol):
    """What an :class:`~rustllm.Arena` and every wrapper around one can do."""

    def alloc(self, n: int, align: int = 16, *, zeroed: bool = False) -> ArenaBuffer:
        """Writable memory for `n` bytes."""

    def alloc_array(
        self, shape: Shape, dtype: DTypeLike = "float64", *, align: int = 64, zeroed: bool = False
    ) -> NDArray[Any]:
        """An array in this allocator's memory."""

    def scope(self) -> AbstractContextManager[Any]:
        """A block whose allocations are taken back at its end."""

    def reset(self) -> None:
        """Take everything back."""


class _Wrapper:
    """Hands every request to the allocator inside, and looks at it before and after."""

    def __init__(self, inner: Allocator) -> None:
        self.inner = inner
        self._lock = threading.Lock()

    def _before(self, n_bytes: int) -> None:
        """May refuse a request of `n_bytes`, by raising."""

    def _after(self, n_bytes: int, result: object) -> None:
        """A request was served."""

    def _failed(self, n_bytes: int) -> None:
        """A request that was let through was refused further inside."""

    def _save(self) -> Any:
        """What to restore when a scope that begins now has ended."""

    def _restore(self, saved: Any) -> None:
        """The allocations made since the matching `_save` were taken back."""

    def _cleared(self) -> None:
        """All allocations were taken back."""

    def alloc(self, n: int, align: int = 16, *, zeroed: bool = False) -> ArenaBuffer:
        """As :meth:`rustllm.Arena.alloc`."""
        self._before(n)
        try:
            buffer = self.inner.alloc(n, align, zeroed=zeroed)
        except BaseException:
            self._failed(n)
            raise
        self._after(n, buffer)
        return buffer

    def alloc_array(
        self, shape: Shape, dtype: DTypeLike = "float64", *, align: int = 64, zeroed: bool = False
    ) -> NDArray[Any]:
        """As :meth:`rustllm.Arena.alloc_array`."""
        n_bytes = np.dtype(dtype).itemsize
        for length in shape if isinstance(shape, tuple | list) else (shape,):
            n_bytes *= length
        self._before(n_bytes)
        try:
            array = self.inner.alloc_array(shape, dtype, align=align, zeroed=zeroed)
        except BaseException:
            self._failed(n_bytes)
            raise
        self._after(n_bytes, array)
        return array

    @contextmanager
    def scope(self) -> Iterator[Allocator]:
        """As :meth:`rustllm.Arena.scope`; gives this wrapper."""
        saved = self._save()
        with self.inner.scope():
            yield self
        self._restore(saved)

    def reset(self) -> None:
        """As :meth:`rustllm.Arena.reset`."""
        self.inner.reset()
        self._cleared()


class Limited(_Wrapper):
    """Refuses what would bring the bytes handed out since the last reset above a limit.

    Parameters
    ----------
    inner : Allocator
        Where the memory comes from.
    limit : int
        Most bytes, as asked for, without padding.

    Raises
    ------
    ArgumentError
        The limit is negative.

    Notes
    -----
    Thread safety: any number of threads. A scope is for one thread at a time.

    Examples
    --------
    >>> from rustllm import Arena
    >>> from rustllm.allocators import Limited
    >>> part = Limited(Arena(), limit=100)
    >>> _ = part.alloc(80)
    >>> part.alloc(30)
    Traceback (most recent call last):
        ...
    rustllm.errors.MemoryLimitError: 30 bytes more would exceed this limit of 100 (80 are in use)
    """

    def __init__(self, inner: Allocator, limit: int) -> None:
        super().__init__(inner)
        if limit < 0:
            raise ArgumentError(f"limit must not be negative, but is {limit}")
        self.limit = limit
        self.n_bytes = 0

    def _before(self, n_bytes: int) -> None:
        with self._lock:
            if n_bytes > self.limit - self.n_bytes:
                raise MemoryLimitError(
                    f"{n_bytes} bytes more would exceed this limit of {self.limit}",
                    hint=f"{self.n_bytes} are in use",
                    requested=n_bytes,
                    limit=self.limit,
                )
            self.n_bytes += max(n_bytes, 0)

    def _failed(self, n_bytes: int) -> None:
        with self._lock:
            self.n_bytes -= max(n_bytes, 0)

    def _save(self) -> int:
        return self.n_bytes

    def _restore(self, saved: int) -> None:
        self.n_bytes = saved

    def _cleared(self) -> None:
        self.n_bytes = 0


class AllocatorCounts(NamedTuple):
    """What was asked of a :class:`Counted` allocator.

    Attributes
    ----------
    n_bytes, peak_bytes : int
        Handed out since the last reset; and the most ever.
    total_bytes : int
        Handed out ever.
    n_allocations, n_failures, n_resets : int
        Requests served, requests refused, and resets.
    by_size : dict of int to int
        Requests served by size: ``{64: 3}`` is three of 33 to 64 bytes.
    """

    n_bytes: int
    peak_bytes: int
    total_bytes: int
    n_allocations: int
    n_failures: int
    n_resets: int
    by_size: dict[int, int]


class Counted(_Wrapper):
    """Counts what is asked of the allocator inside.

    Parameters
    ----------
    inner : Allocator
        Where the memory comes from.

    Notes
    -----
    Thread safety: any number of threads. A scope is for one thread at a time.

    Examples
    --------
    >>> from rustllm import Arena
    >>> from rustllm.allocators import Counted
    >>> counted = Counted(Arena())
    >>> _ = counted.alloc(100), counted.alloc_array((3, 4), "float32")
    >>> counts = counted.counts
    >>> counts.n_allocations, counts.n_bytes, counts.by_size
    (2, 148, {64: 1, 128: 1})
    """

    def __init__(self, inner: Allocator) -> None:
        super().__init__(inner)
        self._n_bytes = self._peak = self._total = 0
        self._n_allocations = self._n_failures = self._n_resets = 0
        self._by_size: dict[int, int] = {}

    def _after(self, n_bytes: int, result: object) -> None:
        with self._lock:
            self._n_bytes += n_bytes
            self._total += n_bytes
            self._peak = max(self._peak, self._n_bytes)
            self._n_allocations += 1
            size = 1 << max(n_bytes - 1, 0).bit_length()
            self._by_size[size] = self._by_size.get(size, 0) + 1

    def _failed(self, n_bytes: int) -> None:
        with self._lock:
            self._n_failures += 1

    def _save(self) -> int:
        return self._n_bytes

    def _restore(self, saved: int) -> None:
        self._n_bytes = saved

    def _cleared(self) -> None:
        with self._lock:
            self._n_bytes = 0
            self._n_resets += 1

    @property
    def counts(self) -> AllocatorCounts:
        """The counts so far."""
        with self._lock:
            return AllocatorCounts(
                self._n_bytes,
                self._peak,
                self._total,
                self._n_allocations,
                self._n_failures,
                self._n_resets,
                dict(sorted(self._by_size.items())),
            )


class AllocationRecord(NamedTuple):
    """A buffer or array that a :class:`Tracked` allocator handed out and that is still alive.

    Attributes
    ----------
    n_bytes : int
        Its size.
    stack : str
        Where it was made, innermost call last, as a traceback shows it.
    """

    n_bytes: int
    stack: str


class Tracked(_Wrapper):
    """Remembers where every buffer and array that is still alive was made.

    Parameters
    ----------
    inner : Allocator
        Where the memory comes from.
    depth : int, optional
        How many calls of the stack to remember.

    Notes
    -----
    For looking for leaks: an allocation costs tens of microseconds. A part of an array counts as
    the array only while the array itself is alive.

    Thread safety: any number of threads.

    Examples
    --------
    >>> from rustllm import Arena
    >>> from rustllm.allocators import Tracked
    >>> tracked = Tracked(Arena())
    >>> kept = tracked.alloc_array(10)
    >>> _ = tracked.alloc(100)
    >>> [record.n_bytes for record in tracked.live()]
    [80, 100]
    >>> del _
    >>> [record.n_bytes for record in tracked.live()]
    [80]
    """

    def __init__(self, inner: Allocator, depth: int = 8) -> None:
        super().__init__(inner)
        self.depth = depth
        self._records: dict[int, tuple[weakref.ref[object], AllocationRecord]] = {}
        self._next = 0
        # A weak reference may die inside a block that holds the lock, in the same thread.
        self._lock = threading.RLock()  # type: ignore[assignment]

    def _after(self, n_bytes: int, result: object) -> None:
        frames = traceback.extract_stack(limit=self.depth + 2)[:-2]
        record = AllocationRecord(n_bytes, "".join(traceback.format_list(frames)))
        with self._lock:
            key = self._next
            self._next += 1
            self._records[key] = (weakref.ref(result, partial(self._forget, key)), record)

    def _forget(self, key: int, ref: weakref.ref[object]) -> None:
        self._records.pop(key, None)

    def live(self) -> list[AllocationRecord]:
        """What is alive, oldest first."""
        with self._lock:
            return [record for ref, record in list(self._records.values()) if ref() is not None]

    def check(self) -> None:
        """Require that nothing is alive.

        Raises
        ------
        LiveViewError
            Something is; its ``hint`` shows where the first was made.
        """
        live = self.live()
        if live:
            raise LiveViewError(
                f"{len(live)} allocations are still alive",
                n_views=len(live),
                n_bytes=sum(record.n_bytes for record in live),
                n_pins=0,
                hint=f"the first was made at\n{live[0].stack}",
            )


class FailAfter(_Wrapper):
    """Lets `n` requests through and refuses the next ones, to test what happens then.

    Parameters
    ----------
    inner : Allocator
        Where the memory comes from.
    n : int
        How many requests succeed.
    times : int, optional
        How many are refused before requests succeed again; by default all.

    Notes
    -----
    Thread safety: any number of threads.

    Examples
    --------
    >>> from rustllm import Arena
    >>> from rustllm.allocators import FailAfter
    >>> failing = FailAfter(Arena(), 1)
    >>> _ = failing.alloc(8)
    >>> failing.alloc(8)
    Traceback (most recent call last):
        ...
    rustllm.errors.OutOfMemoryError: refused on purpose, after 1 allocations
    """

    def __init__(self, inner: Allocator, n: int, times: int | None = None) -> None:
        super().__init__(inner)
        self.n = n
        self.times = times
        self.n_requests = 0

    def _before(self, n_bytes: int) -> None:
        with self._lock:
            request = self.n_requests
            self.n_requests += 1
        if request >= self.n and (self.times is None or request < self.n + self.times):
            raise OutOfMemoryError(
                f"refused on purpose, after {self.n} allocations", requested=n_bytes
            )

"""The combinators of :mod:`rustllm.stream` for ``async for``.

Each takes asynchronous iterables, and plain ones as well, and gives an asynchronous generator. A
combinator takes its sources over: when it ends it closes them, and what starts tasks ends those
first. So close a generator that is not read to its end, with ``contextlib.aclosing`` or ``await
generator.aclose()``, and nothing of the whole pipe is left.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from rustllm.errors import ArgumentError
from rustllm.stream.combinators import Bucket

__all__ = [
    "from_sync",
    "interleave",
    "map",
    "merge",
    "pipe",
    "prefetch",
    "rate",
    "tee",
    "zip_longest",
]

T = TypeVar("T")
U = TypeVar("U")
Source = AsyncIterable[T] | Iterable[T]

_END: Any = object()


def _aiter(source: Source[T]) -> AsyncIterator[T]:
    if isinstance(source, AsyncIterable):
        return aiter(source)
    return _from_iterable(source)


@asynccontextmanager
async def _opened(*sources: Source[Any]) -> AsyncGenerator[list[AsyncIterator[Any]], None]:
    streams = [_aiter(source) for source in sources]
    try:
        yield streams
    finally:
        for stream in streams:
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()


async def _from_iterable(source: Iterable[T]) -> AsyncGenerator[T, None]:
    for item in source:
        yield item


async def from_sync(source: Iterable[T]) -> AsyncGenerator[T, None]:
    """Read a plain iterable whose ``next`` waits, in threads, so that the loop goes on meanwhile.

    Examples
    --------
    >>> import asyncio
    >>> from rustllm.stream import aio
    >>> async def main():
    ...     return [item async for item in aio.from_sync("ab")]
    >>> asyncio.run(main())
    ['a', 'b']
    """
    items = iter(source)
    while (item := await asyncio.to_thread(next, items, _END)) is not _END:
        yield item


def pipe(
    source: Source[Any], /, *stages: Callable[[AsyncIterator[Any]], Any]
) -> AsyncIterator[Any]:
    """Send `source` through stages, each a function from an asynchronous iterator to one."""
    stream = _aiter(source)
    for stage in stages:
        stream = _aiter(stage(stream))
    return stream


async def zip_longest(
    *sources: Source[Any], fill: Any = None
) -> AsyncGenerator[tuple[Any, ...], None]:
    """Yield one item of each source at a time, awaited together; `fill` for those that ended."""
    async with _opened(*sources) as streams:
        open_ = [True] * len(streams)

        async def advance(index: int) -> Any:
            if not open_[index]:
                return _END
            try:
                return await anext(streams[index])
            except StopAsyncIteration:
                open_[index] = False
                return _END

        while True:
            row = await _gather([advance(index) for index in range(len(streams))])
            if not any(open_):
                return
            yield tuple(fill if item is _END else item for item in row)


async def interleave(*sources: Source[T], size: int = 1) -> AsyncGenerator[T, None]:
    """Yield `size` items of each source in turn; a source that has ended is passed over."""
    if size < 1:
        raise ArgumentError(f"size must be at least 1, got {size}")
    async with _opened(*sources) as streams:
        turn = list(streams)
        while turn:
            left = []
            for stream in turn:
                for _ in range(size):
                    try:
                        item = await anext(stream)
                    except StopAsyncIteration:
                        break
                    yield item
                else:
                    left.append(stream)
            turn = left


async def prefetch(source: Source[T], n: int = 2) -> AsyncGenerator[T, None]:
    """Read up to `n` items ahead of the consumer, in a task."""
    async with aclosing(merge(source, n=n)) as items:
        async for item in items:
            yield item


async def merge(*sources: Source[T], n: int = 2) -> AsyncGenerator[T, None]:
    """Yield the items of all sources as they come, at most `n` of each read ahead.

    The first error ends it, as it comes.

    Examples
    --------
    >>> import asyncio
    >>> from rustllm.stream import aio
    >>> async def main():
    ...     return sorted([item async for item in aio.merge("ac", "b")])
    >>> asyncio.run(main())
    ['a', 'b', 'c']
    """
    if n < 1:
        raise ArgumentError(f"the number of items to read ahead must be at least 1, got {n}")
    out: asyncio.Queue[tuple[asyncio.Semaphore, Any, BaseException | None]] = asyncio.Queue()

    async def read(source: Source[T]) -> None:
        permits = asyncio.Semaphore(n)
        try:
            async with _opened(source) as (stream,):
                await permits.acquire()
                async for item in stream:
                    out.put_nowait((permits, item, None))
                    await permits.acquire()
        except Exception as error:
            out.put_nowait((permits, _END, error))
        else:
            out.put_nowait((permits, _END, None))

    tasks = [asyncio.create_task(read(source)) for source in sources]
    try:
        n_open = len(tasks)
        while n_open:
            permits, item, error = await out.get()
            if error is not None:
                raise error
            if item is _END:
                n_open -= 1
                continue
            permits.release()
            yield item
    finally:
        await _cancel(tasks)


async def map(  # noqa: A001  the name that the operation has everywhere
    function: Callable[[T], Awaitable[U]],
    source: Source[T],
    *,
    limit: int = 8,
    ordered: bool = True,
) -> AsyncGenerator[U, None]:
    """Yield ``await function(item)`` for each item, at most `limit` awaited or waiting at once.

    The asynchronous `rustllm.parallel_map`: nothing is pulled beyond the limit, the first error is
    raised at its item's position (with ``ordered=False``, as it comes), and whatever ends the
    generator cancels and awaits what is under way.

    Examples
    --------
    >>> import asyncio
    >>> from rustllm.stream import aio
    >>> async def double(x):
    ...     await asyncio.sleep(0)
    ...     return 2 * x
    >>> async def main():
    ...     return [item async for item in aio.map(double, range(4), limit=2)]
    >>> asyncio.run(main())
    [0, 2, 4, 6]
    """
    if limit < 1:
        raise ArgumentError(f"limit must be at least 1, got {limit}")
    tasks: deque[asyncio.Task[U]] = deque()
    pull: asyncio.Task[T] | None = None
    source_error: Exception | None = None

    async def call(item: T) -> U:
        return await function(item)

    async with _opened(source) as (stream,):

        async def next_item() -> T:
            try:
                return await anext(stream)
            except StopAsyncIteration:
                return _END  # type: ignore[no-any-return]

        open_ = True
        try:
            while True:
                if open_ and pull is None and len(tasks) < limit:
                    pull = asyncio.create_task(next_item())
                waiting: list[asyncio.Task[Any]] = [tasks[0]] if ordered and tasks else [*tasks]
                if pull is not None:
                    waiting.append(pull)
                if not waiting:
                    if source_error is not None:
                        raise source_error
                    return
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if pull is not None and pull.done():
                    try:
                        item = pull.result()
                    except Exception as error:
                        open_, source_error = False, error
                    else:
                        open_ = item is not _END
                        if open_:
                            tasks.append(asyncio.create_task(call(item)))
                    pull = None
                candidates = [tasks[0]] if ordered and tasks else [*tasks]
                for task in candidates:
                    if task.done():
                        tasks.remove(task)
                        yield task.result()
                        break
        finally:
            await _cancel(tasks if pull is None else [*tasks, pull])


def tee(source: Source[T], n: int = 2, *, lag: int = 1024) -> tuple[AsyncGenerator[T, None], ...]:
    """Give every item of `source` to each of `n` generators.

    One that is `lag` items ahead of the slowest waits for it. A generator that is closed counts no
    more; one that is never started holds the others back.
    """
    if n < 0 or lag < 1:
        raise ArgumentError(f"n must not be negative and lag at least 1, got {n} and {lag}")
    shared = _SharedSource(_aiter(source), n, lag)
    return tuple(shared.branch(index) for index in range(n))


class _SharedSource:
    def __init__(self, source: AsyncIterator[Any], n: int, lag: int) -> None:
        self._stream = source
        self._open = True
        self._error: Exception | None = None
        self._buffer: deque[Any] = deque()
        self._first = 0
        self._lag = lag
        self._positions = dict.fromkeys(range(n), 0)
        self._changed = asyncio.Condition()
        self._reading = False

    async def branch(self, index: int) -> AsyncGenerator[Any, None]:
        try:
            while True:
                position = self._positions[index]
                while position == self._first + len(self._buffer):
                    if not self._open:
                        if self._error is not None:
                            raise self._error
                        return
                    await self._read_or_wait()
                item = self._buffer[position - self._first]
                self._positions[index] = position + 1
                await self._forget()
                yield item
        finally:
            del self._positions[index]
            await self._forget()
            if not self._positions and (close := getattr(self._stream, "aclose", None)):
                await close()

    async def _read_or_wait(self) -> None:
        async with self._changed:
            if self._reading or len(self._buffer) >= self._lag:
                await self._changed.wait()
                return
            self._reading = True
        try:
            self._buffer.append(await anext(self._stream))
        except StopAsyncIteration:
            self._open = False
        except Exception as error:
            self._open, self._error = False, error
        finally:
            self._reading = False
            async with self._changed:
                self._changed.notify_all()

    async def _forget(self) -> None:
        slowest = min(self._positions.values(), default=self._first + len(self._buffer))
        if self._first < slowest:
            while self._first < slowest:
                self._buffer.popleft()
                self._first += 1
            async with self._changed:
                self._changed.notify_all()


async def rate(
    source: Source[T],
    per_second: float,
    *,
    burst: float = 1,
    cost: Callable[[T], float] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> AsyncGenerator[T, None]:
    """Yield the items no faster than `per_second`; arguments as in `rustllm.stream.rate`."""
    bucket = Bucket(per_second, burst, clock)
    async with _opened(source) as (stream,):
        async for item in stream:
            units = 1.0 if cost is None else cost(item)
            while (seconds := bucket.wait_for(units)) > 0:
                await sleep(seconds)
            bucket.take(units)
            yield item


async def _gather(awaitables: list[Any]) -> list[Any]:
    """Await all together; if one fails or this is cancelled, end the others first."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _cancel(tasks)


async def _cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()  # does nothing to those that are done
    # Also fetches the errors that nobody asked for, which asyncio would warn about.
    await asyncio.gather(*tasks, return_exceptions=True)

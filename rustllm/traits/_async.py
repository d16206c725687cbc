"""Taking the next item of a slow iterator without holding up an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


async def next_in_thread(source: Iterator[T], cancel: Callable[[], None]) -> T:
    """Await ``next(source)`` in a thread; where the task is cancelled, `cancel` stops the thread.

    The thread has ended when this returns or raises.
    """
    step = asyncio.ensure_future(asyncio.to_thread(next, source, None))
    try:
        item = await asyncio.shield(step)
    except asyncio.CancelledError:
        cancel()
        with contextlib.suppress(Exception):
            await step
        raise
    if item is None:
        raise StopAsyncIteration
    return item

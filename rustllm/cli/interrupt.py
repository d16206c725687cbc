"""Ctrl-C stops the program at once, whatever runs.

Python turns the signal into ``KeyboardInterrupt`` between two byte codes, and our long loops check
for signals. What is left is foreign code that holds the main thread (a slow disk, a library): a
watcher then ends the process after half a second. A second Ctrl-C ends it without waiting.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interruptible"]

GRACE_SECONDS = 0.5
_EXIT_STATUS = 130


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGINT raises ``KeyboardInterrupt``, or ends the process if that cannot be.

    Does nothing outside the main thread, where Python lets no one set a signal's handler. The
    previous handler is put back at the end of the block.

    Examples
    --------
    >>> import signal
    >>> from rustllm.cli.interrupt import interruptible
    >>> try:
    ...     with interruptible():
    ...         signal.raise_signal(signal.SIGINT)
    ... except KeyboardInterrupt:
    ...     print("stopped")
    stopped
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = threading.Event()

    def on_interrupt(_signum: int, _frame: FrameType | None) -> None:
        if handled.is_set():
            os._exit(_EXIT_STATUS)
        handled.set()
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, on_interrupt)
    if sys.platform == "win32":  # set_wakeup_fd wants a socket there
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # The C-level handler writes the signal's number to the pipe even when the interpreter is busy.
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def watch() -> None:
        while byte := os.read(reading, 1):
            if byte[0] == signal.SIGINT and not handled.wait(GRACE_SECONDS):
                os._exit(_EXIT_STATUS)
        os.close(reading)

    threading.Thread(target=watch, name="rustllm-interrupt", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, previous)
        os.close(writing)

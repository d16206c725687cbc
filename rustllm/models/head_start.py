"""Memory for the weights of a file, taken on another core while the rest is imported and read."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rustllm._core.zeroed import ZeroedMemory

__all__ = ["HeadStart"]

_SMALLEST = 16 << 20  # of a file: less is there at once


class HeadStart:
    """A block of code meanwhile a thread takes possession of memory.

    The first touch of a page costs a fault, and in a virtual machine often a second one in its
    host: a quarter of a second for 250 MB. Importing numpy and the model code takes a tenth of a
    second, on one core.

    Parameters
    ----------
    path : Path
        A file of weights.

    Attributes
    ----------
    region : ZeroedMemory or None
        A little more than the file's size; None for small files and folders, on one core, or where
        there is no memory.
    """

    def __init__(self, path: Path) -> None:
        self.region: ZeroedMemory | None = None
        self._thread: threading.Thread | None = None
        try:
            size = path.stat().st_size if path.is_file() else 0
        except OSError:  # whoever opens it will say what is wrong
            return
        if size < _SMALLEST:
            return
        from rustllm._core.threads import available_threads
        from rustllm._core.zeroed import ZeroedMemory

        if available_threads() < 2:
            return
        try:
            # Packed weights take up to a twentieth more than the file, or less where a table stays.
            self.region = ZeroedMemory(size + size // 16, "weights", huge=True)
            self._thread = threading.Thread(
                target=self.region.touch, args=(size // 4 * 3,), name="rustllm-memory", daemon=True
            )
            self._thread.start()
        except (MemoryError, RuntimeError):  # no address space, or no more threads
            self._thread = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.region is None:
            return
        self.region.leave()
        if self._thread is not None:
            self._thread.join()
        self.region.give_back_unused()
        self.region = None

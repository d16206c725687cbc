"""Memory for one row of scores a token, in large pages.

A vocabulary of 262,144 takes a megabyte of scores a token. Fresh from the allocator that is 256
pages to be faulted in, one by one, for a caller that keeps every row: a twentieth of a small
model's time a token. Here rows lie side by side in pages of 2 MiB, each faulted in once.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from rustllm._core.zeroed import ZeroedMemory

__all__ = ["ScoreRows"]

_PAGE = 2 << 20
_SMALL = 64 << 10  # what the allocator keeps on its heap anyway
_KEPT = 2  # pages held for reuse: a caller that drops its rows goes back and forth between them


def _references(arrays: list[Any], i: int) -> int:
    return sys.getrefcount(arrays[i])


_UNUSED = _references([np.empty(0)], 0)  # of an array that nothing but its list holds


class ScoreRows:
    """Hands out float32 rows `[1, width]`, each the caller's own for as long as it lives.

    Parameters
    ----------
    width : int

    Notes
    -----
    One thread at a time. A page is used again once no array looks into it, which its reference
    count tells; rows that a caller keeps keep their page.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        row_bytes = width * 4
        self._per_page = 0 if row_bytes < _SMALL else _PAGE // row_bytes
        self._pages: list[Any] = []
        self._next = self._per_page

    def take(self) -> Any:
        """A row with undefined content."""
        if self._per_page == 0:
            return np.empty((1, self._width), np.float32)
        if self._next == self._per_page:
            self._turn()
        start = self._next * self._width
        self._next += 1
        return self._pages[-1][start : start + self._width].reshape(1, self._width)

    def _turn(self) -> None:
        """Put a page with nothing in use at the end of the list."""
        self._next = 0
        for i in range(len(self._pages)):
            if _references(self._pages, i) == _UNUSED:
                self._pages.append(self._pages.pop(i))
                return
        mapping = ZeroedMemory(2 * _PAGE, "scores", huge=True).mapping
        whole = np.frombuffer(mapping, np.uint8)
        begin = -whole.ctypes.data % _PAGE
        self._pages.append(np.frombuffer(mapping, np.float32, _PAGE // 4, begin))
        del self._pages[:-_KEPT]

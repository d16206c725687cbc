"""One process at a time in a corpus's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rustllm.cache import access_errors, try_lock
from rustllm.errors import StateError

__all__ = ["locked"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder; the lock of a process that died is none."""
    path = folder / ".lock"
    with path.open("a+b") as file:
        with access_errors(path):
            ours = try_lock(file.fileno())
        if not ours:
            raise StateError("another process works in this folder", path=folder)
        yield  # the file stays: to remove it would let two others each lock one of their own

"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from rustllm.loaders.mapped import file_error

__all__ = ["atomic_writer"]


@contextmanager
def atomic_writer(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file beside `path`, flush it to the disk, and rename it to `path` at the end.

    When the block raises, nothing is left behind and an existing file stays as it was.

    Raises
    ------
    FileAccessError, FileMissingError
        The operating system refuses: no folder, no right, no space.
    """
    final = Path(os.fspath(path))
    temporary = None
    try:
        fd, name = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.", suffix=".part")
        temporary = Path(name)
        with os.fdopen(fd, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.chmod(_mode(final))
        temporary.replace(final)
        temporary = None
        _sync_folder(final.parent)
    except OSError as error:
        raise file_error(error, str(final)) from None
    finally:
        if temporary is not None:
            try:
                temporary.unlink()
            except OSError:
                pass


def _mode(path: Path) -> int:
    """That of the file which is replaced; else what the process gives new files."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be flushed."""
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""A file appears under its name whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rustllm.error_conversion import convert_error
from rustllm.errors import RustLLMError

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["atomic_write", "sync_folder", "write_whole"]


@contextmanager
def atomic_write(path: PathLikeStr, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file to be written that takes the name `path` when the block ends well.

    The bytes go to a temporary file beside it, which is renamed at the end, and removed when the
    block raises; a reader sees the old content or the new, never a part, also after a crash. The
    new file has the mode of the one it replaces.

    Parameters
    ----------
    path : path
    durable : bool
        Wait until the bytes, and then the name, are on the disk.

    Raises
    ------
    FileMissingError
        There is no such folder.
    FileAccessError
        The file cannot be made, written or renamed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from rustllm.serialize import atomic_write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "ids.bin")
    ...     with atomic_write(path) as file:
    ...         _ = file.write(b"abc")
    ...     path.read_bytes(), len(list(path.parent.iterdir()))
    (b'abc', 1)
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise _own(error, target) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.chmod(_mode(target))  # mkstemp makes files for the owner alone
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, RustLLMError):
            raise _own(error, target) from error
        raise
    if durable:
        sync_folder(target.parent)


def write_whole(path: PathLikeStr, data: bytes) -> None:
    """Write a file that appears whole or not at all; errors as `atomic_write`."""
    with atomic_write(path) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse
        pass
    finally:
        os.close(descriptor)


def _mode(path: Path) -> int:
    """That of the file which is replaced; else what the process gives new files."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0o077)  # there is no way to read it without setting it
        os.umask(mask)
        return 0o666 & ~mask


def _own(error: OSError, path: Path) -> RustLLMError:
    hint = {"hint": "check the path"} if isinstance(error, FileNotFoundError) else {}
    own = convert_error(error, path=str(path), **hint)
    assert own is not None  # every OSError has a class here
    return own

"""A file appears under its name whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rustllm.errors import FileAccessError

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["atomic_write"]


@contextmanager
def atomic_write(path: PathLikeStr, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file to be written that takes the name `path` when the block ends well.

    The bytes go to a temporary file beside it, which is renamed at the end, and removed when the
    block raises; a reader sees the old content or the new, never a part, also after a crash.

    Parameters
    ----------
    path : path
    durable : bool
        Wait until the bytes, and then the name, are on the disk.

    Raises
    ------
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
        raise _access(error, target) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files for the owner alone
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, FileAccessError):
            raise _access(error, target) from error
        raise
    if durable:
        sync_folder(target.parent)


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


def _umask() -> int:
    # There is no way to read it without setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _access(error: OSError, path: Path) -> FileAccessError:
    return FileAccessError(error.strerror or str(error), path=path, errno=error.errno)

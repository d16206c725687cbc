"""A file's bytes, mapped or copied, that stay valid as long as anything looks at them."""

from __future__ import annotations

import io
import mmap
import os
import stat
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from rustllm.errors import (
    FileAccessError,
    FileMissingError,
    OutOfMemoryError,
    StateError,
    TruncatedFileError,
    convert_error,
)

__all__ = ["MappedFile", "file_error"]

_PAGE = mmap.PAGESIZE


def file_error(error: OSError, path: str) -> FileMissingError | FileAccessError | OutOfMemoryError:
    """The library's error for what the operating system said about `path`."""
    hint = {"hint": "check the path"} if isinstance(error, FileNotFoundError) else {}
    converted = convert_error(error, path=path, **hint)
    assert isinstance(converted, (FileMissingError, FileAccessError, OutOfMemoryError))
    return converted


class MappedFile:
    """The bytes of one regular file, read-only.

    Parameters
    ----------
    path : path
        The file.
    mmap : bool
        Map it, so that only what is touched is read; or make a private copy of it.

    Attributes
    ----------
    path : str
    size : int
        Bytes, as they were when the file was opened.
    buffer : ndarray of uint8
        The whole file, ``[size]``, read-only.

    Notes
    -----
    Views of `buffer` own the mapping together with this object: closing drops this object's share,
    and the mapping goes with its last view. So no view ever dangles.

    If someone shrinks a mapped file, the operating system ends the process that touches a page
    which is gone (SIGBUS). :meth:`view` looks at the size first and raises instead, which catches a
    file that shrank before, not one that shrinks at that moment. With ``mmap=False`` there is no
    such risk. Replacing a file by a rename is always safe.

    Thread-safe: nothing changes after opening but by :meth:`close`.
    """

    __slots__ = ("__weakref__", "_buffer", "_map", "path", "size")

    def __init__(self, path: str | PathLike[str], *, mmap: bool = True) -> None:
        self.path = os.fspath(path)
        self._map: _Map | None = None
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer must not hang us
        try:
            fd = os.open(self.path, flags)
        except OSError as error:
            raise file_error(error, self.path) from None
        except ValueError as error:  # a NUL in the path
            raise FileMissingError(str(error), path=self.path) from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
                raise FileAccessError(f"this is {kind}", path=self.path, errno=None)
            self.size: int = status.st_size
            if self.size == 0:
                self._buffer: NDArray[np.uint8] | None = np.empty(0, np.uint8)
            elif mmap:
                self._map = _Map(fd, self.size, access=_ACCESS_READ)
                self._buffer = np.frombuffer(self._map, np.uint8)
            else:
                self._buffer = _read_all(fd, self.size, self.path)
            self._buffer.flags.writeable = False
        except OSError as error:
            if isinstance(error, FileAccessError):
                raise
            raise file_error(error, self.path) from None
        except MemoryError:
            raise OutOfMemoryError(
                f"no memory for a copy of {self.size} bytes", path=self.path, hint="use mmap=True"
            ) from None
        finally:
            os.close(fd)

    @classmethod
    def from_buffer(cls, data: object, path: str = "<memory>") -> MappedFile:
        """Wrap bytes that are in memory already, without a copy; the caller leaves them as is."""
        self = cls.__new__(cls)
        self.path = path
        self._map = None
        self._buffer = np.frombuffer(data, np.uint8) if len(memoryview(data)) else _NOTHING  # type: ignore[arg-type, call-overload]
        self._buffer = self._buffer.view()
        self._buffer.flags.writeable = False
        self.size = self._buffer.size
        return self

    @property
    def buffer(self) -> NDArray[np.uint8]:
        if self._buffer is None:
            raise StateError("the file is closed", path=self.path, hint="open it again")
        return self._buffer

    @property
    def closed(self) -> bool:
        return self._buffer is None

    @property
    def is_mapped(self) -> bool:
        """Whether memory that is let go is read from the file again when it is touched."""
        return self._map is not None

    def view(self, start: int, n_bytes: int) -> NDArray[np.uint8]:
        """Bytes ``[start, start + n_bytes)``, which the caller has checked to exist."""
        buffer = self.buffer
        if self._map is not None and self._map.size() < self.size:
            raise TruncatedFileError(
                f"the file shrank from {self.size} to {self._map.size()} bytes while it was open",
                path=self.path,
                hint="open it again, or use mmap=False for files that others write",
            )
        return buffer[start : start + n_bytes]

    def will_need(self, start: int, n_bytes: int) -> None:
        """Ask the operating system to read a range ahead. A hint: never fails."""
        self._advise("MADV_WILLNEED", start, n_bytes)

    def give_back(self, start: int, n_bytes: int) -> None:
        """Let go of the memory of whole pages in a range; they are read again when touched."""
        self._advise("MADV_DONTNEED", start, n_bytes)

    def _advise(self, name: str, start: int, n_bytes: int) -> None:
        advice = getattr(mmap, name, None)
        if self._map is None or advice is None:
            return
        first = -(-start // _PAGE) * _PAGE
        last = (start + n_bytes) // _PAGE * _PAGE
        if last > first:
            try:
                self._map.madvise(advice, first, last - first)
            except OSError:
                pass

    def close(self) -> None:
        """Drop this object's share of the mapping; a second call does nothing."""
        self._buffer = None
        held, self._map = self._map, None
        if held is not None:
            try:
                held.close()
            except BufferError:
                pass  # views are alive; the mapping goes with the last of them


_Map = mmap.mmap
_ACCESS_READ = mmap.ACCESS_READ
_NOTHING = np.empty(0, np.uint8)


def _read_all(fd: int, size: int, path: str) -> NDArray[np.uint8]:
    copy = np.empty(size, np.uint8)
    view = memoryview(copy)
    done = 0
    with io.FileIO(fd, "rb", closefd=False) as raw:
        while done < size:
            got = raw.readinto(view[done : done + (1 << 26)])
            if not got:
                break
            done += got
    if done < size:
        raise TruncatedFileError(
            f"the file shrank from {size} to {done} bytes while it was read",
            path=path,
            offset=done,
        )
    return copy

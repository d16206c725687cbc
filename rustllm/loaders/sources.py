"""Where bytes come from: files, standard input, file objects and URLs, decompressed on the way."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from rustllm._optional import need
from rustllm.errors import (
    ArgumentError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
)
from rustllm.loaders.compression import DecompressedStream, compression_of
from rustllm.loaders.mapped import file_error

__all__ = ["ARCHIVES", "list_files", "open_bytes", "source_name"]

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_PEEK = 16

# What holds other files: refused, since which of them is meant is not ours to guess.
ARCHIVES = {"zip": b"PK\x03\x04", "7z": b"7z\xbc\xaf\x27\x1c", "rar": b"Rar!\x1a\x07"}

_WALK = ("unpack it first", "unpack it first, or walk it: open_archive(), --walk-archives")


def source_name(source: Any) -> str:
    """What to call a source in messages."""
    if isinstance(source, (str, PathLike)):
        name = os.fspath(source)
        return "<stdin>" if name == "-" else name
    return str(getattr(source, "name", None) or "<stream>")


@contextmanager
def open_bytes(source: Any, *, guard: bool = True) -> Iterator[tuple[BinaryIO, str | None]]:
    """Open a source for reading decompressed bytes.

    Parameters
    ----------
    source : path, ``"-"``, URL or binary file object
        ``"-"`` is standard input; URLs (``s3://...``) need the ``fsspec`` extra. A file object is
        read from where it stands and stays open.
    guard : bool
        Refuse decompression bombs.

    Yields
    ------
    stream : binary file object
        Its ``read(n)`` gives up to n bytes, none only at the end.
    compression : str or None
        What was undone.

    Raises
    ------
    FileMissingError, FileAccessError
        The operating system refuses.
    MissingDependencyError
        A URL without fsspec; zstd or lz4 without their package.
    ArgumentError
        Not a source.
    """
    raw, is_ours = _open_raw(source)
    name = source_name(source)
    try:
        head = _peek(raw, name)
        compression = compression_of(head)
        stream: Any = _Joined(head, raw, name)
        if compression is not None:
            stream = DecompressedStream(stream, compression, name, guard=guard)
        yield stream, compression
    finally:
        if is_ours:
            raw.close()


def _open_raw(source: Any) -> tuple[BinaryIO, bool]:
    """The bytes as they are, and whether we are to close them."""
    if isinstance(source, (str, PathLike)):
        name = os.fspath(source)
        if name == "-":
            return sys.stdin.buffer, False
        if isinstance(name, str) and _URL.match(name):
            return _open_url(name), True
        return _open_file(name), True
    if isinstance(source, io.TextIOBase):
        buffer = getattr(source, "buffer", None)
        if buffer is None:
            raise ArgumentError("a file object of text cannot be read as bytes: open it as 'rb'")
        return buffer, False
    if hasattr(source, "read"):
        return source, False
    raise ArgumentError(f"{type(source).__name__} is not a path, URL or binary file object")


def _open_file(path: str) -> BinaryIO:
    try:
        raw = Path(path).open("rb", buffering=0)  # noqa: SIM115 (handed out)
    except OSError as error:
        if isinstance(error, IsADirectoryError):
            raise FileAccessError("this is a folder", path=path, errno=error.errno) from None
        raise file_error(error, path) from None
    except ValueError as error:
        raise FileMissingError(str(error), path=path) from None
    if stat.S_ISDIR(os.fstat(raw.fileno()).st_mode):  # Windows opens none; others may
        raw.close()
        raise FileAccessError("this is a folder", path=path)
    return raw


def _open_url(url: str) -> BinaryIO:
    fsspec = need("fsspec", "fsspec", "URLs need")
    try:
        opened: BinaryIO = fsspec.open(url, "rb").open()
    except OSError as error:
        raise file_error(error, url) from None
    except (ImportError, ValueError) as error:
        raise FileAccessError(str(error), path=url) from None
    return opened


def _read(raw: BinaryIO, n: int, name: str) -> bytes:
    try:
        data = raw.read(n)
    except OSError as error:
        raise file_error(error, name) from None
    if isinstance(data, str):
        raise ArgumentError("a file object of text cannot be read as bytes: open it as 'rb'")
    return data or b""


def _peek(raw: BinaryIO, name: str) -> bytes:
    head = b""
    while len(head) < _PEEK and (piece := _read(raw, _PEEK - len(head), name)):
        head += piece
    return head


class _Joined:
    """Bytes that were read ahead, then the rest of the stream."""

    __slots__ = ("_head", "_name", "raw")

    def __init__(self, head: bytes, raw: BinaryIO, name: str) -> None:
        self._head = head
        self.raw = raw
        self._name = name

    def read(self, n: int = -1) -> bytes:
        if n is None or n < 0:
            n = 1 << 16
        if self._head:
            data, self._head = self._head[:n], self._head[n:]
            return data
        return _read(self.raw, n, self._name)

    def close(self) -> None:
        """The owner of the raw stream closes it."""


def refuse_archive(head: bytes, name: str) -> None:
    """Raise for files that hold other files."""
    for kind, magic in ARCHIVES.items():
        if head.startswith(magic):
            raise FileFormatError(
                f"this is a {kind} archive, not a text", path=name, hint=_WALK[kind == "zip"]
            )
    if head[257:262] == b"ustar":
        raise FileFormatError("this is a tar archive, not a text", path=name, hint=_WALK[True])


def list_files(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]], pattern: str = "*"
) -> list[str]:
    """Files that paths, folders and glob patterns stand for.

    Parameters
    ----------
    paths : path or iterable of paths
        Files, folders (walked with their sub-folders), patterns such as ``data/**/*.txt``; URLs and
        ``"-"`` stand for themselves.
    pattern : str
        Names that count in folders.

    Returns
    -------
    list of str
        In the order of `paths`, each part sorted, no file twice. Hidden files and folders are left
        out of folders and patterns, and links to folders are not followed.

    Raises
    ------
    FileMissingError
        A path that does not exist, or a pattern without a match.

    Examples
    --------
    >>> import os, tempfile
    >>> from rustllm.loaders.sources import list_files
    >>> folder = tempfile.mkdtemp()
    >>> for name in ("b.txt", "a.txt", ".hidden.txt", "c.bin"):
    ...     open(os.path.join(folder, name), "w").close()
    >>> [os.path.basename(path) for path in list_files(folder, "*.txt")]
    ['a.txt', 'b.txt']
    """
    if isinstance(paths, (str, PathLike)):
        paths = [paths]
    found: dict[str, None] = {}
    for item in paths:
        name = os.fspath(item)
        if name == "-" or _URL.match(name):
            found[name] = None
            continue
        for path in _expand(name, pattern):
            found[path] = None
    return list(found)


def _expand(name: str, pattern: str) -> list[str]:
    path = Path(name)
    try:
        if path.is_dir():
            return sorted(_walk(path, pattern))
        if path.exists():
            return [name]
    except ValueError:  # a NUL
        raise FileMissingError("no such file", path=name) from None
    if any(c in name for c in "*?["):
        from glob import glob

        matches = [match for match in glob(name, recursive=True) if Path(match).is_file()]  # noqa: PTH207
        if matches:
            return sorted(matches)
        raise FileMissingError("no file matches this pattern", path=name)
    raise FileMissingError("no such file", path=name, hint="check the path")


def _walk(folder: Path, pattern: str) -> Iterator[str]:
    for top, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in files:
            if not name.startswith(".") and fnmatch(name, pattern):
                yield os.path.join(top, name)  # noqa: PTH118


def _raise(error: OSError) -> None:
    raise file_error(error, str(error.filename)) from None

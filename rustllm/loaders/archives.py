"""The files in a zip or tar archive, one after another, without unpacking it.

Only on request: which file of an archive is meant is not ours to guess. Nothing is written to a
disk, so that a member's name cannot lead anywhere; it is text to name the member by.
"""

from __future__ import annotations

import errno
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any

from rustllm.errors import (
    FileFormatError,
    MemoryLimitError,
    StateError,
    TruncatedFileError,
    UnsupportedError,
)
from rustllm.loaders.detect import detect_format
from rustllm.loaders.mapped import file_error
from rustllm.loaders.sources import open_bytes

__all__ = ["Archive", "ArchiveMember", "open_archive"]

# What is read of an archive before its members: the list of a zip, a long name of a tar.
_MOST_LIST = 1 << 26
_MOST_NAME = 1 << 20
# As for compressed streams: what shrinks more is made to fill a disk.
_BOMB_RATIO = 900
_BOMB_BYTES = 1 << 28
_ENTRY = struct.Struct("<4s16xLL3H8xL")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENCRYPTED = 1 | 1 << 6 | 1 << 13
_NAMED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def open_archive(path: str | PathLike[str], *, max_members: int = 1_000_000) -> Archive:
    """Open a zip or tar archive, compressed or not, to read its files.

    Parameters
    ----------
    path : path
        A zip, or a tar, which may be compressed by gzip, bzip2, xz, or zstd and lz4 by their
        extras.
    max_members : int
        More than so many are refused.

    Returns
    -------
    Archive
        An iterable of `ArchiveMember`, and a context manager.

    Raises
    ------
    FileMissingError, FileAccessError
        The archive cannot be read.
    UnsupportedError
        The file is none, or of another kind.
    FileFormatError, TruncatedFileError
        It is damaged, or made to fill a disk or memory; also while iterating.

    Examples
    --------
    >>> import os, tempfile, zipfile
    >>> from rustllm.loaders.archives import open_archive
    >>> path = os.path.join(tempfile.mkdtemp(), "texts.zip")
    >>> with zipfile.ZipFile(path, "w") as out:
    ...     out.writestr("a/one.txt", "one")
    ...     out.writestr("two.txt", "two")
    >>> with open_archive(path) as archive:
    ...     [(member.name, member.open().read()) for member in archive]
    [('a/one.txt', b'one'), ('two.txt', b'two')]
    """
    return Archive(path, max_members=max_members)


class ArchiveMember:
    """A file in an archive.

    Attributes
    ----------
    name : str
        As the archive spells it. Never to be taken for a path of this machine.
    size : int
        Bytes, unpacked, as the archive says.
    index : int
        Its place among the files of the archive.
    """

    __slots__ = ("_archive", "_entry", "index", "name", "size")

    def __init__(self, archive: Archive, entry: Any, name: str, size: int, index: int) -> None:
        self._archive = archive
        self._entry = entry
        self.name = name
        self.size = size
        self.index = index

    def open(self) -> io.RawIOBase:
        """Return a binary stream of the content; only until the next member is asked for.

        Raises
        ------
        UnsupportedError
            The member is encrypted, a link, a device, or packed in a way that is not known.
        FileFormatError, TruncatedFileError
            It is damaged; also while reading.
        StateError
            Another member has been asked for.
        """
        return self._archive._open(self)

    def __repr__(self) -> str:
        return f"ArchiveMember({self.name!r}, {self.size} bytes)"


class Archive:
    """The files of an archive in their order; see `open_archive`.

    Attributes
    ----------
    path : str
    kind : {"zip", "tar"}

    Notes
    -----
    Memory is bounded: the list of a zip (64 MiB at most), and nothing that grows for a tar. The
    order is the archive's own. Used by one thread at a time.
    """

    def __init__(self, path: str | PathLike[str], *, max_members: int = 1_000_000) -> None:
        self.path = fspath(path)
        found = detect_format(self.path)
        if found.kind not in ("zip", "tar") or (found.kind == "zip" and found.compression):
            raise UnsupportedError(
                f"a file of kind {found.kind} is no archive that can be walked",
                path=self.path,
                hint="zip and tar can, and tar compressed",
            )
        self.kind = found.kind
        self._max = max_members
        self._close = ExitStack()
        self._current: ArchiveMember | None = None
        self._stream: _Member | None = None
        self._zip: zipfile.ZipFile | None = None
        self._tar: tarfile.TarFile | None = None
        if self.kind == "zip":
            try:
                self._zip = self._close.enter_context(self._open_zip())
            except BaseException:
                self._close.close()
                raise

    # ---- zip ----

    def _open_zip(self) -> zipfile.ZipFile:
        try:
            file = self._close.enter_context(Path(self.path).open("rb"))  # noqa: SIM115
            size = file.seek(0, io.SEEK_END)
            _check_list(file, size, self._max, self.path)
            file.seek(0)
            return zipfile.ZipFile(file)
        except OSError as error:
            if error.errno == errno.EINVAL:  # a place before the beginning
                raise FileFormatError("the zip names no place in itself", path=self.path) from None
            raise file_error(error, self.path) from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"this zip cannot be read: {error}", path=self.path) from None

    def _zip_members(self) -> Iterator[ArchiveMember]:
        assert self._zip is not None
        index = 0
        for entry in self._zip.infolist():
            if not entry.filename.endswith("/"):  # is_dir() fails without a name
                yield ArchiveMember(self, entry, entry.filename, entry.file_size, index)
                index += 1

    def _open_entry(self, entry: zipfile.ZipInfo) -> IO[bytes]:
        assert self._zip is not None
        where = self._where(entry.filename)
        if entry.flag_bits & _ENCRYPTED:
            raise UnsupportedError("this member is encrypted", path=where, hint="unpack it first")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise UnsupportedError("this member is a link", path=where)
        if entry.file_size > _BOMB_BYTES and entry.file_size > _BOMB_RATIO * entry.compress_size:
            raise FileFormatError(
                f"{entry.compress_size} bytes that are to become {entry.file_size}: this looks "
                "like a decompression bomb",
                path=where,
            )
        try:
            return self._zip.open(entry)
        except NotImplementedError as error:
            raise UnsupportedError(str(error), path=where, hint="unpack it first") from None
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise FileFormatError("this member is nowhere in the zip", path=where) from None
            raise file_error(error, where) from None
        except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, struct.error) as error:
            raise FileFormatError(f"this member cannot be read: {error}", path=where) from None

    # ---- tar ----

    def _tar_members(self) -> Iterator[ArchiveMember]:
        source: Any = _Reads(self._close.enter_context(open_bytes(self.path))[0])
        tar = None
        try:
            tar = tarfile.open(  # noqa: SIM115 (closed below)
                fileobj=source, mode="r|", tarinfo=_Header, errors="surrogateescape"
            )
            self._tar = tar
            kept = tar.members  # type: ignore[attr-defined]
            index = 0
            while (entry := tar.next()) is not None:
                kept.clear()  # nothing is asked for again
                if entry.isdir():
                    continue
                if index >= self._max:
                    raise FileFormatError(
                        f"the archive has more than {self._max} members", path=self.path
                    )
                yield ArchiveMember(self, entry, entry.name, entry.size, index)
                index += 1
            if not getattr(tar, "_has_end", False):
                raise TruncatedFileError(
                    "the mark at the end of the tar is missing",
                    path=self.path,
                    offset=tar.offset,
                    hint="the file is incomplete: fetch it again",
                )
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            if isinstance(error, FileFormatError | UnsupportedError):
                raise
            ends = str(error) in ("unexpected end of data", "empty header")
            kind = TruncatedFileError if ends else FileFormatError
            raise kind(f"this tar cannot be read: {error}", path=self.path) from None
        finally:
            self._tar = None
            if tar is not None:
                tar.close()

    def _extract(self, entry: tarfile.TarInfo) -> IO[bytes]:
        where = self._where(entry.name)
        if entry.issym() or entry.islnk():
            raise UnsupportedError("this member is a link", path=where)
        if not entry.isreg():
            raise UnsupportedError("this member is no file", path=where)
        if entry.issparse():
            raise UnsupportedError("this member is a sparse file", path=where)
        if self._tar is None:
            raise StateError("the archive is closed", path=self.path)
        file = self._tar.extractfile(entry)
        assert file is not None
        return file

    # ---- both ----

    def _where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def __iter__(self) -> Iterator[ArchiveMember]:
        members = self._zip_members() if self._zip is not None else self._tar_members()
        for member in members:
            self._current = member
            self._stream = None
            yield member
        self._current = None

    def _open(self, member: ArchiveMember) -> io.RawIOBase:
        if member is not self._current or self._stream is not None:
            raise StateError(
                "only the member that was asked for last can be opened, and once", path=self.path
            )
        raw = (
            self._open_entry(member._entry)
            if self._zip is not None
            else self._extract(member._entry)
        )
        self._stream = _Member(self, raw, member)
        return self._stream

    def close(self) -> None:
        """Close the archive; a second call does nothing."""
        self._current = None
        self._close.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class _Member(io.RawIOBase):
    """The content of a member, as long as it is the one that was asked for last."""

    def __init__(self, archive: Archive, raw: IO[bytes], member: ArchiveMember) -> None:
        super().__init__()
        self._archive = archive
        self._raw = raw
        self._member = member
        self._given = 0
        self.name = archive._where(member.name)

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def _read(self, n: int) -> bytes:
        if self._archive._stream is not self:
            raise StateError("another member has been asked for", path=self.name)
        try:
            data = self._raw.read(n)
        except OSError as error:
            if error.errno is None:  # bz2's word for damage
                raise FileFormatError(f"this member is damaged: {error}", path=self.name) from None
            raise file_error(error, self.name) from None
        except (EOFError, tarfile.TarError) as error:
            raise self._short(str(error)) from None
        except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(
                f"this member is damaged: {error}", path=self.name, offset=self._given
            ) from None
        except Exception as error:  # lzma and bz2 have their own classes
            if type(error).__module__ not in ("_lzma", "lzma", "bz2", "_bz2"):
                raise
            raise FileFormatError(f"this member is damaged: {error}", path=self.name) from None
        self._given += len(data)
        if not data and n and self._given < self._member.size:
            raise self._short(f"{self._given} of {self._member.size} bytes")
        return data

    def _short(self, what: str) -> TruncatedFileError:
        return TruncatedFileError(
            f"the member ends in the middle: {what}", path=self.name, offset=self._given
        )


class _Reads:
    """A stream whose `read` gives all that it is asked for, as tarfile wants it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, n: int) -> bytes:
        pieces = []
        while n > 0 and (piece := self._stream.read(n)):
            pieces.append(piece)
            n -= len(piece)
        return b"".join(pieces)


class _Header(tarfile.TarInfo):
    """A tar's header; long names are bounded, and the end of the archive is noted."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            archive._has_end = True  # type: ignore[attr-defined]
            raise

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.size < 0:
            raise FileFormatError("a member of negative size", path=None, offset=archive.offset)
        if self.type in (*_NAMED, *_EXTENDED) and self.size > _MOST_NAME:
            raise FileFormatError(f"a name of {self.size} bytes in the tar", offset=archive.offset)
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise UnsupportedError("the tar has a sparse file", offset=archive.offset)
        return super()._proc_member(archive)  # type: ignore[misc]


def _check_list(file: IO[bytes], size: int, most: int, path: str) -> None:
    """Check a zip's list of members before anything makes objects of it."""
    at, n = _find_list(file, size, path)
    if n > _MOST_LIST:
        raise MemoryLimitError(f"a list of members of {n} bytes", path=path, offset=at)
    file.seek(at)
    data = file.read(n)
    where = count = total = packed = 0
    spans = []
    while where + _ENTRY.size <= len(data) and data.startswith(b"PK\x01\x02", where):
        _, small, large, name, extra, comment, header = _ENTRY.unpack_from(data, where)
        where += _ENTRY.size + name + extra + comment
        count += 1
        if count > most:
            raise FileFormatError(f"the archive has more than {most} members", path=path)
        if 0xFFFFFFFF not in (small, large, header):  # else a zip64 field has it
            spans.append((header, header + small))
            total += large
            packed += small
    spans.sort()
    for (_, stop), (start, _) in zip(spans, spans[1:], strict=False):
        if start < stop:
            raise FileFormatError(
                "members of the zip overlap: it is made to fill a disk", path=path, offset=start
            )
    if total > _BOMB_BYTES and total > _BOMB_RATIO * max(packed, 1):
        raise FileFormatError(
            f"{packed} bytes that are to become {total}: this looks like a decompression bomb",
            path=path,
        )


def _find_list(file: IO[bytes], size: int, path: str) -> tuple[int, int]:
    """Where the list of members of a zip is, and its bytes."""
    near = max(size - _END.size - 0xFFFF, 0)
    file.seek(near)
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + _END.size > len(tail):
        raise TruncatedFileError(
            "the end of the zip is missing",
            path=path,
            offset=size,
            hint="the file is incomplete: fetch it again",
        )
    n = _END.unpack_from(tail, end)[5]
    stop = near + end
    if n == 0xFFFFFFFF:
        found = tail.rfind(b"PK\x06\x06", 0, end)
        if found < 0 or found + _END64.size > len(tail):
            raise FileFormatError("the end of the zip is damaged", path=path, offset=stop)
        n = _END64.unpack_from(tail, found)[8]
        stop = near + found
    if n > stop:
        raise FileFormatError("the list of members is longer than the zip", path=path, offset=stop)
    return stop - n, n

"""Text of any size and encoding, whole or as a stream that can be resumed.

Offsets count bytes of the decompressed content from its beginning, byte order mark included, so
that for a plain file they are file positions.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from operator import length_hint
from typing import Any, Literal

from rustllm._core.from_utf8 import decode_lines, decode_utf8, read_utf8
from rustllm.errors import ArgumentError, FileFormatError, MemoryLimitError, TruncatedFileError
from rustllm.loaders.detect import _BOMS, FileFormat, detect_encoding
from rustllm.loaders.mapped import file_error
from rustllm.loaders.sources import open_bytes, refuse_archive, source_name

__all__ = ["TextStream", "read_text", "stream_text"]

Unit = Literal["chunk", "line", "paragraph", "document"]

_BLOCK = 1 << 17
_HEAD = 1 << 16
_MAX_UNIT = 1 << 26
_LIMIT = 1 << 31
_WIDTHS = {"utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}
_NOT_UNICODE = "pass encoding=, or fallback='latin-1' to read any bytes"


def read_text(
    source: Any,
    *,
    encoding: str | None = None,
    errors: str = "strict",
    fallback: str | None = None,
    limit: int | None = _LIMIT,
) -> str:
    """Read a text whole.

    Parameters
    ----------
    source : path, ``"-"``, URL or binary file object
        gzip, bzip2 and xz are undone on the way, zstd and lz4 with their extra.
    encoding : str, optional
        By default told by the byte order mark, else by the content: UTF-8, UTF-16 or UTF-32.
    errors : str
        What to do with bytes that are not text: ``"strict"``, ``"replace"``...
    fallback : str, optional
        Encoding of content that is not Unicode, for instance ``"latin-1"``. Never guessed.
    limit : int, optional
        Most bytes to read, decompressed.

    Returns
    -------
    str
        Without the byte order mark; line ends as they are.

    Raises
    ------
    FileMissingError, FileAccessError, MissingDependencyError
        The source cannot be read.
    FileFormatError, TruncatedFileError
        Bytes that are not text, with their offset; damaged compression; an archive.
    MemoryLimitError
        More than `limit` bytes.

    Notes
    -----
    O(n) time and memory.

    Examples
    --------
    >>> import io
    >>> from rustllm.loaders.text import read_text
    >>> read_text(io.BytesIO("grüße".encode("utf-16")))
    'grüße'
    """
    with TextStream(source, encoding=encoding, errors=errors, fallback=fallback) as stream:
        return stream.read_rest(limit)


def stream_text(
    source: Any,
    chunk: int = 1 << 20,
    *,
    unit: Unit = "chunk",
    separator: str | None = None,
    encoding: str | None = None,
    errors: str = "strict",
    fallback: str | None = None,
    start: int = 0,
    max_unit: int = _MAX_UNIT,
) -> TextStream:
    """Read a text piece by piece, in bounded memory.

    Parameters
    ----------
    source : path, ``"-"``, URL or binary file object
        As for :func:`read_text`.
    chunk : int
        Bytes of a piece, about, for the unit ``"chunk"``.
    unit : {"chunk", "line", "paragraph", "document"}
        Pieces: of about `chunk` bytes, ending at a line end where there is one, which together are
        the text; lines without their ends; paragraphs, between empty lines; documents, between
        `separator`.
    separator : str, optional
        Between documents; without it the whole text is one.
    encoding, errors, fallback
        As for :func:`read_text`.
    start : int
        Offset to begin at: 0, or an earlier stream's :attr:`TextStream.offset`.
    max_unit : int
        Bytes of a line, paragraph or document that are too many to hold.

    Returns
    -------
    TextStream
        An iterator of str, and a context manager.

    Raises
    ------
    ArgumentError
        An argument out of its range, or a `start` past the end or within a character.

    As for :func:`read_text`, also while iterating.

    Examples
    --------
    >>> import io
    >>> from rustllm.loaders.text import stream_text
    >>> stream = stream_text(io.BytesIO(b"one\\ntwo\\nthree"), unit="line")
    >>> next(stream), stream.offset
    ('one', 4)
    >>> list(stream_text(io.BytesIO(b"one\\ntwo\\nthree"), unit="line", start=4))
    ['two', 'three']
    """
    return TextStream(
        source,
        chunk,
        unit=unit,
        separator=separator,
        encoding=encoding,
        errors=errors,
        fallback=fallback,
        start=start,
        max_unit=max_unit,
    )


class TextStream(Iterator[str]):
    """Pieces of a text, in order; see :func:`stream_text` for the parameters.

    Attributes
    ----------
    path : str
        Name of the source.
    format : FileFormat
        Kind ``"text"``, with compression, encoding and mark.
    offset : int
        Where the next piece begins: everything before it has been given out. A stream that is
        started there gives the rest.

    Notes
    -----
    Memory is bounded by `chunk` and `max_unit`. Used by one thread at a time. A plain file that is
    rewritten or cut while it is read raises at its end.
    """

    def __init__(
        self,
        source: Any,
        chunk: int = 1 << 20,
        *,
        unit: Unit = "chunk",
        separator: str | None = None,
        encoding: str | None = None,
        errors: str = "strict",
        fallback: str | None = None,
        start: int = 0,
        max_unit: int = _MAX_UNIT,
    ) -> None:
        pieces = {
            "chunk": self._chunks,
            "line": self._lines,
            "paragraph": self._paragraphs,
            "document": self._documents,
        }
        if unit not in pieces:
            raise ArgumentError(f"unit {unit!r}; one of {', '.join(pieces)}")
        if chunk < 1 or max_unit < 1 or start < 0:
            raise ArgumentError("chunk and max_unit are at least 1, start at least 0")
        if separator == "":
            raise ArgumentError("an empty separator")
        for name in (encoding, fallback):
            _check_encoding(name)
        self.path = source_name(source)
        self._errors = errors
        self._chunk = max(chunk, 8)  # at least a character
        self._max_unit = max_unit
        self._separator = separator
        self._block = b""  # begins with the lines that are being given out, as bytes
        self._block_end = 0  # of these lines
        self._lines_left: Iterator[str] = iter(())
        self._n_lines = 0  # of the block
        self._counted = (0, 0)  # of which the offset is known: lines, bytes
        self._close = ExitStack()
        try:
            self._stream, compression = self._close.enter_context(open_bytes(source))
            self._watch = _Watch.of(source, self._stream) if compression is None else None
            self._pending = self._read(_HEAD)
            refuse_archive(self._pending, self.path)
            name, bom = self._choose_encoding(encoding, fallback)
            self.format = FileFormat("text", compression, name, bom)
            self._width = _WIDTHS.get(name, 1)
            self._base = 0  # offset of the first byte of _block + _pending
            self._skip_to(max(start, bom))
        except BaseException:
            self._close.close()
            raise
        self._pieces: Generator[str] = pieces[unit]()

    def _choose_encoding(self, encoding: str | None, fallback: str | None) -> tuple[str, int]:
        found, bom = detect_encoding(self._pending, len(self._pending) < _HEAD)
        if encoding is not None:
            name = codecs.lookup(encoding).name
            if name in ("utf-16", "utf-32"):  # the mark tells the order of bytes, or it is little
                name = found if found and found.startswith(name) else f"{name}-le"
            if name == "utf-8-sig":
                name = "utf-8"
            # By the encoding that was asked for: FF FE 00 00 marks utf-32-le, or utf-16-le and NUL.
            mark = next((m for m, its in _BOMS if its == name), b"")
            return name, len(mark) if mark and self._pending.startswith(mark) else 0
        if found is not None:
            return found, bom
        if fallback is not None:
            return codecs.lookup(fallback).name, 0
        if self._errors != "strict":
            return "utf-8", 0
        try:
            codecs.getincrementaldecoder("utf-8")().decode(self._pending)
            at = self._pending.find(0)
        except UnicodeDecodeError as error:
            at = error.start
        raise FileFormatError(
            "this is not Unicode text", path=self.path, offset=max(at, 0), hint=_NOT_UNICODE
        )

    @property
    def offset(self) -> int:
        self._counted = self._count(self._n_lines - length_hint(self._lines_left))
        return self._base + self._counted[1]

    @property
    def line_start(self) -> int:
        """Where the line began that was given out last; of the unit ``"line"``."""
        return self._base + self._count(self._n_lines - length_hint(self._lines_left) - 1)[1]

    def _count(self, given: int) -> tuple[int, int]:
        """`given` lines of the block, and the bytes they take."""
        lines, at = self._counted if self._counted[0] <= given else (0, 0)
        newline = b"\n" if self._width == 1 else self._encode("\n")
        while lines < given:
            end = _find(self._block, newline, at, self._width)
            at = self._block_end if end < 0 else end + len(newline)
            lines += 1
        return lines, at

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __next__(self) -> str:
        return next(self._pieces)

    def read_rest(self, limit: int | None = None) -> str:
        """All that has not been given out, in one string; nothing is left then.

        Parameters
        ----------
        limit : int, optional
            The offset that the text must not go beyond.

        Raises
        ------
        MemoryLimitError
            The text is longer.

        Notes
        -----
        Read whole and decoded at once, which is sooner than the joined pieces.
        """
        self._base = self.offset
        self._pieces.close()
        held = self._block[self._counted[1] : self._block_end] + self._pending
        self._pending = b""
        self._forget_block()
        most = None if limit is None else limit - self._base
        text = self._read_plain_file(len(held), most)
        if text is not None:
            return text
        data = self._read_all(held, most)
        if most is not None and len(data) > most:
            raise MemoryLimitError(
                f"the text is longer than {limit} bytes",
                path=self.path,
                hint="use stream_text, or raise limit",
            )
        self._check_unchanged()
        text = self._decode(None, data, True)
        self._base += len(data)
        return text

    def close(self) -> None:
        """Close what was opened here; a second call does nothing."""
        self._pieces.close()
        self._close.close()

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # ---- pieces ----

    def _chunks(self) -> Generator[str]:
        decoder = codecs.getincrementaldecoder(self.format.encoding or "utf-8")(self._errors)
        newline = self._encode("\n")
        while True:
            data = self._pending
            while len(data) < self._chunk and (more := self._read(self._chunk - len(data))):
                data += more
            data, self._pending = data[: self._chunk], data[self._chunk :]
            if not data:
                self._check_unchanged()
                return
            is_last = not self._pending and not self._fill()
            if not is_last:
                end = _rfind(data, newline, 0, self._width)
                if end > len(data) // 2:
                    end += len(newline)
                    data, self._pending = data[:end], data[end:] + self._pending
            text = self._decode(decoder, data, is_last)
            held = len(decoder.getstate()[0])
            if held:  # the piece ends within a character: it belongs to the next
                decoder.reset()
                self._pending = data[len(data) - held :] + self._pending
            self._base += len(data) - held
            if text:
                yield text

    def _lines(self) -> Generator[str]:
        for lines in self._line_blocks():
            self._n_lines = len(lines)
            self._lines_left = iter(lines)  # it knows how many have been given out
            yield from self._lines_left

    def _line_blocks(self) -> Generator[list[str]]:
        """Lines of about a block at a time, decoded together."""
        newline = self._encode("\n")
        while True:
            self._base += self._block_end
            self._forget_block()
            data, end = self._to_a_line_end(newline)
            is_last = end == 0
            self._block, self._block_end = data, end or len(data)
            self._pending = data[self._block_end :]
            if is_last and not data:
                self._check_unchanged()
                return
            lines = self._decode_lines(data, self._block_end)
            if is_last:
                lines = [line.removesuffix("\r") for line in lines]
            if self._block_end > self._max_unit and any(map(self._is_too_long, lines)):
                raise self._too_long("line")
            yield lines

    def _to_a_line_end(self, newline: bytes) -> tuple[bytes, int]:
        """What is pending and as much more as a line end needs; where the last line ends, or 0."""
        data = self._pending
        if (end := _rfind(data, newline, 0, self._width)) < 0:
            data += self._read(_BLOCK)
            end = _rfind(data, newline, 0, self._width)
        if end < 0 and data:
            held = bytearray(data)
            looked = 0
            while (end := _rfind(held, newline, looked, self._width)) < 0:
                if len(held) > self._max_unit:
                    raise self._too_long("line")
                looked = len(held) - len(held) % self._width
                more = self._read(_BLOCK)
                if not more:
                    break
                held += more
            data = bytes(held)
        return data, 0 if end < 0 else end + len(newline)

    def _forget_block(self) -> None:
        self._block, self._block_end, self._counted = b"", 0, (0, 0)
        self._n_lines, self._lines_left = 0, iter(())

    def _paragraphs(self) -> Generator[str]:
        held: list[str] = []
        size = 0
        for line in self._lines():
            if line.strip():
                held.append(line)
                size += len(line) + 1
                if size > self._max_unit:
                    raise self._too_long("paragraph")
            elif held:
                yield "\n".join(held)
                held, size = [], 0
        if held:
            yield "\n".join(held)

    def _documents(self) -> Generator[str]:
        separator = None if self._separator is None else self._encode(self._separator)
        data = bytearray(self._pending)
        self._pending = b""
        looked = 0
        while True:
            end = -1 if separator is None else _find(data, separator, looked, self._width)
            if end > self._max_unit:
                raise self._too_long("document")
            if end >= 0:
                assert separator is not None
                text = self._decode(None, bytes(data[:end]), True)
                del data[: end + len(separator)]
                self._base += end + len(separator)
                looked = 0
                yield text
                continue
            if len(data) > self._max_unit:
                raise self._too_long("document")
            if separator is not None:
                looked = max(len(data) - len(separator) + 1, 0)
                looked -= looked % self._width
            more = self._read(_BLOCK)
            if not more:
                break
            data += more
        self._check_unchanged()
        if data:
            text = self._decode(None, bytes(data), True)
            self._base += len(data)
            yield text

    # ---- bytes ----

    def _encode(self, text: str) -> bytes:
        return text.encode(self.format.encoding or "utf-8")

    def _read(self, n: int) -> bytes:
        """`n` bytes, fewer only at the end."""
        data = self._stream.read(n)
        if len(data) < n and data:
            pieces = [data]
            size = len(data)
            while size < n and (more := self._stream.read(n - size)):
                pieces.append(more)
                size += len(more)
            data = b"".join(pieces)
        return data

    def _read_all(self, held: bytes, most: int | None) -> bytes:
        """`held` and what follows it; more than `most` bytes if there are more."""
        pieces, size = [held], len(held)
        while (most is None or size <= most) and (more := self._read(_BLOCK)):
            pieces.append(more)
            size += len(more)
        return b"".join(pieces)

    def _read_plain_file(self, n_held: int, most: int | None) -> str | None:
        """The rest of a file of UTF-8, read straight into the string; None if that cannot be."""
        if self._watch is None or self.format.encoding != "utf-8":
            return None
        n = self._watch.size - self._base
        if n <= 0 or (most is not None and n > most):
            return None
        file: Any = self._stream.raw  # type: ignore[attr-defined]
        try:
            file.seek(self._base)
            text = read_utf8(file, n, self._errors)
            if text is None or file.read(1):  # it was cut, or it grows
                file.seek(self._base + n_held)
                return None
        except OSError as error:
            raise file_error(error, self.path) from None
        except UnicodeDecodeError as error:
            raise self._not_text(error) from None
        self._check_unchanged()
        self._base += n
        return text

    def _fill(self) -> bool:
        """Whether there is more; some of it is then pending."""
        self._pending += self._read(_BLOCK)
        return bool(self._pending)

    def _skip_to(self, start: int) -> None:
        while start > len(self._pending):
            start -= len(self._pending)
            self._base += len(self._pending)
            self._pending = self._read(min(start, _BLOCK)) + b""
            if not self._pending:
                raise ArgumentError(
                    f"start is {start} bytes past the end", path=self.path, hint="did it change?"
                )
        self._pending = self._pending[start:]
        self._base += start
        if (self._base - self.format.bom) % self._width or (
            self.format.encoding == "utf-8"
            and self._pending[:1]
            and 0x80 <= self._pending[0] < 0xC0
        ):
            raise ArgumentError(f"start {self._base} is within a character", path=self.path)

    def _decode(self, decoder: Any, data: bytes, is_last: bool) -> str:
        try:
            if decoder is not None:
                text: str = decoder.decode(data, is_last)
                return text
            if self.format.encoding == "utf-8":
                return decode_utf8(data, self._errors)
            return data.decode(self.format.encoding or "utf-8", self._errors)
        except UnicodeDecodeError as error:
            raise self._not_text(error) from None

    def _decode_lines(self, data: bytes, n: int) -> list[str]:
        """The lines of `n` bytes, without their ends; an empty one after the last end is none."""
        if self.format.encoding == "utf-8" and self._errors == "strict":
            try:
                return decode_lines(data, n)
            except UnicodeDecodeError as error:
                raise self._not_text(error) from None
        lines = self._decode(None, data[:n], True).split("\n")
        ended = [line.removesuffix("\r") for line in lines[:-1]]
        return [*ended, lines[-1]] if lines[-1] else ended

    def _not_text(self, error: UnicodeDecodeError) -> FileFormatError:
        return FileFormatError(
            f"bytes that are not {self.format.encoding}: {error.reason}",
            path=self.path,
            offset=self._base + error.start,
            hint=_NOT_UNICODE,
        )

    def _is_too_long(self, line: str) -> bool:
        most = self._max_unit
        return 4 * len(line) > most and len(line.encode("utf-8", "surrogatepass")) > most

    def _too_long(self, what: str) -> FileFormatError:
        return FileFormatError(
            f"a {what} of more than {self._max_unit} bytes",
            path=self.path,
            offset=self.offset,
            hint="raise max_unit, or read in chunks",
        )

    def _check_unchanged(self) -> None:
        if self._watch is not None:
            self._watch.check(self.path)


class _Watch:
    """Notices that a plain file was rewritten or cut between opening and its end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = os.fstat(fd)

    @classmethod
    def of(cls, source: Any, stream: Any) -> _Watch | None:
        raw = getattr(stream, "raw", None)
        if not isinstance(source, (str, os.PathLike)) or raw is None:
            return None
        try:
            watch = cls(raw.fileno())
        except (OSError, AttributeError, ValueError):
            return None
        # A pipe and a device change as they are read.
        return watch if stat.S_ISREG(watch._before.st_mode) else None

    @property
    def size(self) -> int:
        return self._before.st_size

    def check(self, path: str) -> None:
        now, before = os.fstat(self._fd), self._before
        if now.st_size < before.st_size:
            raise TruncatedFileError(
                f"the file shrank from {before.st_size} to {now.st_size} bytes while it was read",
                path=path,
                offset=now.st_size,
            )
        if now.st_size == before.st_size and now.st_mtime_ns != before.st_mtime_ns:
            raise FileFormatError("the file was rewritten while it was read", path=path)


def _check_encoding(name: str | None) -> None:
    if name is not None:
        try:
            codecs.lookup(name)
        except LookupError as error:
            raise ArgumentError(str(error)) from None


def _find(data: bytes | bytearray, what: bytes, start: int, width: int) -> int:
    """First place of `what` that is a multiple of `width`."""
    at = data.find(what, start)
    while at >= 0 and at % width:
        at = data.find(what, at + 1)
    return at


def _rfind(data: bytes | bytearray, what: bytes, start: int, width: int) -> int:
    """Last place of `what`, from `start` on, that is a multiple of `width`."""
    at = data.rfind(what, start)
    while at >= 0 and at % width:
        at = data.rfind(what, start, at + len(what) - 1)
    return at

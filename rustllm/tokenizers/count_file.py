"""The file format of pretoken counts: versioned, checksummed, sorted, written whole or not at all.

``RLCOUNTS``, the length of a JSON header in 8 bytes, the header, the number of pretokens in 8
bytes, each pretoken as length, bytes and count (numbers as little-endian base 128), and 16 bytes of
BLAKE2b over everything before. The same counts always give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rustllm.errors import FileAccessError, FileFormatError, FileMissingError, TruncatedFileError
from rustllm.serialize.atomic import atomic_write

__all__ = ["CountFile", "read_count_file", "write_count_file"]

_MAGIC = b"RLCOUNTS"
_VERSION = 1
_DIGEST_BYTES = 16
_ITEMS_AT_ONCE = 4096


@dataclass
class CountFile:
    """What a count file holds."""

    pattern: str | None
    sources: list[tuple[str, int]]
    items: list[tuple[bytes, int]]


def write_count_file(path: str | os.PathLike[str], content: CountFile) -> None:
    """Write `content`, its items sorted by their bytes, to `path`.

    Raises
    ------
    FileMissingError, FileAccessError
        The file cannot be written; what was there before is still there.
    """
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    with atomic_write(path) as file:
        for part in _parts(content):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())


def _parts(content: CountFile) -> Iterator[bytes]:
    header = json.dumps(
        {"version": _VERSION, "pattern": content.pattern, "sources": sorted(content.sources)}
    ).encode()
    yield _MAGIC
    yield len(header).to_bytes(8, "little")
    yield header
    yield len(content.items).to_bytes(8, "little")
    for i in range(0, len(content.items), _ITEMS_AT_ONCE):
        some = content.items[i : i + _ITEMS_AT_ONCE]
        yield b"".join([_varint(len(word)) + word + _varint(count) for word, count in some])


def read_count_file(path: str | os.PathLike[str]) -> CountFile:
    """Read a count file.

    Raises
    ------
    FileMissingError, FileAccessError
        The file cannot be read.
    FileFormatError
        It is no count file, of another version, cut short or damaged.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise FileMissingError("no such file", path=path) from error
    except OSError as error:
        raise FileAccessError(str(error), path=path, errno=error.errno) from error
    if data[: len(_MAGIC)] != _MAGIC:
        raise FileFormatError("this is not a file of pretoken counts", path=path, offset=0)
    at = len(_MAGIC)
    end = len(data) - _DIGEST_BYTES
    if end < at + 16:
        raise TruncatedFileError("the count file is cut short", path=path, offset=len(data))
    if hashlib.blake2b(data[:end], digest_size=_DIGEST_BYTES).digest() != data[end:]:
        raise FileFormatError(
            "the count file is cut short or damaged: its checksum does not match", path=path
        )
    size = int.from_bytes(data[at : at + 8], "little")
    try:
        header = json.loads(data[at + 8 : at + 8 + size])
        version, pattern = header["version"], header["pattern"]
        sources = [(str(name), int(n)) for name, n in header["sources"]]
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"bad header: {error}", path=path, offset=at) from error
    if version != _VERSION:
        raise FileFormatError(f"count files of version {version!r} are not known", path=path)
    if not (pattern is None or isinstance(pattern, str)):
        raise FileFormatError("the pattern is no text", path=path, key="pattern")
    at += 8 + size
    n_items = int.from_bytes(data[at : at + 8], "little")
    at += 8
    items = []
    try:
        for _ in range(n_items):
            length, at = _read_varint(data, at)
            word = data[at : at + length]
            count, at = _read_varint(data, at + length)
            if not word or not 0 < count < 1 << 62 or at > end:
                raise FileFormatError("a bad pretoken or count", path=path, offset=at)
            items.append((word, count))
    except IndexError:
        raise TruncatedFileError("a count runs past the end", path=path, offset=end) from None
    if at != end:
        raise FileFormatError("bytes behind the last count", path=path, offset=at)
    return CountFile(pattern, sources, items)


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError

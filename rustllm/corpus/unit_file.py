"""The file of a unit's result: written in one pass in bounded memory, checked when it is read.

Ids, lengths (``uint32``) and failures (lines of JSON) stand one after another; then JSON that says
what they are, with the CRC-32 of each; then 16 bytes: the CRC-32 of that JSON, its length, a mark.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np

from rustllm.errors import (
    FileFormatError,
    HashMismatchError,
    RustLLMError,
    TruncatedFileError,
    convert_error,
)
from rustllm.serialize import atomic_write

__all__ = [
    "PARTS",
    "UnitFile",
    "UnitParts",
    "UnitWriter",
    "copy_checked",
    "read_whole",
    "unit_path",
    "write_unit",
]

PARTS = ("ids", "lengths", "failures")
_MARK = b"RLLMUNIT"
_TAIL = struct.Struct("<II8s")
_MOST = 1 << 20
_BLOCK = 1 << 20
_SPOOL = 1 << 20


def unit_path(folder: Path, index: int) -> Path:
    """Return where the result of a unit lies."""
    return folder / "units" / f"{index:08d}.unit"


class UnitParts:
    """What is known of a stretch of documents: takes results as they come, and counts them.

    Attributes
    ----------
    size, crc : dict of int
        Bytes of each part, and their checksum where a subclass computes one.
    count : dict of int
    """

    def __init__(self, dtype: str) -> None:
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self.crc = dict.fromkeys(PARTS, 0)
        self.size = dict.fromkeys(PARTS, 0)
        self.count = {"documents": 0, "tokens": 0, "text_bytes": 0, "failures": 0}

    def add(self, ids: Any, lengths: Any, n_bytes: int) -> None:
        """Add whole documents."""
        self.add_ids(ids)
        self.add_lengths(lengths, n_bytes)

    def add_ids(self, ids: Any) -> None:
        """Add ids, of a document whose length is added later."""
        self._put("ids", np.ascontiguousarray(ids).astype(self._dtype, copy=False))
        self.count["tokens"] += len(ids)

    def add_lengths(self, lengths: Any, n_bytes: int) -> None:
        """Add the lengths of documents whose ids have been added."""
        if len(lengths) and int(np.max(lengths)) > 0xFFFFFFFF:
            raise FileFormatError("a document has more than 2**32 - 1 ids", hint='kind="lines"')
        self._put("lengths", np.asarray(lengths).astype("<u4"))
        self.count["documents"] += len(lengths)
        self.count["text_bytes"] += n_bytes

    def fail(self, failure: dict[str, Any], keep: bool) -> None:
        """Count a document that could not be read, and note why if that is to be kept."""
        self.count["failures"] += 1
        if keep:
            line = json.dumps(failure, sort_keys=True).encode() + b"\n"
            self._put("failures", np.frombuffer(line, np.uint8))

    def mark(self) -> tuple[int, int, int]:
        """Return where ids end now, for `rewind`."""
        return self.size["ids"], self.crc["ids"], self.count["tokens"]

    def rewind(self, mark: tuple[int, int, int]) -> None:
        """Take back ids that were added after `mark`."""
        self.size["ids"], self.crc["ids"], self.count["tokens"] = mark
        self._cut_back("ids", mark[0])

    def _put(self, name: str, array: Any) -> None:
        if len(array):
            data = memoryview(array).cast("B")
            self.size[name] += len(data)
            self._write(name, data)

    def _write(self, name: str, data: Any) -> None:
        raise NotImplementedError

    def _cut_back(self, name: str, size: int) -> None:
        raise NotImplementedError


class UnitWriter(UnitParts):
    """Takes the results of a unit as they come, into files; see `write_unit`."""

    def __init__(self, ids: Any, others: dict[str, Any], dtype: str) -> None:
        super().__init__(dtype)
        self._files: dict[str, Any] = {"ids": ids, **others}

    def absorb(self, parts: UnitParts, blocks: Callable[[str], Iterator[Any]]) -> None:
        """Add what others have collected; `blocks` gives the bytes of a part."""
        for name in PARTS:
            for block in blocks(name):
                self.size[name] += len(block)
                self._write(name, block)
        for name, n in parts.count.items():
            self.count[name] += n

    def _write(self, name: str, data: Any) -> None:
        self.crc[name] = zlib.crc32(data, self.crc[name])
        self._files[name].write(data)

    def _cut_back(self, name: str, size: int) -> None:
        self._files[name].seek(size)
        self._files[name].truncate()

    def facts(self, unit: int) -> dict[str, Any]:
        """Return what the journal says of the unit."""
        return {"unit": unit, "crc": self.crc, "size": self.size, **self.count}

    def finish(self, plan: str, unit: int) -> dict[str, Any]:
        """Write the rest, and return what the journal says of the unit."""
        out = self._files["ids"]
        for name in PARTS[1:]:
            self._files[name].seek(0)
            while block := self._files[name].read(_BLOCK):
                out.write(block)
        facts = self.facts(unit)
        text = json.dumps({**facts, "plan": plan}, sort_keys=True).encode()
        out.write(text + _TAIL.pack(zlib.crc32(text), len(text), _MARK))
        return facts


@contextmanager
def write_unit(path: Path, dtype: str) -> Iterator[UnitWriter]:
    """Write a unit's file, which appears whole or not at all.

    Notes
    -----
    Lengths and failures wait for the ids to end: in memory up to 1 MiB each, then on the disk.
    """
    with (
        atomic_write(path) as ids,
        SpooledTemporaryFile(_SPOOL, dir=os.fspath(path.parent)) as lengths,
        SpooledTemporaryFile(_SPOOL, dir=os.fspath(path.parent)) as failures,
    ):
        yield UnitWriter(ids, {"lengths": lengths, "failures": failures}, dtype)


class UnitFile:
    """A unit's file, opened and its description checked.

    Raises
    ------
    FileMissingError, FileAccessError
    TruncatedFileError, FileFormatError, HashMismatchError
        It is none, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise convert_error(error, path=path) or error from error
        try:
            self.facts = self._read_facts()
        except BaseException:
            self._file.close()
            raise

    def _read_facts(self) -> dict[str, Any]:
        n = os.fstat(self._file.fileno()).st_size
        if n < _TAIL.size:
            raise TruncatedFileError("shorter than the end of a unit", path=self.path, offset=n)
        self._file.seek(n - _TAIL.size)
        checksum, length, mark = _TAIL.unpack(self._file.read(_TAIL.size))
        if mark != _MARK:
            raise TruncatedFileError("the end of the unit is missing", path=self.path, offset=n)
        if length > min(_MOST, n - _TAIL.size):
            raise FileFormatError("a description longer than the file", path=self.path)
        self._file.seek(n - _TAIL.size - length)
        text = self._file.read(length)
        if zlib.crc32(text) != checksum:
            raise HashMismatchError("the description is damaged", path=self.path)
        try:
            facts: dict[str, Any] = json.loads(text)
            sizes = [facts["size"][name] for name in PARTS]
            good = all(type(size) is int and size >= 0 for size in sizes)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileFormatError(f"this describes no unit: {error}", path=self.path) from error
        if not good or sum(sizes) != n - _TAIL.size - length:
            raise FileFormatError("the parts of the unit have other sizes", path=self.path)
        return facts

    def copy(self, name: str, take: Callable[[memoryview], object]) -> None:
        """Hand a part on, block by block, and compare its checksum at the end."""
        sizes = self.facts["size"]
        self._file.seek(sum(sizes[part] for part in PARTS[: PARTS.index(name)]))
        copy_checked(self._file, sizes[name], self.facts["crc"][name], take, f"{name} of a unit")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> UnitFile:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def copy_checked(
    file: Any, n: int, crc: int, take: Callable[[memoryview], object], what: str
) -> None:
    """Hand the next `n` bytes of a file on, block by block; HashMismatchError if `crc` differs."""
    view = memoryview(bytearray(min(n, _BLOCK)))
    checksum = 0
    while n:
        try:
            got = file.readinto(view[: min(n, _BLOCK)])
        except OSError as error:
            raise convert_error(error) or error from error
        if not got:
            raise TruncatedFileError(f"{what} are cut short")
        checksum = zlib.crc32(view[:got], checksum)
        take(view[:got])
        n -= got
    if checksum != crc:
        raise HashMismatchError(f"{what} are not as they were written")


def read_whole(path: Path, plan: str, unit: int) -> dict[str, Any] | None:
    """Read a unit's file through; return what the journal says of it, or None for a damaged one."""
    try:
        with UnitFile(path) as file:
            facts = dict(file.facts)
            counts = ("tokens", "documents", "text_bytes", "failures")
            if any(type(facts[name]) is not int for name in counts):
                return None
            if facts.pop("plan") != plan or facts["unit"] != unit:
                return None
            for name in PARTS:
                file.copy(name, len)
            return facts
    except (RustLLMError, KeyError, TypeError):
        return None

"""The journal: a line for every unit that is committed, so that a resumed run need not look."""

from __future__ import annotations

import errno
import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from rustllm.errors import convert_error

__all__ = ["Journal", "is_entry"]


class Journal:
    """Lines of JSON, each behind its CRC-32; what a crash tore off at the end is cut away.

    The journal is a shortcut and never the truth: a unit is committed when its file has its name.

    Notes
    -----
    Written by one process, which holds the folder's lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: dict[int, dict[str, Any]] = {}
        data = path.read_bytes() if path.exists() else b""
        good = 0
        for line in data.splitlines(keepends=True):
            entry = _read(line)
            if entry is None:
                break
            self.entries[entry["unit"]] = entry
            good += len(line)
        self._file = path.open("ab", buffering=0)
        self._end = good
        if good < len(data):
            self._file.truncate(good)

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry, and wait until it is on the disk; FileAccessError where it is full."""
        text = json.dumps(entry, sort_keys=True).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise convert_error(error, path=self._path) or error from error
        self._end += len(line)
        self.entries[entry["unit"]] = entry

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        return None
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if is_entry(entry) else None


def is_entry(entry: Any) -> bool:
    """Whether this says of a unit all that is asked of it later."""
    if not isinstance(entry, dict):
        return False
    counts = [entry.get(name) for name in ("unit", "tokens", "documents", "text_bytes", "failures")]
    for name in ("size", "crc"):
        part = entry.get(name)
        if not isinstance(part, dict):
            return False
        counts += [part.get(key) for key in ("ids", "lengths", "failures")]
    return all(type(count) is int and count >= 0 for count in counts)

"""One unit of work: read its documents, encode them, commit the result as one checked file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm.corpus.plan import Input, Unit
from rustllm.errors import (
    FileFormatError,
    MemoryLimitError,
    RustLLMError,
    StateError,
    error_context,
)
from rustllm.serialize import dump

if TYPE_CHECKING:
    from rustllm.traits import Tokenizer

__all__ = ["UnitRunner", "unit_path"]

# Characters encoded at once: enough for the encoder to run at full speed, little enough memory.
_BATCH = 1 << 22
_BLOCK = 1 << 20
_MAX_LINE = 1 << 28


def unit_path(folder: Path, index: int) -> Path:
    """Return where the result of a unit lies."""
    return folder / "units" / f"{index:08d}.rllm"


@dataclass(frozen=True)
class UnitRunner:
    """Does units; picklable, so that processes can have one each."""

    folder: str
    fingerprint: str
    inputs: tuple[Input, ...]
    options: dict[str, Any]
    tokenizer: Tokenizer[Any]

    def __call__(self, unit: Unit) -> dict[str, Any]:
        """Do a unit, commit it, and return what the journal says of it."""
        item = self.inputs[unit.input]
        with error_context("tokenizing", path=item.path, start=unit.start, end=unit.end):
            self._require_unchanged(item)
            result = self._encode(item, unit)
            self._require_unchanged(item)
            dump({"plan": self.fingerprint, "unit": unit.index, **result}, self._path(unit))
        return summary(unit.index, result)

    def _path(self, unit: Unit) -> Path:
        return unit_path(Path(self.folder), unit.index)

    def _require_unchanged(self, item: Input) -> None:
        status = os.stat(item.path)  # noqa: PTH116  the error context has the path
        if (status.st_size, status.st_mtime_ns) != (item.size, item.mtime_ns):
            raise StateError("the input changed since the plan was made", path=item.path)

    def _encode(self, item: Input, unit: Unit) -> dict[str, Any]:
        dtype = np.dtype(self.options["dtype"])
        failures: list[dict[str, Any]] = []
        ids: list[np.ndarray[Any, Any]] = []
        lengths: list[np.ndarray[Any, Any]] = []
        batch: list[str] = []
        n_chars = n_bytes = 0

        def flush() -> None:
            nonlocal n_chars
            encoded = self.tokenizer.encode_batch_flat(batch, 1, disallowed_special=())
            flat, counts = encoded.ids, np.diff(encoded.offsets)
            if (end := self.options["end_id"]) is not None:
                flat = np.insert(flat, encoded.offsets[1:], np.uint32(end))
                counts = counts + 1
            if len(flat) and int(flat.max()) > np.iinfo(dtype).max:
                raise StateError(f"the id {int(flat.max())} does not fit {dtype}")
            ids.append(flat.astype(dtype))
            lengths.append(counts)
            batch.clear()
            n_chars = 0

        for offset, document in self._documents(item, unit):
            if isinstance(document, RustLLMError):
                self._fail(document, item, offset, failures)
                continue
            batch.append(document)
            n_chars += len(document)
            n_bytes += (
                len(document)
                if document.isascii()
                else len(document.encode("utf-8", "surrogatepass"))
            )
            if n_chars >= _BATCH:
                flush()
        flush()
        return {
            "ids": np.concatenate(ids),
            "lengths": np.concatenate(lengths).astype(np.int64),
            "text_bytes": n_bytes,
            "failures": failures,
        }

    def _fail(
        self, error: RustLLMError, item: Input, offset: int, failures: list[dict[str, Any]]
    ) -> None:
        if self.options["on_error"] == "raise":
            raise error
        failures.append(
            {"path": item.path, "offset": offset, "code": error.code, "message": error.message}
        )

    def _documents(self, item: Input, unit: Unit) -> Iterator[tuple[int, str | RustLLMError]]:
        """Yield the documents of a unit and where they begin, or the error that one of them is."""
        if item.kind == "text":
            from rustllm.loaders.text import read_text

            try:
                yield 0, read_text(item.path)
            except FileFormatError as error:
                yield 0, error
            return
        if item.kind not in ("lines", "jsonl"):
            yield from self._records(item)
            return
        for offset, line in _lines(item, unit):
            if not line.strip():
                continue
            try:
                yield offset, self._document_of(line, item, offset)
            except RustLLMError as error:
                yield offset, error

    def _records(self, item: Input) -> Iterator[tuple[int, str | RustLLMError]]:
        """Yield the texts of a table's rows, under the number of the row."""
        name = self.options["field"]
        row = -1
        try:
            for row, record in enumerate(_rows(item, name)):
                value = record.get(name) if isinstance(record, dict) else None
                if isinstance(value, str):
                    yield row, value
                else:
                    yield (
                        row,
                        FileFormatError(
                            f"the record has no text under {name!r}",
                            path=item.path,
                            key=name,
                            row=row,
                        ),
                    )
        except FileFormatError as error:  # nothing can be read behind it
            yield row + 1, error

    def _document_of(self, line: bytes, item: Input, offset: int) -> str:
        where: dict[str, Any] = {"path": item.path, "offset": offset}
        try:
            text = line.decode("utf-8")
            if item.kind == "lines":
                return text
            document = json.loads(text)
        except UnicodeDecodeError as error:
            raise FileFormatError(f"not UTF-8: {error.reason}", **where) from error
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"not JSON: {error}", **where) from error
        name = self.options["field"]
        value = document.get(name) if isinstance(document, dict) else None
        if not isinstance(value, str):
            raise FileFormatError(f"the record has no text under {name!r}", key=name, **where)
        return value


def _rows(item: Input, name: str) -> Iterator[Any]:
    from rustllm.loaders.detect import FileFormat
    from rustllm.loaders.opening import TableFile
    from rustllm.loaders.records import stream_records

    if item.kind in ("parquet", "arrow"):
        return TableFile(item.path, FileFormat(item.kind)).records(columns=[name])
    return stream_records(item.path, item.kind)


def _lines(item: Input, unit: Unit) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that begin in the unit's range, without their ends, and where they begin."""
    if unit.start == 0 and unit.end == item.size:  # also the compressed ones
        from rustllm.loaders.sources import open_bytes

        with open_bytes(item.path) as (stream, _):
            yield from _split(stream, item.path, 0, None)
        return
    with Path(item.path).open("rb") as file:
        if unit.start == 0:
            yield from _split(file, item.path, 0, unit.end)
            return
        # What comes before the first line end belongs to the unit before.
        file.seek(unit.start - 1)
        lines = _split(file, item.path, unit.start - 1, unit.end)
        next(lines, None)
        yield from lines


def _split(file: Any, path: str, offset: int, end: int | None) -> Iterator[tuple[int, bytes]]:
    held: list[bytes] = []  # of a line that no block so far ended; joined once
    size = 0
    while True:
        block = file.read(_BLOCK)
        if block and b"\n" not in block:
            held.append(block)
            size += len(block)
            if size > _MAX_LINE:
                raise MemoryLimitError(
                    f"a line is longer than {_MAX_LINE} bytes", path=path, offset=offset
                )
            continue
        held.append(block)
        *lines, rest = b"".join(held).split(b"\n")
        for line in lines:
            if end is not None and offset >= end:
                return
            yield offset, _bare(line, offset)
            offset += len(line) + 1
        if not block:
            break
        held, size = [rest], len(rest)
    if rest and (end is None or offset < end):
        yield offset, _bare(rest, offset)


def _bare(line: bytes, offset: int) -> bytes:
    """Return a line without its carriage return and, at the beginning, its byte order mark."""
    line = line.removesuffix(b"\r")
    return line if offset else line.removeprefix(b"\xef\xbb\xbf")


def summary(index: int, result: dict[str, Any]) -> dict[str, Any]:
    """Return what the journal says of a unit's result."""
    return {
        "unit": index,
        "tokens": len(result["ids"]),
        "documents": len(result["lengths"]),
        "text_bytes": result["text_bytes"],
        "failures": len(result["failures"]),
    }

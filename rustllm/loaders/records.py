"""Records of JSON lines, JSON, CSV and TSV files, one at a time, resumable by offset."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from typing import Any

from rustllm.errors import ArgumentError, FileFormatError, UnsupportedError
from rustllm.loaders.detect import detect_format
from rustllm.loaders.json_items import json_items
from rustllm.loaders.text import TextStream

__all__ = ["RecordStream", "stream_records"]

_KINDS = ("jsonl", "json", "csv", "tsv")


def stream_records(
    source: Any,
    kind: str | None = None,
    *,
    start: int = 0,
    columns: list[str] | None = None,
    encoding: str | None = None,
    fallback: str | None = None,
    max_record: int = 1 << 26,
) -> RecordStream:
    """Read the records of a file one at a time.

    Parameters
    ----------
    source : path, ``"-"``, URL or binary file object
        As for :func:`~rustllm.loaders.text.read_text`.
    kind : {"jsonl", "json", "csv", "tsv"}, optional
        By default told by the content, which needs a path.
    start : int
        Offset to begin at: 0, or an earlier stream's :attr:`RecordStream.offset`. Not for ``json``.
    columns : list of str, optional
        Names of the columns of a table without a head; needed to resume one as well.
    encoding, fallback
        As for :func:`~rustllm.loaders.text.read_text`.
    max_record : int
        Bytes of a record that are too many to hold.

    Returns
    -------
    RecordStream
        An iterator of dicts: objects, or rows by column name (values are str).

    Raises
    ------
    FileFormatError, TruncatedFileError
        A record that is not one, with line and offset; as for reading text.
    UnsupportedError
        The file holds no records.

    Examples
    --------
    >>> import io
    >>> from rustllm.loaders.records import stream_records
    >>> list(stream_records(io.BytesIO(b'a,b\\n1,"x, y"\\n'), "csv"))
    [{'a': '1', 'b': 'x, y'}]
    """
    return RecordStream(
        source,
        kind,
        start=start,
        columns=columns,
        encoding=encoding,
        fallback=fallback,
        max_record=max_record,
    )


class RecordStream(Iterator[dict[str, Any]]):
    """Records in order; see :func:`stream_records`.

    Attributes
    ----------
    path : str
    kind : str
    offset : int
        Where the next record begins, in bytes of the decompressed content.
    columns : list of str or None
        Of a table, once its first record was read.

    Notes
    -----
    Memory is bounded by a record. Used by one thread at a time.
    """

    def __init__(
        self,
        source: Any,
        kind: str | None = None,
        *,
        start: int = 0,
        columns: list[str] | None = None,
        encoding: str | None = None,
        fallback: str | None = None,
        max_record: int = 1 << 26,
    ) -> None:
        if kind is None:
            kind = detect_format(source).kind
        if kind not in _KINDS:
            raise UnsupportedError(
                f"a file of kind {kind} holds no records",
                path=str(source),
                hint=f"kind= one of {', '.join(_KINDS)}",
            )
        self.kind = kind
        self.columns = columns
        self._max = max_record
        if kind == "json":
            if start:
                raise ArgumentError("a JSON file cannot be resumed: use JSON lines")
            self._lines: TextStream | None = None
            self._chunks = TextStream(source, encoding=encoding, fallback=fallback)
            self.path = self._chunks.path
        else:
            self._lines = TextStream(
                source,
                unit="line",
                start=start,
                encoding=encoding,
                fallback=fallback,
                max_unit=max_record,
            )
            self.path = self._lines.path
        pieces: dict[str, Callable[[], Generator[dict[str, Any]]]] = {
            "json": self._objects,
            "jsonl": self._json_lines,
            "csv": self._rows,
            "tsv": self._rows,
        }
        self._line = 0
        self._records = pieces[kind]()

    @property
    def offset(self) -> int:
        return self._lines.offset if self._lines is not None else 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._records

    def __next__(self) -> dict[str, Any]:
        return next(self._records)

    def close(self) -> None:
        """Close what was opened here; a second call does nothing."""
        self._records.close()
        if self._lines is not None:
            self._lines.close()
        else:
            self._chunks.close()

    def __enter__(self) -> RecordStream:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _objects(self) -> Generator[dict[str, Any]]:
        for i, record in enumerate(json_items(self._chunks, self.path, self._max)):
            if not isinstance(record, dict):
                raise FileFormatError(f"item {i} is not an object", path=self.path)
            yield record

    def _json_lines(self) -> Generator[dict[str, Any]]:
        assert self._lines is not None
        stream = self._lines
        for line in stream:
            self._line += 1
            if not line or line.isspace():
                continue
            record = self._parse(line, self._line)
            if not isinstance(record, dict):
                raise FileFormatError(
                    "this line is not an object",
                    path=self.path,
                    offset=stream.line_start,
                    line=self._line,
                )
            yield record

    def _parse(self, text: str, line: int | None) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            at = self._start() + len(text[: error.pos].encode("utf-8", "surrogatepass"))
            raise FileFormatError(
                f"this is not JSON: {error.msg}", path=self.path, offset=at, line=line
            ) from None
        except (RecursionError, ValueError) as error:
            what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise FileFormatError(
                f"this cannot be read as JSON: {what}",
                path=self.path,
                offset=self._start(),
                line=line,
            ) from None

    def _start(self) -> int:
        """Offset of the line that is being parsed."""
        return 0 if self._lines is None else self._lines.line_start

    def _rows(self) -> Generator[dict[str, Any]]:
        delimiter = "," if self.kind == "csv" else "\t"
        for begin, line, text in self._whole_rows():
            cells = _cells(text, delimiter)
            if cells is None:
                wrong = "quotes that are not around a whole cell"
            elif self.columns is None:
                if len(set(cells)) == len(cells):
                    self.columns = cells
                    continue
                wrong = "two columns have one name"
            elif len(cells) != len(self.columns):
                wrong = f"{len(cells)} cells for {len(self.columns)} columns"
            else:
                yield dict(zip(self.columns, cells, strict=True))
                continue
            offset = self._start() if begin is None else begin
            raise FileFormatError(wrong, path=self.path, offset=offset, line=line)

    def _whole_rows(self) -> Generator[tuple[int | None, int, str]]:
        """Rows with the lines that quotes hold together; empty lines are left out.

        With the offset and line where each begins; None for the offset of a row of one line.
        """
        assert self._lines is not None
        stream = self._lines
        held: list[str] = []
        size = quotes = first = begin = 0
        for line in stream:
            self._line += 1
            if not held:
                if line.count('"') % 2 == 0:
                    if line:
                        yield None, self._line, line
                    continue
                begin, first = stream.line_start, self._line
            held.append(line)
            size += len(line) + 1
            quotes += line.count('"')
            if quotes % 2 == 0:
                yield begin, first, "\n".join(held)
                held, size, quotes = [], 0, 0
            elif size > self._max:
                raise FileFormatError(
                    f"a row of more than {self._max} bytes: is a quote missing?",
                    path=self.path,
                    offset=begin,
                    line=first,
                )
        if held:
            raise FileFormatError("a quote is not closed", path=self.path, offset=begin, line=first)


def _cells(row: str, delimiter: str) -> list[str] | None:
    """Cells of a row whose quotes are even; None if they do not stand around whole cells."""
    if '"' not in row:
        return row.split(delimiter)
    cells: list[str] = []
    at = 0
    while True:
        if row[at : at + 1] == '"':
            end = at + 1
            while True:
                end = row.find('"', end)
                if end < 0:  # another quote of the row stands within an unquoted cell
                    return None
                if row[end + 1 : end + 2] != '"':
                    break
                end += 2
            cells.append(row[at + 1 : end].replace('""', '"'))
            at = end + 1
            if at < len(row) and row[at] != delimiter:
                return None
        else:
            end = row.find(delimiter, at)
            end = len(row) if end < 0 else end
            cells.append(row[at:end])
            at = end
        if at >= len(row):
            return cells
        at += 1

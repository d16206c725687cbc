"""One unit of work: read its documents, encode them, commit the result as one checked file."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm._core.json_text import scan_texts
from rustllm._core.utf8 import valid_utf8_length
from rustllm.corpus.archived import is_archive, members_of
from rustllm.corpus.blocks import MAX_LINE, line_blocks
from rustllm.corpus.plan import Input, Unit
from rustllm.corpus.unit_file import UnitParts, unit_path, write_unit
from rustllm.errors import (
    FileFormatError,
    MemoryLimitError,
    RustLLMError,
    StateError,
    UnsupportedError,
    error_context,
)

if TYPE_CHECKING:
    from rustllm.traits import Tokenizer

__all__ = ["UnitRunner", "UnitWork", "cut_near"]

# Texts are encoded together, about so many bytes and texts at once; from a size on piece by piece.
_BATCH = 1 << 20
_TEXTS = 1 << 14
_LONG = 1 << 22
_PIECE = 1 << 20
_NEAR = 1 << 14
# Half of a character beyond U+FFFF, as JSON escapes it.
_PAIR = re.compile(rb"\\u[dD][89abAB]")


@dataclass(frozen=True)
class UnitRunner:
    """Does units; picklable, so that processes can have one each."""

    folder: str
    fingerprint: str
    inputs: tuple[Input, ...]
    options: dict[str, Any]
    tokenizer: Tokenizer[Any]
    tick: Callable[[int, int], object] | None = None
    """Is told the number of a unit and how many of its bytes have been done, where it can be."""

    def __reduce__(self) -> tuple[Any, ...]:
        # What watches stays where it is.
        return UnitRunner, (
            self.folder, self.fingerprint, self.inputs, self.options, self.tokenizer,
        )  # fmt: skip

    def __call__(self, unit: Unit) -> dict[str, Any]:
        """Do a unit, commit it, and return what the journal says of it."""
        item = self.inputs[unit.input]
        path = unit_path(Path(self.folder), unit.index)
        with error_context("tokenizing", path=item.path, start=unit.start, end=unit.end):
            self.require_unchanged(item)
            with write_unit(path, self.options["dtype"]) as out:
                work = UnitWork(self, item, unit, out, self.tick)
                work.do()
                self.require_unchanged(item)
                facts = out.finish(self.fingerprint, unit.index)
                written = time.perf_counter()
                seconds = work.seconds()
            seconds["commit"] = time.perf_counter() - written
        return {**facts, "seconds": seconds}

    def require_unchanged(self, item: Input) -> None:
        """Raise StateError unless an input is as it was when the plan was made."""
        status = os.stat(item.path)  # noqa: PTH116  the error context has the path
        if (status.st_size, status.st_mtime_ns) != (item.size, item.mtime_ns):
            raise StateError("the input changed since the plan was made", path=item.path)


class UnitWork:
    """From the documents of one unit to ids; memory is that of a batch, or of a line."""

    def __init__(
        self,
        runner: UnitRunner,
        item: Input,
        unit: Unit,
        out: UnitParts,
        tick: Callable[[int, int], object] | None,
    ) -> None:
        self._options = runner.options
        self._tokenizer = runner.tokenizer
        self._item = item
        self._unit = unit
        self._out = out
        self._watcher = tick
        self._done = 0
        self._name = item.path  # of what is being read
        self._how: dict[str, Any] = {
            "end_id": runner.options["end_id"],
            "dtype": runner.options["dtype"],
        }
        self._encoding = 0.0
        self._started = time.perf_counter()

    def seconds(self) -> dict[str, float]:
        """What reading and encoding have taken."""
        total = time.perf_counter() - self._started
        return {"read": total - self._encoding, "encode": self._encoding}

    def do(self) -> None:
        """Read and encode every document of the unit."""
        if self._item.kind == "text":
            self._do_text()
        elif self._item.kind in ("lines", "jsonl"):
            self._do_lines()
        elif is_archive(self._item.kind):
            self._do_archive()
        else:
            with closing(_rows(self._item, self._options["field"])) as rows:
                self._encode_records(rows)

    # ---- lines ----

    def _do_lines(self) -> None:
        name = None
        if self._item.kind == "jsonl":
            # Such a name is in no line as it is: every one is left to Python.
            name = self._options["field"].encode("utf-8", "surrogatepass")
        spans = np.empty((_TEXTS, 2), np.int64)
        for buffer, offset, start, stop in line_blocks(self._item, self._unit):
            at, n = start, 0
            while at < stop:
                at, n, odd = scan_texts(buffer, at, stop, name, spans, n)
                if n == _TEXTS:
                    n = self._encode_spans(buffer, spans, n)
                if odd >= 0:
                    # The byte order mark belongs to the first line.
                    where = 0 if at == 3 and start == 3 else offset + at
                    n = self._do_odd_line(buffer, at, odd, where, spans, n)
                    at = odd
            self._encode_spans(buffer, spans, n)
            self._tick(stop)

    def _do_odd_line(
        self, buffer: bytearray, at: int, stop: int, offset: int, spans: Any, n: int
    ) -> int:
        """Read a line as Python does; its text takes its place in the buffer."""
        try:
            line = bytes(memoryview(buffer)[at:stop])
            text = _document_of(line, self._item, self._options["field"], offset)
        except RustLLMError as error:
            self._fail(error, offset)
            return n
        try:
            data = text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            n = self._encode_spans(buffer, spans, n)
            self._encode_texts([text])
            return n
        memoryview(buffer)[at : at + len(data)] = data  # never longer than its JSON
        spans[n] = at, at + len(data)
        return n + 1

    def _encode_spans(self, buffer: bytearray, spans: Any, n: int) -> int:
        """Encode the first `n` spans; the next is the first again."""
        sizes = spans[:n, 1] - spans[:n, 0]
        at = 0
        for long in [*np.flatnonzero(sizes > _LONG).tolist(), n]:
            if long > at:
                with self._clock():
                    ids, lengths = self._tokenizer.encode_spans(buffer, spans[at:long], **self._how)
                self._out.add(ids, lengths, int(sizes[at:long].sum()))
            if long < n:
                self._encode_long(_pieces_of(buffer, *spans[long].tolist()))
            at = long + 1
        return 0

    # ---- whole texts ----

    def _do_text(self) -> None:
        from rustllm.loaders.text import stream_text

        try:
            with stream_text(self._item.path, _PIECE) as pieces:
                found = pieces.format
                if (found.encoding, found.compression) != ("utf-8", None) or not self._do_utf8():
                    self._encode_long(pieces)
        except FileFormatError as error:
            self._fail(error, 0)

    def _do_utf8(self) -> bool:
        """Encode a plain file of UTF-8 without strings; False, and nothing done, if it is odd."""
        from rustllm.tokenizers.stream_encoder import StreamEncoder

        encoder = StreamEncoder(self._tokenizer, disallowed_special=())
        if not encoder.cuts:
            return False
        mark = self._out.mark()
        buffer = bytearray(2 * _PIECE)
        held = length = n_bytes = 0
        begin = True
        with Path(self._item.path).open("rb", buffering=0) as file:
            while True:
                got = file.readinto(memoryview(buffer)[held:])
                filled = held + (got or 0)
                start = 3 if begin and buffer.startswith(b"\xef\xbb\xbf", 0, filled) else 0
                good = valid_utf8_length(memoryview(buffer)[:filled]) if filled else 0
                cut = filled
                if got:
                    near = max(good - _NEAR, 0)
                    cut = encoder.last_cut(bytes(memoryview(buffer)[near:good]))
                    cut = near + cut if cut else 0
                # A character may end in the next piece; what is worse, the strings tell.
                if filled - good > (3 if got else 0) or (got and cut <= start and filled > _PIECE):
                    self._out.rewind(mark)
                    return False
                held = filled
                if got and cut <= start:
                    continue
                with self._clock():
                    span = np.array([[start, cut]], np.int64)
                    how = self._how if not got else {**self._how, "end_id": None}
                    ids, _ = self._tokenizer.encode_spans(buffer, span, **how)
                self._out.add_ids(ids)
                length += len(ids)
                n_bytes += cut - start
                self._tick(cut)
                if not got:
                    break
                begin = False
                held = filled - cut
                view = memoryview(buffer)
                view[:held] = view[cut:filled]
                view.release()
        self._out.add_lengths([length], n_bytes)
        return True

    def do_stretch(self, is_last: bool) -> bool:
        """Encode the bytes of a text that are the unit; False, and nothing done, if it is odd.

        The length of the document is left to who knows the other stretches.
        """
        buffer = bytearray(self._unit.end - self._unit.start)
        view = memoryview(buffer)
        got = 0
        with Path(self._item.path).open("rb", buffering=0) as file:
            file.seek(self._unit.start)
            while got < len(buffer):
                n = file.readinto(view[got:])
                if not n:
                    what = "the input became shorter since the plan was made"
                    raise StateError(what, path=self._item.path, offset=self._unit.start + got)
                got += n
        if valid_utf8_length(view) < len(buffer):
            return False
        start = 3 if self._unit.start == 0 and buffer.startswith(b"\xef\xbb\xbf") else 0
        with self._clock():
            span = np.array([[start, len(buffer)]], np.int64)
            how = self._how if is_last else {**self._how, "end_id": None}
            ids, _ = self._tokenizer.encode_spans(buffer, span, **how)
        self._out.add_ids(ids)
        self._out.count["text_bytes"] += len(buffer) - start
        return True

    # ---- records and long texts ----

    def _do_archive(self) -> None:
        """The members of an archive, in their order; one that cannot be read fails alone."""
        try:
            for member in members_of(self._item, self._options["field"]):
                self._name = f"{self._item.path}/{member.name}"
                try:
                    with member.open() as content:
                        if content.records is None:
                            self._encode_long(content.pieces(_PIECE))
                        else:
                            self._encode_records(content.records)
                except (FileFormatError, UnsupportedError) as error:
                    self._fail(error, member.index)
        except FileFormatError as error:  # nothing can be read behind it
            self._name = self._item.path
            self._fail(error, 0)

    def _encode_records(self, rows: Iterator[Any]) -> None:
        """The texts of records; what fails is told by the number of the row."""
        name = self._options["field"]
        batch: list[str] = []
        size = 0
        row = -1
        try:
            for row, record in enumerate(rows):
                value = record.get(name) if isinstance(record, dict) else None
                if not isinstance(value, str):
                    what = f"the record has no text under {name!r}"
                    self._fail(FileFormatError(what, path=self._name, key=name, row=row), row)
                    continue
                batch.append(value)
                size += len(value)
                if size >= _BATCH or len(batch) >= _TEXTS:
                    self._encode_texts(batch)
                    batch, size = [], 0
        except FileFormatError as error:  # nothing can be read behind it
            self._encode_texts(batch)
            batch = []
            self._fail(error, row + 1)
        self._encode_texts(batch)

    def _encode_texts(self, texts: list[str]) -> None:
        from rustllm.traits.tokenizer import with_ends

        short: list[str] = []
        for text in [*texts, None]:
            if text is not None and len(text) <= _LONG:
                short.append(text)
                continue
            if short:
                with self._clock():
                    batch = self._tokenizer.encode_batch_flat(short, 1, disallowed_special=())
                    ids, lengths = with_ends(
                        batch.ids, batch.offsets, self._how["end_id"], np.dtype(self._how["dtype"])
                    )
                self._out.add(ids, lengths, sum(map(_utf8_length, short)))
                short = []
            if text is not None:
                self._encode_long(text[i : i + _PIECE] for i in range(0, len(text), _PIECE))

    def _encode_long(self, pieces: Iterator[str]) -> None:
        """Encode a document that comes in pieces; all of it counts, or nothing."""
        from rustllm.tokenizers.stream_encoder import StreamEncoder
        from rustllm.traits.tokenizer import with_ends

        encoder = StreamEncoder(self._tokenizer, disallowed_special=())
        dtype = np.dtype(self._how["dtype"])
        mark = self._out.mark()
        length = n_bytes = 0

        def add(ids: Any, end: int | None = None) -> None:
            nonlocal length
            ids, _ = with_ends(ids, np.array([0, len(ids)], np.int64), end, dtype)
            self._out.add_ids(ids)
            length += len(ids)

        try:
            for piece in pieces:
                n_bytes += _utf8_length(piece)
                self._tick(len(piece))
                with self._clock():
                    ids = encoder.push_array(piece)
                add(ids)
                if encoder.n_held > MAX_LINE:
                    raise MemoryLimitError(
                        f"a stretch of {encoder.n_held} characters can only be encoded whole",
                        path=self._item.path,
                        hint="cut the document into smaller ones",
                    )
            with self._clock():
                ids = encoder.finish_array()
            add(ids, self._how["end_id"])
        except RustLLMError:
            self._out.rewind(mark)
            raise
        self._out.add_lengths([length], n_bytes)

    # ---- ----

    def _fail(self, error: RustLLMError, offset: int) -> None:
        if self._options["on_error"] == "raise":
            raise error
        facts = {
            "path": self._name,
            "offset": offset,
            "code": error.code,
            "message": error.message,
        }
        self._out.fail(facts, self._options["on_error"] == "quarantine")

    def _tick(self, n_bytes: int) -> None:
        self._done += n_bytes
        if self._watcher is not None:
            self._watcher(self._unit.index, self._done)

    @contextmanager
    def _clock(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._encoding += time.perf_counter() - started


def cut_near(tokenizer: Tokenizer[Any]) -> Callable[[Any, int], int]:
    """Return a function of a file and an offset: the last place before it to cut the text; or 0."""
    from rustllm.tokenizers.stream_encoder import StreamEncoder

    encoder = StreamEncoder(tokenizer, disallowed_special=())

    def cut(file: Any, at: int) -> int:
        near = max(at - _NEAR, 0)
        file.seek(near)
        data: bytes = file.read(at - near)
        end = len(data) - 1
        while end > 0 and data[end] & 0xC0 == 0x80:
            end -= 1  # the last character may go on behind it
        found = encoder.last_cut(data[: max(end, 0)])
        return near + found if found else 0

    return cut


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _pieces_of(buffer: bytearray, start: int, stop: int) -> Iterator[str]:
    """The text ``buffer[start:stop]``, cut between characters."""
    while start < stop:
        end = min(start + _PIECE, stop)
        while end < stop and buffer[end] & 0xC0 == 0x80:
            end -= 1
        yield str(memoryview(buffer)[start:end], "utf-8")
        start = end


def _document_of(line: bytes, item: Input, name: str, offset: int) -> str:
    """The text of a line, as Python reads it."""
    where: dict[str, Any] = {"path": item.path, "offset": offset}
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if len(line) * _width_of(line) > MAX_LINE:
        raise MemoryLimitError(
            f"a line of {len(line)} bytes that only Python can read takes too much memory", **where
        )
    try:
        text = line.decode("utf-8")
        del line
        if item.kind == "lines":
            return text
        document = json.loads(text)
    except UnicodeDecodeError as error:
        raise FileFormatError(f"not UTF-8: {error.reason}", **where) from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"not JSON: {error}", **where) from error
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, str):
        raise FileFormatError(f"the record has no text under {name!r}", key=name, **where)
    return value


def _width_of(line: bytes) -> int:
    """Bytes that Python takes for a character of a long line, at most."""
    if len(line) <= _LONG:
        return 1
    if int(np.frombuffer(line, np.uint8).max()) >= 0xF0 or _PAIR.search(line):
        return 4
    return 1 if line.isascii() and b"\\u" not in line else 2


def _rows(item: Input, name: str) -> Generator[Any]:
    from rustllm.loaders.detect import FileFormat
    from rustllm.loaders.opening import TableFile
    from rustllm.loaders.records import stream_records

    if item.kind in ("parquet", "arrow"):
        yield from TableFile(item.path, FileFormat(item.kind)).records(columns=[name])
        return
    with stream_records(item.path, item.kind) as records:
        yield from records

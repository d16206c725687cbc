"""Pieces of units: what several threads do of one unit at a time, held in memory until its turn.

A unit that is a range of lines, or a plain text in UTF-8, is cut where its ids do not depend on the
cut. What the pieces give, put together in order, is what the unit would give.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm.corpus.plan import Input, Unit
from rustllm.corpus.unit_file import PARTS, UnitParts
from rustllm.corpus.units import UnitRunner, UnitWork, cut_near
from rustllm.errors import convert_errors, error_context

if TYPE_CHECKING:
    from rustllm.traits import Tokenizer

__all__ = ["Piece", "PieceResult", "do_piece", "is_divisible", "pieces_of"]

SIZE = 1 << 21
_BLOCK = 1 << 20
_SMALL = 1 << 12
# A text without a place to cut it for so long is left to what reads it from its beginning.
_FARTHEST = 1 << 22


@dataclass(frozen=True)
class Piece:
    """Bytes `start` to `stop` of a unit: the lines that begin there, or that stretch of its text.

    Attributes
    ----------
    number : int
        Of the piece in its unit, from 0.
    is_last : bool
    """

    unit: Unit
    number: int
    start: int
    stop: int
    is_last: bool


class PieceResult(UnitParts):
    """Ids, lengths and failures of a piece.

    Attributes
    ----------
    piece : Piece
    is_odd : bool
        The unit cannot be done in pieces after all: its text is not UTF-8, or has no place for a
        cut.
    seconds : dict
        What reading and encoding took.
    """

    def __init__(self, piece: Piece, dtype: str, folder: Path) -> None:
        super().__init__(dtype)
        self.piece = piece
        self.is_odd = False
        self.seconds: dict[str, float] = {}
        self._folder = folder
        self._held: dict[str, list[memoryview | bytearray]] = {name: [] for name in PARTS}
        self._spilled: dict[str, Any] = {}
        self.nbytes = 0

    def _write(self, name: str, data: memoryview) -> None:
        if name in self._spilled:
            self._spilled[name].write(data)
            return
        held = self._held[name]
        if len(data) >= _SMALL:
            held.append(data)
        elif held and isinstance(held[-1], bytearray) and len(held[-1]) < _BLOCK:
            held[-1] += data  # an object of its own would take more than what is in it
        else:
            held.append(bytearray(data))
        self.nbytes += len(data)
        if self.nbytes > 8 * SIZE:  # one long line may be much more than a piece
            self.spill()

    def _cut_back(self, name: str, size: int) -> None:
        self.spill()
        self._spilled[name].seek(size)
        self._spilled[name].truncate()

    def spill(self) -> None:
        """Give the memory back: what is held, and comes, lies in files without a name."""
        for name in PARTS:
            if name not in self._spilled:
                file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (held)
                self._spilled[name] = file
                for data in self._held[name]:
                    file.write(data)
                self._held[name].clear()
        self.nbytes = 0

    def blocks(self, name: str) -> Iterator[Any]:
        """The bytes of a part, in order."""
        yield from self._held[name]
        if (file := self._spilled.get(name)) is not None:
            file.seek(0)
            while block := file.read(_BLOCK):
                yield block

    def close(self) -> None:
        """Let go of memory and files."""
        for file in self._spilled.values():
            file.close()
        self._held = {name: [] for name in PARTS}
        self.nbytes = 0


def is_divisible(item: Input, unit: Unit, tokenizer: Tokenizer[Any]) -> bool:
    """Whether a unit can be done in pieces, as far as its beginning tells."""
    from rustllm.loaders.detect import detect_format
    from rustllm.tokenizers.stream_encoder import StreamEncoder

    if item.kind not in ("text", "lines", "jsonl"):
        return False
    if item.kind != "text" and (unit.start, unit.end) != (0, item.size):
        return True  # only whole files may be compressed
    found = detect_format(item.path)
    if found.compression is not None:
        return False
    return item.kind != "text" or (
        found.encoding == "utf-8" and StreamEncoder(tokenizer, disallowed_special=()).cuts
    )


def pieces_of(item: Input, unit: Unit, tokenizer: Tokenizer[Any]) -> Iterator[Piece]:
    """Cut a unit into pieces of about 2 MiB."""
    stops = _text_stops(item, tokenizer) if item.kind == "text" else _line_stops(unit)
    start = unit.start
    for number, stop in enumerate(stops):
        yield Piece(unit, number, start, stop, stop == unit.end)
        start = stop


def _line_stops(unit: Unit) -> Iterator[int]:
    yield from range(unit.start + SIZE, unit.end, SIZE)
    yield unit.end


def _text_stops(item: Input, tokenizer: Tokenizer[Any]) -> Iterator[int]:
    """Where the ids of what comes before are certain; where that is nowhere, too far."""
    cut = cut_near(tokenizer)
    with Path(item.path).open("rb", buffering=0) as file:
        at = SIZE
        last = 0
        while at < item.size:
            if (found := cut(file, at)) > last:
                yield found
                last = found
            elif at - last > _FARTHEST:
                break
            at += SIZE
    yield item.size


def do_piece(runner: UnitRunner, piece: Piece) -> PieceResult:
    """Read and encode a piece."""
    item = runner.inputs[piece.unit.input]
    out = PieceResult(piece, runner.options["dtype"], Path(runner.folder, "units"))
    stretch = Unit(piece.unit.index, piece.unit.input, piece.start, piece.stop)
    with (
        error_context("tokenizing", path=item.path, start=piece.start, end=piece.stop),
        convert_errors(path=item.path),
    ):
        work = UnitWork(runner, item, stretch, out, tick=None)
        if item.kind != "text":
            work.do()
        elif piece.stop - piece.start > 2 * _FARTHEST or not work.do_stretch(piece.is_last):
            out.is_odd = True
        out.seconds = work.seconds()
    return out

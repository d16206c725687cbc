"""Units done by the threads of this process, and written to the corpus as they come.

A unit that can be cut is done in pieces, by all threads, and its ids are written once: to the end
of the final file. Only what cannot be cut, or comes before its turn, takes a file of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rustllm.corpus.pieces import Piece, PieceResult, do_piece, is_divisible, pieces_of
from rustllm.corpus.plan import Unit
from rustllm.corpus.unit_file import UnitWriter, unit_path, write_unit
from rustllm.corpus.units import UnitRunner
from rustllm.errors import RustLLMError, convert_error
from rustllm.parallel import parallel_map

if TYPE_CHECKING:
    from rustllm.corpus.joining import Joiner

__all__ = ["large_first", "stream_units"]

# Bytes of results that wait for others in memory; the rest waits on the disk.
_WAITING = 1 << 26


def large_first(units: list[Unit]) -> list[Unit]:
    """Return units in an order to do them in.

    Large ones first, so that none of them is the last one that everybody waits for; the rest as
    they are joined.
    """
    most = max((unit.end - unit.start for unit in units), default=0)
    return sorted(units, key=lambda unit: (2 * (unit.end - unit.start) <= most, unit.index))


def stream_units(
    runner: UnitRunner,
    units: list[Unit],
    joiner: Joiner,
    workers: int | None,
    mode: Literal["threads", "inline"],
) -> Iterator[dict[str, Any]]:
    """Do units, and yield what the journal has to say of each once it is on the disk.

    A unit that has been written to the corpus itself is lost unless the journal knows it before
    the next one is asked for.

    Parameters
    ----------
    units : list of Unit
        In their order.
    """
    whole: list[Unit] = []
    divisible: list[Unit] = []
    for unit in units:
        cut = is_divisible(runner.inputs[unit.input], unit, runner.tokenizer)
        (divisible if cut else whole).append(unit)

    def tasks() -> Iterator[Unit | Piece]:
        yield from large_first(whole)
        for unit in divisible:
            item = runner.inputs[unit.input]
            try:
                yield from pieces_of(item, unit, runner.tokenizer)
            except OSError as error:
                raise convert_error(error, path=item.path) or error from error

    def work(task: Unit | Piece) -> dict[str, Any] | PieceResult:
        return runner(task) if isinstance(task, Unit) else do_piece(runner, task)

    assembly = _Assembly(runner, divisible, joiner, inline=mode == "inline")
    results = parallel_map(
        work, tasks(), workers=workers, mode=mode, ordered=False, max_bytes=_WAITING
    )
    try:
        for result in results:
            if isinstance(result, PieceResult):
                yield from assembly.take(result)
            else:
                yield from assembly.settle()
                yield result
        yield from assembly.settle()
    except RustLLMError:
        results.close()
        yield from assembly.settle()  # what is whole is kept
        raise
    finally:
        results.close()
        assembly.close()


class _Assembly:
    """Puts the pieces of units together, in order."""

    def __init__(
        self, runner: UnitRunner, units: list[Unit], joiner: Joiner, *, inline: bool
    ) -> None:
        self._runner = runner
        self._joiner = joiner
        self._inline = inline
        self._turn = iter(units)
        self._waiting: dict[tuple[int, int], PieceResult] = {}
        self._n_waiting = 0
        self._unsettled: _Unsettled | None = None
        self._next()

    def _next(self) -> None:
        """Turn to the next unit."""
        self._unit = next(self._turn, None)
        self._number = 0
        self._stack = ExitStack()
        self._writer: UnitWriter | None = None
        self._finish: Callable[[], Callable[[], None]] | None = None
        self._seconds = {"read": 0.0, "encode": 0.0, "commit": 0.0, "join": 0.0}

    def take(self, result: PieceResult) -> Iterator[dict[str, Any]]:
        """Add a piece, and yield the entries of the units that are whole with it."""
        self._waiting[result.piece.unit.index, result.piece.number] = result
        self._n_waiting += result.nbytes
        if self._n_waiting > _WAITING:
            for other in self._waiting.values():
                other.spill()
            self._n_waiting = 0
        while self._unit is not None:
            found = self._waiting.pop((self._unit.index, self._number), None)
            if found is None:
                return
            self._n_waiting = max(self._n_waiting - found.nbytes, 0)
            if found.is_odd:  # the unit is not one for pieces
                self._take_back()
                yield from self.settle()
                yield self._runner(self._unit)
            else:
                self._add(self._unit, found)
                self._number += 1
                if not found.piece.is_last:
                    continue
                yield from self._commit(self._unit)
            self._next()
            self._forget()

    def settle(self) -> Iterator[dict[str, Any]]:
        """Yield the entry of the unit that may not have been on the disk yet, once it is."""
        unsettled, self._unsettled = self._unsettled, None
        if unsettled is not None:
            started = time.perf_counter()
            unsettled.wait()
            unsettled.entry["seconds"]["commit"] += time.perf_counter() - started
            yield unsettled.entry

    def _add(self, unit: Unit, result: PieceResult) -> None:
        started = time.perf_counter()
        try:
            self._write(unit, result)
        except OSError as error:
            raise convert_error(error, path=self._runner.folder) or error from error
        finally:
            result.close()
        for name, seconds in result.seconds.items():
            self._seconds[name] += seconds
        self._seconds["join"] += time.perf_counter() - started
        if self._runner.tick is not None:
            self._runner.tick(unit.index, result.piece.stop - unit.start)

    def _write(self, unit: Unit, result: PieceResult) -> None:
        if self._writer is None:
            if self._joiner.next == unit.index:
                self._writer, self._finish = self._stack.enter_context(self._joiner.direct())
            else:  # others have to be joined before
                path = unit_path(Path(self._runner.folder), unit.index)
                dtype = self._runner.options["dtype"]
                self._writer = self._stack.enter_context(write_unit(path, dtype))
                self._finish = None
        self._writer.absorb(result, result.blocks)

    def _commit(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """End a unit; the one before it is settled, and this one waits for the next."""
        item = self._runner.inputs[unit.input]
        writer = self._writer
        assert writer is not None
        if item.kind == "text":
            writer.add_lengths([writer.count["tokens"]], 0)
        self._runner.require_unchanged(item)
        yield from self.settle()
        if self._finish is None:
            started = time.perf_counter()
            facts = writer.finish(self._runner.fingerprint, unit.index)
            self._stack.close()
            self._seconds["commit"] += time.perf_counter() - started
            yield {**facts, "seconds": self._seconds}
            return
        entry = {**writer.facts(unit.index), "seconds": self._seconds}
        sync = self._finish()
        self._stack.close()
        self._unsettled = _Unsettled(entry, sync)
        if self._inline:
            yield from self.settle()

    def _forget(self) -> None:
        """Let go of pieces whose unit has been done without them."""
        index = float("inf") if self._unit is None else self._unit.index
        for key in [key for key in self._waiting if key[0] < index]:
            self._waiting.pop(key).close()

    def _take_back(self) -> None:
        stop = _TakenBackError()
        with suppress(_TakenBackError):
            if not self._stack.__exit__(_TakenBackError, stop, None):
                raise stop
        self._writer = None

    def close(self) -> None:
        """Take back the unit that is not whole, and let go of all pieces."""
        self._take_back()
        if self._unsettled is not None:
            with suppress(RustLLMError, OSError):
                self._unsettled.wait()
        for result in self._waiting.values():
            result.close()


class _Unsettled:
    """A unit that is on its way to the disk while the next one is written."""

    def __init__(self, entry: dict[str, Any], sync: Callable[[], None]) -> None:
        self.entry = entry
        self._sync = sync
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="rustllm-sync")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._sync()
        except OSError as error:
            self._error = error

    def wait(self) -> None:
        """Wait until it is there; FileAccessError if that failed."""
        self._thread.join()
        if self._error is not None:
            raise convert_error(self._error) or self._error


class _TakenBackError(Exception):
    """Raised within a unit's file to have it removed."""

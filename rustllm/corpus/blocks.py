"""The lines that begin in a range of a file, many at a time in one buffer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rustllm.corpus.plan import Input, Unit
from rustllm.errors import MemoryLimitError

__all__ = ["MAX_LINE", "line_blocks"]

MAX_LINE = 1 << 26
_ROOM = 1 << 20


def line_blocks(item: Input, unit: Unit) -> Iterator[tuple[bytearray, int, int, int]]:
    """Yield stretches of whole lines of a unit.

    Parameters
    ----------
    item, unit
        The file, and the range in which the lines begin.

    Yields
    ------
    buffer : bytearray
        Belongs to the caller up to the next stretch.
    offset : int
        Of the first byte of `buffer` in the file, decompressed.
    start, stop : int
        Where the lines are in it: they end with a line feed, the last of a file perhaps without.

    Raises
    ------
    MemoryLimitError
        A line of more than 64 MiB.

    Notes
    -----
    Memory is that of a block, 1 MiB, or twice the longest line.
    """
    with _opened(item, unit) as stream:
        buffer = bytearray(_ROOM)
        held = 0  # bytes at the beginning of the buffer, of a line that has not ended yet
        # What comes before the first line end belongs to the unit before.
        skipping = unit.start > 0
        offset = unit.start - 1 if skipping else 0
        end = None if _is_whole(item, unit) else unit.end
        while True:
            got = stream.readinto(memoryview(buffer)[held:]) or 0
            filled = held + got
            newline = buffer.rfind(b"\n", held, filled)
            if newline < 0 and got:
                held = filled
                if skipping:
                    offset, held = offset + filled, 0
                elif filled > MAX_LINE:
                    raise MemoryLimitError(
                        f"a line is longer than {MAX_LINE} bytes", path=item.path, offset=offset
                    )
                elif filled == len(buffer):
                    buffer = _grown(buffer)
                continue
            start, stop = 0, newline + 1 if got else filled
            if skipping:
                start = buffer.find(b"\n", 0, stop) + 1
                if start == 0:
                    return
                skipping = False
            is_last = not got
            if end is not None and offset + stop >= end:
                if offset + start >= end:
                    return
                # The last line is the one behind which the range ends.
                found = buffer.find(b"\n", max(end - 1 - offset, start), stop)
                if found >= 0:
                    stop, is_last = found + 1, True
            if start == 0 and offset == 0 and buffer.startswith(b"\xef\xbb\xbf", 0, stop):
                start = 3
            if start < stop:
                yield buffer, offset, start, stop
            if is_last:
                return
            held = filled - stop
            view = memoryview(buffer)
            view[:held] = view[stop:filled]
            view.release()
            offset += stop


def _grown(buffer: bytearray) -> bytearray:
    larger = bytearray(2 * len(buffer))
    larger[: len(buffer)] = buffer
    return larger


def _is_whole(item: Input, unit: Unit) -> bool:
    return unit.start == 0 and unit.end == item.size


@contextmanager
def _opened(item: Input, unit: Unit) -> Iterator[Any]:
    if _is_whole(item, unit):  # only these may be compressed
        from rustllm.loaders.sources import open_bytes

        with open_bytes(item.path) as (stream, compression):
            if compression is not None:
                yield stream
                return
    with Path(item.path).open("rb", buffering=0) as file:
        if unit.start:
            file.seek(unit.start - 1)
        yield file

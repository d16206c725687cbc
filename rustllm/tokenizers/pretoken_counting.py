"""Count the pretokens of files and of strings, with several threads.

A training run over terabytes is cut into pieces with this: count each part, on any machine, save
the counts, load and add them up, train from the sum.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rustllm._core import pretoken_counts as _core
from rustllm._core import split as _split
from rustllm._optional import need
from rustllm.errors import (
    ArgumentError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
)

__all__ = ["STRETCHES", "Progress", "TextCounts"]

Progress = Callable[[str, int, int], object]

# Patterns that no tokenizer has: where words end for certain, whatever cuts them further.
STRETCHES = {
    "<spaces>": _core.SPACE_STRETCHES,
    "<whitespace>": _core.WHITESPACE_STRETCHES,
}
_BLOCK = 1 << 16
_MOST_CHUNK = 16 * _BLOCK
_STRINGS_AT_ONCE = 1024
_CHECKPOINT_BYTES = 1 << 28


class TextCounts:
    """How often each distinct pretoken of a body of text occurs.

    Parameters
    ----------
    pattern : str or None
        Name of a splitting pattern (`rustllm._core.split.NAMES`), or a regular expression, for
        which the `regex` package is needed; None does not split lines at all.
    num_threads : int, optional
        Threads to count with; all cores by default. The counts do not depend on it.

    Attributes
    ----------
    sources : list of (str, int)
        Files counted so far, with their sizes in bytes.

    Notes
    -----
    One thread at a time may call the methods. Memory is that of the distinct pretokens plus a few
    megabytes a thread, whatever the size of the text.

    Examples
    --------
    >>> counts = TextCounts("gpt2")
    >>> counts.add(["so it goes", "so it is"])
    >>> dict(counts.items())[b" it"]
    2
    """

    def __init__(self, pattern: str | None = "gpt2", num_threads: int | None = None) -> None:
        if num_threads is not None and num_threads < 1:
            raise ArgumentError(f"num_threads must be at least 1, got {num_threads}")
        self.pattern = pattern
        self.num_threads = num_threads or _n_cores()
        self.sources: list[tuple[str, int]] = []
        self.counts = _core.PretokenCounts()
        self._splitter = _core.WHOLE_LINES
        self._expression: Any = None
        if pattern in STRETCHES:
            self._splitter = STRETCHES[pattern]
        elif pattern is not None:
            named = pattern_name(pattern)
            if named is not None:
                self._splitter = _split.pattern_id(named)
            else:
                self._expression = _compile(pattern)

    def __len__(self) -> int:
        return len(self.counts)

    def items(self) -> list[tuple[bytes, int]]:
        """All pretokens with their counts, sorted by their bytes."""
        return self.counts.items()

    # -- counting -------------------------------------------------------------------------------

    def add(self, texts: Iterable[str], progress: Progress | None = None) -> None:
        """Count each of `texts`, split whole (a line end is no border).

        Parameters
        ----------
        texts : iterable of str
        progress : callable, optional
            Called as ``progress("count", n_texts_done, 0)``.
        """
        if isinstance(texts, str):
            raise ArgumentError("texts must be an iterable of str, not a str", hint="use a list")
        iterator = iter(texts)
        done = 0

        def next_batch() -> list[str] | None:
            nonlocal done
            batch = list(islice(iterator, _STRINGS_AT_ONCE))
            for i, text in enumerate(batch):
                if not isinstance(text, str):
                    raise ArgumentError(
                        f"text {done + i} is a {type(text).__name__}, not a str", key=done + i
                    )
            done += len(batch)
            return batch or None

        def count(thread: _core.CountingThread, batch: list[str]) -> None:
            if self._expression is not None:
                self._count_with_expression(batch)
                return
            try:
                thread.count_strings(batch)
            except UnicodeEncodeError as error:
                raise ArgumentError(f"a text holds a lone surrogate: {error}") from None

        self._run(next_batch, count, lambda: progress and progress("count", done, 0))

    def add_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        progress: Progress | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        """Count files of UTF-8 text line by line, each line with its line end.

        Parameters
        ----------
        paths : iterable of path
        progress : callable, optional
            Called as ``progress("count", n_bytes_done, n_bytes)``.
        checkpoint : path, optional
            A count file. If it exists it is loaded, and the files counted in it are passed over;
            it is written anew after every 256 MB and at the end.

        Raises
        ------
        FileMissingError, FileAccessError
            A file cannot be read.
        FileFormatError
            A file is not UTF-8 (``path`` and ``offset`` say where), or the checkpoint is damaged.

        Notes
        -----
        Time is linear in the size of the files, memory bounded by the distinct pretokens and the
        longest stretch without a line end or, with a named pattern, without a sure border.
        """
        if isinstance(paths, str | os.PathLike):
            raise ArgumentError("paths must be an iterable of paths", hint="use a list")
        if checkpoint is not None and Path(checkpoint).exists():
            self.merge(TextCounts.load(checkpoint))
        done_before = set(self.sources)
        todo = [(os.fspath(path), _size_of(path)) for path in paths]
        if checkpoint is not None:
            todo = [source for source in todo if source not in done_before]
        total = sum(size for _, size in todo)
        done = 0
        group: list[tuple[str, int]] = []
        for i, source in enumerate(todo):
            group.append(source)
            size = sum(size for _, size in group)
            if i + 1 < len(todo) and (checkpoint is None or size < _CHECKPOINT_BYTES):
                continue
            self._add_file_group(group, done, total, progress)
            self.sources += group
            done += size
            group = []
            if checkpoint is not None:
                self.save(checkpoint)

    def _add_file_group(
        self, group: list[tuple[str, int]], before: int, total: int, progress: Progress | None
    ) -> None:
        blocks = sum(size for _, size in group) // (4 * self.num_threads * _BLOCK)
        chunk = min(max(blocks, 1) * _BLOCK, _MOST_CHUNK)
        stretches = (
            (path, start, min(start + chunk, size), size)
            for path, size in group
            for start in range(0, size, chunk)
        )
        done = before
        # The longest part known to hold no cut, so that a line across many stretches is not read
        # again for each of them.
        solid = ("", 0, 0)

        def next_stretch() -> tuple[str, int, int, int] | None:
            nonlocal done
            for stretch in stretches:
                done += stretch[2] - stretch[1]
                if not (
                    stretch[0] == solid[0] and solid[1] <= stretch[1] and stretch[2] <= solid[2]
                ):
                    return stretch
            return None

        def count(thread: _core.CountingThread, stretch: tuple[str, int, int, int]) -> None:
            nonlocal solid
            path, _, end, _ = stretch
            data, at = _read_stretch(*stretch, self._splitter >= 0)
            if at + len(data) - end > chunk:
                solid = (path, end, at + len(data))
            if self._expression is None:
                bad = thread.count_bytes(data)
            else:
                bad = -1
                try:
                    self._count_with_expression(_lines(bytes(data).decode("utf-8")))
                except UnicodeDecodeError as error:
                    bad = error.start
            if bad >= 0:
                raise FileFormatError("this is not UTF-8 text", path=stretch[0], offset=at + bad)

        self._run(next_stretch, count, lambda: progress and progress("count", done, total))

    def _count_with_expression(self, texts: Iterable[str]) -> None:
        counts: dict[str, int] = {}
        for text in texts:
            last = 0
            for found in self._expression.finditer(text):
                # what lies between two matches is a pretoken as well
                for piece in (text[last : found.start()], found.group()):
                    if piece:
                        counts[piece] = counts.get(piece, 0) + 1
                last = found.end()
            if last < len(text):
                counts[text[last:]] = counts.get(text[last:], 0) + 1
        for piece, count in counts.items():
            self.counts.add_pretoken(piece.encode("utf-8"), count)

    def _run(
        self,
        next_piece: Callable[[], Any],
        count: Callable[[_core.CountingThread, Any], None],
        report: Callable[[], object],
    ) -> None:
        """Have all threads take pieces and count them; the first error stops all."""
        take = threading.Lock()
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                thread = _core.CountingThread(self.counts, self._splitter, number * 7)
                while not failures:
                    with take:
                        piece = next_piece()
                    if piece is None:
                        break
                    count(thread, piece)
                    if number == 0:
                        report()
                thread.flush()
            except BaseException as error:
                failures.append(error)

        # A regular expression holds the GIL and counts into the shared tables itself.
        n_threads = 1 if self._expression is not None else self.num_threads
        others = [threading.Thread(target=work, args=(i,)) for i in range(1, n_threads)]
        for other in others:
            other.start()
        try:
            work(0)
        finally:
            for other in others:
                other.join()
        if failures:
            raise failures[0]
        report()

    # -- parts of a whole -------------------------------------------------------------------------

    def merge(self, other: TextCounts) -> None:
        """Add the counts of `other`, which must have been split by the same pattern.

        Raises
        ------
        ArgumentError
            The patterns differ.
        """
        if other.pattern != self.pattern:
            raise ArgumentError(
                f"counts by pattern {other.pattern!r} cannot be added to counts by {self.pattern!r}"
            )
        self.counts.add_items(other.items())
        self.sources += other.sources

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a count file; the same counts always give the same bytes."""
        from rustllm.tokenizers.count_file import CountFile, write_count_file

        write_count_file(path, CountFile(self.pattern, self.sources, self.items()))

    @classmethod
    def load(cls, path: str | os.PathLike[str], num_threads: int | None = None) -> TextCounts:
        """Read a count file.

        Raises
        ------
        FileMissingError, FileAccessError
            The file cannot be read.
        FileFormatError
            It is no count file, of another version, cut short or damaged.
        """
        from rustllm.tokenizers.count_file import read_count_file

        content = read_count_file(path)
        counts = cls(content.pattern, num_threads)
        counts.counts.add_items(content.items)
        counts.sources = content.sources
        return counts


def pattern_name(pattern: str) -> str | None:
    """Name of the splitter for `pattern`, a name or one of the known expressions."""
    if pattern in _split.NAMES:
        return pattern
    for name, expressions in _split.EXPRESSIONS.items():
        if expressions == (pattern,):
            return name
    return None


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _compile(expression: str) -> Any:
    known = ", ".join(_split.NAMES)
    regex = need("regex", "regex", f"{expression!r} is none of {known}, and others need")
    try:
        return regex.compile(expression)
    except regex.error as error:
        raise ArgumentError(f"the pattern is no regular expression: {error}") from error


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _size_of(path: str | os.PathLike[str]) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError as error:
        raise FileMissingError("no such file", path=path) from error
    except OSError as error:
        raise FileAccessError(str(error), path=path, errno=error.errno) from error


def _read_stretch(
    path: str, start: int, end: int, size: int, at_pretokens: bool
) -> tuple[memoryview, int]:
    """Read the lines (or sure pretokens) that start in [start, end); also where they start.

    `start` is a multiple of _BLOCK, so that neighbouring stretches agree on their cuts.
    """
    first = max(start - 1, 0)
    want = min(end + _BLOCK + 16, size) - first
    data = bytearray()
    try:
        with Path(path).open("rb", buffering=0) as file:
            file.seek(first)
            while True:
                data += _read(file, want - len(data))
                at_end = len(data) < want or first + len(data) >= size
                begin = stop = 0
                if start > 0:
                    begin = _core.line_cut(data, start - first, _BLOCK, at_pretokens, at_end)
                if end < size:
                    stop = _core.line_cut(data, end - first, _BLOCK, at_pretokens, at_end)
                elif at_end:
                    stop = len(data)
                if begin >= end - first and end < size:
                    return memoryview(b""), first + begin
                if begin >= 0 and stop >= 0:
                    return memoryview(data)[begin : max(begin, stop)], first + begin
                want = min(2 * len(data) + _BLOCK, size - first)
    except OSError as error:
        raise FileAccessError(str(error), path=path, errno=error.errno) from error


def _read(file: Any, n: int) -> bytearray:
    """Read `n` bytes, fewer only at the end of the file."""
    data = bytearray(n)
    view = memoryview(data)
    got = 0
    while got < n:
        more = file.readinto(view[got:])
        if not more:
            break
        got += more
    view.release()
    del data[got:]
    return data

"""Joining units into the files of a corpus while others are still under way.

Units are appended, in their order, to three files beside the corpus. Once these are on the disk
the units are removed, so that a corpus takes its own size and no more. Nothing has to be remembered
for a resumed run: what the files hold is compared with the checksums in the journal, unit by unit,
which the hash of the final file needs to read anyway.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rustllm.corpus.formats import FORMATS, npy_header, write_ids, write_megatron_index
from rustllm.corpus.plan import Plan
from rustllm.corpus.unit_file import PARTS, UnitFile, UnitWriter, copy_checked, unit_path
from rustllm.corpus.writer import hashed
from rustllm.errors import RustLLMError, convert_error
from rustllm.serialize.atomic import sync_folder

__all__ = ["Joiner"]

# Bytes after which what is joined is flushed to the disk, and its units removed.
STEP = 1 << 26
_NAMES = {"ids": ".ids.part", "lengths": ".lengths.part", "failures": ".failures.part"}
_BLOCK = 1 << 20


class Joiner:
    """Appends the units of a plan as they are done.

    Parameters
    ----------
    folder : Path
    plan : Plan
    entries : dict
        What the journal says of each unit; read as it grows.
    redo : callable
        Does a unit again whose file turns out to be damaged: called with its index and the error.

    Attributes
    ----------
    next : int
        The first unit that is not joined. Those before it need no file any more.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        entries: dict[int, dict[str, Any]],
        redo: Callable[[int, RustLLMError], None],
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._entries = entries
        self._redo = redo
        self._format = plan.options["format"]
        self._start = len(npy_header(plan.options["dtype"], 0)) if self._format == "npy" else 0
        self._final = folder / FORMATS[self._format]
        self.next = 0
        self._kept = 0  # the first unit whose file is still there
        self._since = 0  # bytes that are not flushed
        self._digest = hashlib.sha256()
        self._ends = {"ids": self._start, "lengths": 0, "failures": 0}
        if self._final.exists():  # it had its name already when the run was stopped
            self._final.replace(folder / _NAMES["ids"])
        self._files: dict[str, Any] = {}
        try:
            for name in PARTS:
                path = folder / _NAMES[name]
                self._files[name] = path.open("r+b" if path.exists() else "w+b", buffering=0)
            sync_folder(folder)
            self._recover()
        except OSError as error:
            self.close()
            raise convert_error(error, path=folder) or error from error

    # ---- what an earlier run joined ----

    def _recover(self) -> None:
        for file in self._files.values():
            file.seek(0)
        self._files["ids"].seek(self._start)
        while self.next < len(self._plan.units) and self._is_joined(self.next):
            self.next += 1
        self._truncate()

    def _is_joined(self, index: int) -> bool:
        entry = self._entries.get(index)
        if entry is None:
            return False
        digest = self._digest.copy()
        try:
            for name in PARTS:
                take = digest.update if name == "ids" else len
                copy_checked(self._files[name], entry["size"][name], entry["crc"][name], take, name)
        except (RustLLMError, KeyError, TypeError):
            return False
        self._digest = digest
        for name in PARTS:
            self._ends[name] += entry["size"][name]
        return True

    def _truncate(self) -> None:
        for name, file in self._files.items():
            file.seek(self._ends[name])
            file.truncate()

    # ---- going on ----

    def advance(self) -> None:
        """Append every unit that can be, in order.

        Raises
        ------
        FileAccessError
            The disk is full, for example.
        RustLLMError
            A unit is damaged, and was so again when it had been done anew.
        """
        try:
            while self.next in self._entries:
                try:
                    self._append(self.next)
                except RustLLMError as error:
                    self._truncate()
                    self._redo(self.next, error)
                    self._append(self.next)
                self.next += 1
                if self._since >= STEP:
                    self._flush()
        except OSError as error:
            raise convert_error(error, path=self._folder) or error from error

    def _append(self, index: int) -> None:
        digest = self._digest.copy()
        with UnitFile(unit_path(self._folder, index)) as unit:
            sizes = unit.facts["size"]

            def take(block: memoryview) -> None:
                digest.update(block)
                write_all(self._files["ids"], block)

            unit.copy("ids", take)
            for name in PARTS[1:]:
                unit.copy(name, lambda block, name=name: write_all(self._files[name], block))  # type: ignore[misc]
        self._digest = digest
        for name in PARTS:
            self._ends[name] += sizes[name]
            self._since += sizes[name]

    def _flush(self) -> None:
        for file in self._files.values():
            os.fsync(file.fileno())
        self._since = 0
        for index in range(self._kept, self.next):
            unit_path(self._folder, index).unlink(missing_ok=True)
        self._kept = self.next

    # ---- a unit that is written here at once ----

    @contextmanager
    def direct(self) -> Iterator[tuple[UnitWriter, Callable[[], Callable[[], None]]]]:
        """Write the unit whose turn it is without a file of its own.

        Yields
        ------
        writer : UnitWriter
        finish : callable
            Ends the unit, without which it is taken back, and returns a function that waits until
            it is on the disk. Then the journal may know it; before, a crash loses it.
        """
        digest = self._digest.copy()
        files = self._files
        done = False
        writer = UnitWriter(
            _Appended(files["ids"], digest),
            {name: _Appended(files[name]) for name in PARTS[1:]},
            self._plan.options["dtype"],
        )

        def sync() -> None:
            for name in PARTS:
                if writer.size[name]:
                    os.fsync(files[name].fileno())

        def finish() -> Callable[[], None]:
            nonlocal done
            for name in PARTS:
                self._ends[name] += writer.size[name]
            self._digest = digest
            self.next += 1
            done = True
            return sync

        try:
            yield writer, finish
        finally:
            if not done:
                self._truncate()

    # ---- the end ----

    def finish(self, n_tokens: int, n_documents: int) -> dict[str, Any]:
        """Give the files their final form and names; return their sizes and hashes."""
        options = self._plan.options
        files: dict[str, Any] = {}
        ids = self._files["ids"]
        if self._format == "npy":
            ids.seek(0)
            header = npy_header(options["dtype"], n_tokens)
            write_all(ids, memoryview(header))
            self._digest = hashlib.sha256()
            ids.seek(0)
            while block := ids.read(_BLOCK):
                self._digest.update(block)
        if options["format"] == "megatron":
            with hashed(self._folder / "tokens.idx", files) as file:
                write_megatron_index(file, options["dtype"], n_documents, self._lengths)
        else:
            with hashed(self._folder / "lengths.npy", files) as file:
                write_ids(file, "npy", "uint32", n_documents, self._lengths())
        if options["on_error"] == "quarantine":
            with hashed(self._folder / "failed.jsonl", files) as file:
                self._files["failures"].seek(0)
                while block := self._files["failures"].read(_BLOCK):
                    file.write(block)
        os.fsync(ids.fileno())
        size = os.fstat(ids.fileno()).st_size
        self.close()
        (self._folder / _NAMES["ids"]).replace(self._final)
        sync_folder(self._folder)
        files[self._final.name] = {"bytes": size, "sha256": self._digest.hexdigest()}
        return files

    def _lengths(self) -> Iterator[Any]:
        file = self._files["lengths"]
        file.seek(0)
        while block := file.read(_BLOCK):  # a regular file gives what is asked for
            yield np.frombuffer(block, "<u4")

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


class _Appended:
    """The end of a file, to be written to, and hashed on the way."""

    def __init__(self, file: io.FileIO, digest: Any = None) -> None:
        self._file = file
        self._digest = digest

    def write(self, data: Any) -> None:
        if self._digest is not None:
            self._digest.update(data)
        write_all(self._file, memoryview(data))


def part_files(folder: Path) -> Iterator[Path]:
    """Files that only an unfinished corpus has."""
    for name in _NAMES.values():
        yield folder / name


def write_all(file: io.FileIO, data: memoryview) -> None:
    """Write all of `data`, however little the system takes at a time."""
    while len(data):
        data = data[file.write(data) :]

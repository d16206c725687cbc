"""Doing again, in a finished corpus, the units whose bytes are not those that were written.

A finished corpus keeps what its journal said of every unit. So the damage is found unit by unit,
and what has to be done is exactly what is damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm.corpus.formats import FORMATS, MEGATRON_HEAD, npy_header, write_megatron_index
from rustllm.corpus.journal import is_entry
from rustllm.corpus.lock import locked
from rustllm.corpus.manifest import read_manifest
from rustllm.corpus.plan import Plan, Unit, tokenizer_fingerprint
from rustllm.corpus.unit_file import UnitFile, copy_checked, unit_path
from rustllm.corpus.units import UnitRunner
from rustllm.corpus.writer import hashed
from rustllm.errors import (
    FileMissingError,
    HashMismatchError,
    RustLLMError,
    StateError,
    convert_errors,
)

if TYPE_CHECKING:
    from rustllm.traits import Tokenizer
    from rustllm.types import PathLikeStr

__all__ = ["UNITS", "repair", "unit_lines"]

UNITS = "units.jsonl"
_BLOCK = 1 << 20
_ANEW = "remove the folder and tokenize again"


def unit_lines(entries: dict[int, dict[str, Any]]) -> Iterator[bytes]:
    """What a finished corpus keeps of its journal, in the order of the units."""
    for index in sorted(entries):
        yield json.dumps(entries[index], sort_keys=True).encode() + b"\n"


@convert_errors()
def repair(
    folder: PathLikeStr, tokenizer: Tokenizer[Any], *, workers: int | None = None
) -> dict[str, Any]:
    """Do the damaged units of a finished corpus again, where they stand.

    Parameters
    ----------
    folder : path
        A corpus that `rustllm.corpus.tokenize` has finished.
    tokenizer : Tokenizer
        The one that it was made with.
    workers : int, optional
        Threads that do units.

    Returns
    -------
    dict
        ``units`` that were done again, and the names of the ``files`` that were damaged.

    Raises
    ------
    StateError
        The tokenizer is another one, an input changed, or the folder is not one that `tokenize`
        finished and that keeps what its units were.
    HashMismatchError
        A file is not what it was after all units that seemed damaged had been done again.
    FileMissingError, FileFormatError
        The manifest or the plan is missing or damaged.

    Notes
    -----
    Nothing is written to a corpus that is whole. A repair that is interrupted can be called again.
    Reads every damaged file twice; memory is that of a unit under way.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from rustllm import corpus
    >>> from rustllm.testing import ByteTokenizer
    >>> with tempfile.TemporaryDirectory() as name:
    ...     source, out = pathlib.Path(name, "in.txt"), pathlib.Path(name, "out")
    ...     _ = source.write_text("abc")
    ...     made = corpus.tokenize([source], out, ByteTokenizer(["<end>"]))
    ...     _ = (out / "tokens.bin").write_bytes(bytes(8))
    ...     corpus.repair(out, ByteTokenizer(["<end>"])), corpus.Corpus(out).ids.tolist()
    ({'units': 1, 'files': ['tokens.bin']}, [97, 98, 99, 256])
    """
    folder = Path(folder)
    with locked(folder):
        manifest = read_manifest(folder / "corpus.json")
        plan = _plan_of(folder, manifest, tokenizer)
        damaged = [
            name for name, facts in manifest["files"].items() if not _is(folder, name, facts)
        ]
        if not damaged:
            return {"units": 0, "files": []}
        return _Repair(folder, manifest, plan, tokenizer, sorted(damaged)).do(workers)


def _plan_of(folder: Path, manifest: dict[str, Any], tokenizer: Tokenizer[Any]) -> Plan:
    path = folder / "plan.json"
    if UNITS not in manifest["files"]:
        raise StateError(
            "the corpus does not keep what its units were: it was derived or merged, or made by an "
            "earlier version",
            path=folder,
            hint=_ANEW,
        )
    if not path.exists():
        raise FileMissingError("the plan of the corpus is missing", path=path, hint=_ANEW)
    plan = Plan.from_json(path.read_bytes(), path)
    if plan.fingerprint != manifest["plan"]:
        raise StateError("this is not the plan of the corpus", path=path, hint=_ANEW)
    if tokenizer_fingerprint(tokenizer) != manifest["tokenizer"]:
        raise StateError("the corpus was made with another tokenizer", path=folder)
    return plan


def _is(folder: Path, name: str, facts: dict[str, Any]) -> bool:
    """Whether a file is the one that was written."""
    path = folder / name
    if not path.is_file() or path.stat().st_size != facts["bytes"]:
        return False
    with path.open("rb") as file:
        return bool(hashlib.file_digest(file, "sha256").hexdigest() == facts["sha256"])


@dataclass
class _Repair:
    folder: Path
    manifest: dict[str, Any]
    plan: Plan
    tokenizer: Tokenizer[Any]
    damaged: list[str]

    def do(self, workers: int | None) -> dict[str, Any]:
        for name in self.damaged:
            with (self.folder / name).open("ab") as file:  # made, if it is missing
                file.truncate(self.manifest["files"][name]["bytes"])
        entries = None if UNITS in self.damaged else self._entries()
        units = self.plan.units
        todo = list(units) if entries is None else self._damaged_units(entries)
        (self.folder / "units").mkdir(exist_ok=True)
        found = {entry["unit"]: entry for entry in self._redo(todo, workers)}
        if entries is None:
            entries = found
        for index, entry in found.items():
            if entry != entries[index]:
                raise StateError(
                    f"unit {index} gives other ids than it gave when the corpus was made",
                    path=self.folder,
                    hint=_ANEW,
                )
        self._patch(entries, {unit.index for unit in todo})
        self._write_rest(entries)
        for name in self.damaged:
            if not _is(self.folder, name, self.manifest["files"][name]):
                raise HashMismatchError(
                    "the file is not what it was, and no unit is damaged",
                    path=self.folder / name,
                    hint=_ANEW,
                )
        for path in (self.folder / "units").iterdir():
            path.unlink()
        (self.folder / "units").rmdir()
        return {"units": len(todo), "files": self.damaged}

    def _entries(self) -> dict[int, dict[str, Any]]:
        entries: dict[int, dict[str, Any]] = {}
        with (self.folder / UNITS).open("rb") as file:
            for line in file:
                entry = json.loads(line)
                if not is_entry(entry):
                    raise StateError("this says nothing of a unit", path=self.folder / UNITS)
                entries[entry["unit"]] = entry
        if sorted(entries) != list(range(len(self.plan.units))):
            raise StateError("these are not the units of the plan", path=self.folder / UNITS)
        return entries

    # ---- where the units are in the final files ----

    def _places(self) -> dict[str, tuple[str, int]]:
        """The damaged file that has each part, and where the first unit begins in it."""
        options = self.plan.options
        name = FORMATS[options["format"]]
        head = len(npy_header(options["dtype"], 0)) if options["format"] == "npy" else 0
        places = {"ids": (name, head)}
        if options["format"] == "megatron":
            places["lengths"] = ("tokens.idx", MEGATRON_HEAD)
        else:
            places["lengths"] = ("lengths.npy", len(npy_header("uint32", 0)))
        places["failures"] = ("failed.jsonl", 0)
        return {part: place for part, place in places.items() if place[0] in self.damaged}

    def _damaged_units(self, entries: dict[int, dict[str, Any]]) -> list[Unit]:
        found = set()
        for part, (name, start) in self._places().items():
            with (self.folder / name).open("rb", buffering=0) as file:
                for unit in self.plan.units:
                    entry = entries[unit.index]
                    file.seek(start)
                    try:
                        copy_checked(file, entry["size"][part], entry["crc"][part], len, part)
                    except RustLLMError:
                        found.add(unit.index)
                    start += entry["size"][part]
        return [self.plan.units[index] for index in sorted(found)]

    def _redo(self, todo: list[Unit], workers: int | None) -> Iterator[dict[str, Any]]:
        from rustllm.parallel import parallel_map

        plan = self.plan
        runner = UnitRunner(
            os.fspath(self.folder), plan.fingerprint, plan.inputs, plan.options, self.tokenizer
        )
        with parallel_map(runner, todo, workers=workers, ordered=False) as results:
            for entry in results:
                yield {name: value for name, value in entry.items() if name != "seconds"}

    def _patch(self, entries: dict[int, dict[str, Any]], redone: set[int]) -> None:
        for part, (name, start) in self._places().items():
            with (self.folder / name).open("r+b", buffering=0) as file:
                for index in sorted(entries):
                    if index in redone:
                        file.seek(start)
                        with UnitFile(unit_path(self.folder, index)) as unit:
                            unit.copy(part, file.write)
                    start += entries[index]["size"][part]
                os.fsync(file.fileno())

    def _write_rest(self, entries: dict[int, dict[str, Any]]) -> None:
        """What the files have beside the units."""
        options, n_documents = self.plan.options, self.manifest["documents"]
        heads = {"lengths.npy": npy_header("uint32", n_documents)}
        if options["format"] == "npy":
            heads["tokens.npy"] = npy_header(options["dtype"], self.manifest["tokens"])
        for name in self.damaged:
            if name in heads:
                with (self.folder / name).open("r+b", buffering=0) as file:
                    file.write(heads[name])
                    os.fsync(file.fileno())
        if "tokens.idx" in self.damaged:
            with hashed(self.folder / "tokens.idx", {}) as out:
                write_megatron_index(out, options["dtype"], n_documents, self._lengths)
        if UNITS in self.damaged:
            with hashed(self.folder / UNITS, {}) as out:
                for line in unit_lines(entries):
                    out.write(line)

    def _lengths(self) -> Iterator[Any]:
        left = 4 * int(self.manifest["documents"])
        with (self.folder / "tokens.idx").open("rb") as file:
            file.seek(MEGATRON_HEAD)
            while left and (block := file.read(min(left, _BLOCK))):
                left -= len(block)
                yield np.frombuffer(block, "<u4")

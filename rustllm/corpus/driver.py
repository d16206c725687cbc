"""Running a plan: units in parallel, each committed alone, then joined into the final files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rustllm.corpus.journal import Journal
from rustllm.corpus.plan import Plan, Unit, make_plan
from rustllm.corpus.units import UnitRunner, summary, unit_path
from rustllm.corpus.writer import hashed, write_data, write_manifest
from rustllm.errors import RustLLMError, StateError
from rustllm.serialize import atomic_write, load

if TYPE_CHECKING:
    from rustllm.corpus.reader import Corpus
    from rustllm.traits import Tokenizer
    from rustllm.types import PathLikeStr

__all__ = ["Scheduler", "tokenize"]

Progress = Callable[[dict[str, Any]], object]

# Does units somewhere and yields what the journal is to say of each, in any order. A unit may be
# done twice: its file is written under another name and renamed, with the same bytes.
Scheduler = Callable[[UnitRunner, list[Unit]], Iterable[dict[str, Any]]]


def tokenize(
    inputs: Iterable[PathLikeStr],
    output: PathLikeStr,
    tokenizer: Tokenizer[Any],
    *,
    kind: str | None = None,
    field: str = "text",
    format: str = "bin",
    end_token: int | str | None = "auto",
    dtype: str | None = None,
    unit_bytes: int = 16 << 20,
    on_error: str = "raise",
    workers: int | None = None,
    mode: Literal["threads", "processes", "inline"] = "threads",
    progress: Progress | None = None,
    scheduler: Scheduler | None = None,
) -> Corpus:
    """Tokenize files into a folder, going on where an earlier call was stopped.

    Parameters
    ----------
    inputs : iterable of path
        Files, or folders whose files are taken in the order of their names.
    output : path
        Folder for the corpus; made if it is missing.
    tokenizer : Tokenizer
    kind : {"text", "lines", "jsonl", "json", "csv", "tsv", "parquet", "arrow"}, optional
        A document a file, a line, or a record; by default records where the content is that, else
        a file.
    field : str
        Name of the text in a record: a key, or a column.
    format : {"bin", "npy", "megatron"}
    end_token : int, str or None
        Id or special token to put after every document; "auto" takes the tokenizer's own
        end-of-text token if it has one.
    dtype : str, optional
        Type of the ids; by default ``uint16`` where the vocabulary fits.
    unit_bytes : int
        Bytes of input a unit, which is what a crash can cost, times the number of workers.
    on_error : {"raise", "skip", "quarantine"}
        What becomes of a document that cannot be read: "quarantine" lists it in ``failed.jsonl``.
    workers : int, optional
    mode : {"threads", "processes", "inline"}
        As for `rustllm.parallel_map`. The output does not depend on either.
    progress : callable, optional
        Called with a dictionary after every unit: units, documents, tokens and bytes done.
    scheduler : callable, optional
        Does the units instead of `workers` and `mode`: called as ``scheduler(runner, units)``, it
        yields ``runner(unit)`` for each, in any order, from wherever that was called. The folder
        has to be the same for all who call it. `rustllm.integrations` has one for each engine.

    Returns
    -------
    Corpus

    Raises
    ------
    StateError
        The folder holds work of another plan (the message says what changed), another process
        works in it, or an input changed meanwhile.
    FileFormatError
        A document cannot be read, under "raise".
    FileAccessError
        The disk is full, for example. What is committed stays; call again to go on.

    Notes
    -----
    Every unit is written to a temporary file, flushed, renamed and then journalled, so a run that
    is killed at any moment loses the units under way and nothing else, and a resumed run ends with
    the bytes of an undisturbed one.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from rustllm import corpus
    >>> from rustllm.testing import ByteTokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source = pathlib.Path(folder, "in.jsonl")
    ...     _ = source.write_text('{"text": "ab"}\\n{"text": "c"}\\n')
    ...     made = corpus.tokenize([source], pathlib.Path(folder, "out"), ByteTokenizer(["<end>"]))
    ...     made.ids.tolist(), len(made)
    ([97, 98, 256, 99, 256], 2)
    """
    from rustllm.corpus.reader import Corpus

    plan = make_plan(
        inputs, tokenizer, kind=kind, field=field, format=format, end_token=end_token,
        dtype=dtype, unit_bytes=unit_bytes, on_error=on_error,
    )  # fmt: skip
    folder = Path(output)
    (folder / "units").mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _settle_plan(folder, plan)
        if not (folder / "corpus.json").exists():
            entries = _run_units(
                folder, plan, tokenizer, scheduler or _local(workers, mode), progress
            )
            _join(folder, plan, entries)
        _clean(folder)
    return Corpus(folder)


def _settle_plan(folder: Path, plan: Plan) -> None:
    path = folder / "plan.json"
    if path.exists():
        plan.require_same(Plan.from_json(path.read_bytes(), path), path)
        return
    with atomic_write(path) as file:
        file.write(plan.to_json().encode())


def _run_units(
    folder: Path,
    plan: Plan,
    tokenizer: Tokenizer[Any],
    scheduler: Scheduler,
    progress: Progress | None,
) -> dict[int, dict[str, Any]]:
    journal = Journal(folder / "journal.jsonl")
    try:
        todo = [unit for unit in plan.units if not _is_done(folder, plan, unit, journal)]
        runner = UnitRunner(
            os.fspath(folder), plan.fingerprint, plan.inputs, plan.options, tokenizer
        )
        # Large units first, so that none of them is the last one that everybody waits for.
        todo.sort(key=lambda unit: (unit.start - unit.end, unit.index))
        results = scheduler(runner, todo)
        try:
            for entry in results:
                journal.add(entry)
                if progress is not None:
                    progress(_progress(plan, journal))
        finally:
            if (close := getattr(results, "close", None)) is not None:
                close()
        if missing := [unit.index for unit in todo if unit.index not in journal.entries]:
            raise StateError(
                f"{len(missing)} units were not done, the first is {missing[0]}",
                path=folder,
                hint="call again: what is committed stays",
            )
        return journal.entries
    finally:
        journal.close()


def _local(workers: int | None, mode: Literal["threads", "processes", "inline"]) -> Scheduler:
    """Units in threads or processes of this machine."""

    def schedule(runner: UnitRunner, units: list[Unit]) -> Iterable[dict[str, Any]]:
        from rustllm.parallel import parallel_map

        return parallel_map(runner, units, workers=workers, mode=mode, ordered=False, max_items=64)

    return schedule


def _progress(plan: Plan, journal: Journal) -> dict[str, Any]:
    entries = journal.entries.values()
    done = [plan.units[index] for index in journal.entries]
    return {
        "units": len(done),
        "units_total": len(plan.units),
        "bytes": sum(unit.end - unit.start for unit in done),
        "bytes_total": sum(unit.end - unit.start for unit in plan.units),
        "documents": sum(entry["documents"] for entry in entries),
        "tokens": sum(entry["tokens"] for entry in entries),
        "failures": sum(entry["failures"] for entry in entries),
    }


def _is_done(folder: Path, plan: Plan, unit: Unit, journal: Journal) -> bool:
    """Whether a unit's file is there and whole; journals it if only the journal lacks it."""
    path = unit_path(folder, unit.index)
    if not path.exists():
        journal.entries.pop(unit.index, None)
        return False
    if unit.index in journal.entries:
        return True
    try:
        result = load(path)
        if result["plan"] != plan.fingerprint or result["unit"] != unit.index:
            return False
        journal.add(summary(unit.index, result))
    except (RustLLMError, KeyError, TypeError):
        return False  # torn or foreign: done again, and replaced
    return True


def _join(folder: Path, plan: Plan, entries: dict[int, dict[str, Any]]) -> None:
    """Write the final files out of the units, the manifest last."""
    options = plan.options
    total = {
        name: sum(entry[name] for entry in entries.values())
        for name in ("tokens", "documents", "text_bytes", "failures")
    }

    def parts(name: str) -> Iterator[Any]:
        for unit in plan.units:
            yield load(unit_path(folder, unit.index))[name]

    files = write_data(
        folder,
        options["format"],
        options["dtype"],
        total["tokens"],
        total["documents"],
        parts("ids"),
        lambda: parts("lengths"),
    )
    if options["on_error"] == "quarantine":
        with hashed(folder / "failed.jsonl", files) as file:
            for failures in parts("failures"):
                for failure in failures:
                    file.write(json.dumps(failure, sort_keys=True).encode() + b"\n")
    sources = [{"path": item.path, "bytes": 0, "tokens": 0, "documents": 0} for item in plan.inputs]
    for unit in plan.units:
        source, entry = sources[unit.input], entries[unit.index]
        source["bytes"] += entry["text_bytes"]
        source["tokens"] += entry["tokens"]
        source["documents"] += entry["documents"]
    manifest = {
        "version": 1,
        "plan": plan.fingerprint,
        "tokenizer": plan.tokenizer,
        "options": options,
        **total,
        "files": files,
        "sources": sources,
        "inputs": [asdict(item) for item in plan.inputs],
    }
    write_manifest(folder, manifest)


def _clean(folder: Path) -> None:
    """Remove what only an unfinished corpus needs."""
    for path in (folder / "units").iterdir():
        path.unlink()
    (folder / "units").rmdir()
    (folder / "journal.jsonl").unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        path.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder; the lock of a process that died is none."""
    path = folder / ".lock"
    with path.open("a+b") as file:
        try:
            import fcntl
        except ImportError:  # Windows: deleting an open file is refused there, which protects units
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateError("another process works in this folder", path=folder) from error
        yield  # the file stays: to remove it would let two others each lock one of their own

"""Running a plan: units in parallel, each committed alone, then joined into the final files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rustllm.corpus.joining import Joiner, part_files
from rustllm.corpus.journal import Journal
from rustllm.corpus.lock import locked
from rustllm.corpus.meter import Meter, Progress
from rustllm.corpus.plan import Plan, Unit, make_plan
from rustllm.corpus.repair import UNITS, unit_lines
from rustllm.corpus.streaming import large_first, stream_units
from rustllm.corpus.unit_file import read_whole, unit_path
from rustllm.corpus.units import UnitRunner
from rustllm.corpus.writer import hashed, write_manifest
from rustllm.errors import RustLLMError, StateError
from rustllm.log import get_logger
from rustllm.serialize import atomic_write

if TYPE_CHECKING:
    from rustllm.corpus.reader import Corpus
    from rustllm.traits import Tokenizer
    from rustllm.types import PathLikeStr

__all__ = ["Scheduler", "tokenize"]

_LOG = get_logger("rustllm.corpus")

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
    unit_bytes: int | None = None,
    on_error: str = "raise",
    walk_archives: bool = False,
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
    unit_bytes : int, optional
        Bytes of input a unit, which is what a crash can cost, times the number of workers. By
        default a 32nd of the input, from 1 to 16 MiB.
    on_error : {"raise", "skip", "quarantine"}
        What becomes of a document that cannot be read: "quarantine" lists it in ``failed.jsonl``.
    walk_archives : bool
        Take the files in a zip or tar (compressed or not) for inputs; an archive is refused
        otherwise. Each archive is a unit, its files in the archive's order, each of the kind that
        it is by its content and name, or of `kind`. Nothing is unpacked to a disk.
    workers : int, optional
    mode : {"threads", "processes", "inline"}
        As for `rustllm.parallel_map`. The output does not depend on either.
    progress : callable, optional
        Called with a dictionary after every unit, and twice a second while units of this process
        are under way: ``units``, ``documents``, ``tokens``, ``failures`` and ``bytes`` done,
        ``units_total`` and ``bytes_total``, ``seconds`` so far, ``bytes_per_second``,
        ``seconds_left``, the shares of time of the ``stages`` (read, encode, commit, join), and
        which of them is ``busiest``: what the others wait for. One call at a time, from any thread.
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
        dtype=dtype, unit_bytes=unit_bytes, on_error=on_error, walk_archives=walk_archives,
    )  # fmt: skip
    folder = Path(output)
    (folder / "units").mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _settle_plan(folder, plan)
        if not (folder / "corpus.json").exists():
            how = scheduler or _local(workers, mode)
            _run_units(folder, plan, tokenizer, how, progress)
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
    scheduler: Scheduler | _Streaming,
    progress: Progress | None,
) -> None:
    """Do what is not done yet, join it as it comes, and write the manifest."""
    runner = UnitRunner(os.fspath(folder), plan.fingerprint, plan.inputs, plan.options, tokenizer)
    journal = Journal(folder / "journal.jsonl")
    for index in [index for index in journal.entries if index >= len(plan.units)]:
        del journal.entries[index]
    joiner = None
    try:

        def redo(index: int, error: RustLLMError) -> None:
            _LOG.warning(
                "a unit was damaged after it had been committed and is done again",
                unit=index, path=unit_path(folder, index), reason=error.message,
            )  # fmt: skip
            journal.add(_without_seconds(runner(plan.units[index])))

        joiner = Joiner(folder, plan, journal.entries, redo)
        done = joiner.next
        todo = [unit for unit in plan.units[done:] if not _is_done(folder, plan, unit, journal)]
        meter = Meter(plan, journal, progress)
        watched = runner if progress is None else replace(runner, tick=meter.tick)
        if isinstance(scheduler, _Streaming):
            results = stream_units(watched, todo, joiner, scheduler.workers, scheduler.mode)
        else:
            results = iter(scheduler(watched, large_first(todo)))
        try:
            for entry in results:
                seconds = entry.pop("seconds", {})
                journal.add(entry)
                meter.add(entry, seconds)
                with meter.stage("join"):
                    joiner.advance()
                meter.tell()
        finally:
            if (close := getattr(results, "close", None)) is not None:
                close()
        if missing := [unit.index for unit in todo if unit.index not in journal.entries]:
            raise StateError(
                f"{len(missing)} units were not done, the first is {missing[0]}",
                path=folder,
                hint="call again: what is committed stays",
            )
        joiner.advance()
        _write_manifest(folder, plan, journal.entries, joiner)
    finally:
        journal.close()
        if joiner is not None:
            joiner.close()


def _without_seconds(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "seconds"}


@dataclass(frozen=True)
class _Streaming:
    """Threads of this process, which need no files between themselves and the corpus."""

    workers: int | None
    mode: Literal["threads", "inline"]


def _local(
    workers: int | None, mode: Literal["threads", "processes", "inline"]
) -> Scheduler | _Streaming:
    """Threads or processes of this machine."""
    if mode != "processes":
        return _Streaming(workers, mode)

    def schedule(runner: UnitRunner, units: list[Unit]) -> Iterable[dict[str, Any]]:
        from rustllm.parallel import parallel_map

        return parallel_map(runner, units, workers=workers, mode=mode, ordered=False, max_items=64)

    return schedule


def _is_done(folder: Path, plan: Plan, unit: Unit, journal: Journal) -> bool:
    """Whether a unit's file is there and whole; journals it if only the journal lacks it.

    A file that the journal knows is compared with its checksums when it is joined.
    """
    path = unit_path(folder, unit.index)
    if not path.exists():
        journal.entries.pop(unit.index, None)
        return False
    if unit.index in journal.entries:
        return True
    facts = read_whole(path, plan.fingerprint, unit.index)
    if facts is None:
        return False  # torn or foreign: done again, and replaced
    journal.add(facts)
    return True


def _write_manifest(
    folder: Path, plan: Plan, entries: dict[int, dict[str, Any]], joiner: Joiner
) -> None:
    """Write the final files and, last, what they are."""
    total = {
        name: sum(entry[name] for entry in entries.values())
        for name in ("tokens", "documents", "text_bytes", "failures")
    }
    files = joiner.finish(total["tokens"], total["documents"])
    sources = [{"path": item.path, "bytes": 0, "tokens": 0, "documents": 0} for item in plan.inputs]
    for unit in plan.units:
        source, entry = sources[unit.input], entries[unit.index]
        source["bytes"] += entry["text_bytes"]
        source["tokens"] += entry["tokens"]
        source["documents"] += entry["documents"]
    with hashed(folder / UNITS, files) as file:
        for line in unit_lines(entries):
            file.write(line)
    manifest = {
        "version": 1,
        "plan": plan.fingerprint,
        "tokenizer": plan.tokenizer,
        "options": plan.options,
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
    for path in [*folder.glob(".*.tmp"), *part_files(folder)]:
        path.unlink(missing_ok=True)

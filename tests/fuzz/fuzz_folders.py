"""Damage one file of a folder at random: corpora, unfinished ones too, arrays, tables.

``python tests/fuzz/fuzz_folders.py --runs 10000 --seed 7`` fuzzes the build that is importable.
Nothing but a typed error may come of it. Every case is told by its seed alone: ``--only`` replays.
"""

from __future__ import annotations

import functools
import io
import json
import random
import resource
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parent.parent)]

import numpy as np  # noqa: E402
from driving import arguments, outcome_of, run_cases, timed  # noqa: E402
from fuzz_loaders import SECONDS_A_CASE, mutate  # noqa: E402

import rustllm  # noqa: E402
from rustllm import corpus  # noqa: E402
from rustllm.testing import ByteTokenizer  # noqa: E402

# What all cases together may add to the process.
MEGABYTES = 700
_BYTES = ByteTokenizer(["<end>"])
_DOCUMENTS = ["one", "two ß", "", "語 three " * 9, "four\nlines"]
Files = dict[str, bytes]


def _files(folder: Path) -> Files:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def _lines(folder: Path) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in _DOCUMENTS * 4))
    return path


def a_corpus(format: str) -> Files:
    with tempfile.TemporaryDirectory() as name:
        corpus.tokenize([_lines(Path(name))], Path(name, "out"), _BYTES, format=format)
        return _files(Path(name, "out"))


def use_corpus(folder: Path) -> None:
    made = corpus.Corpus(folder)
    for document in made:
        document.sum()
    corpus.verify(folder)
    corpus.stats(folder)
    corpus.Samples(made, 9).batch(0, 1)


class _Stop(Exception):
    pass


# The plan knows the input's path and time of change: cases share one input.
@functools.cache
def _input() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    keeper = tempfile.TemporaryDirectory(prefix="rustllm-fuzz-")
    return keeper, _lines(Path(keeper.name))


def unfinished() -> Files:
    def stop(event: dict[str, int]) -> None:
        if event["units"] == 3:
            raise _Stop

    with tempfile.TemporaryDirectory() as name:
        try:
            _resume(Path(name), progress=stop)
        except _Stop:
            pass
        return _files(Path(name))


def _resume(folder: Path, **more: object) -> corpus.Corpus:
    return corpus.tokenize([_input()[1]], folder, _BYTES, unit_bytes=200, mode="inline", **more)


@functools.cache
def _undisturbed() -> list[int]:
    with tempfile.TemporaryDirectory() as name:
        return _resume(Path(name)).ids.tolist()


def use_unfinished(folder: Path) -> None:
    if _resume(folder).ids.tolist() != _undisturbed():
        raise AssertionError("a damaged run was resumed to other ids")


def arrays() -> Files:
    out = {}
    for i, array in enumerate(
        [np.arange(40, dtype=np.uint16), np.zeros((3, 4), "f4"), np.array([("a", 1)], "U3,i8")]
    ):
        file = io.BytesIO()
        np.save(file, array)
        out[f"{i}.npy"] = file.getvalue()
    return out


def use_files(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        with rustllm.open_file(path) as file:
            if (array := getattr(file, "array", None)) is not None:
                array.copy()
            elif (records := getattr(file, "records", None)) is not None:
                list(records())


def tables() -> Files:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": _DOCUMENTS, "n": list(range(5))})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    return {"a.parquet": parquet.getvalue(), "b.arrow": arrow.getvalue()}


def archives() -> Files:
    texts = {"a.jsonl": b'{"text": "one"}\n', "b/c.txt": b"two " * 99, "d.csv": b"id,text\n1,x\n"}
    out = {}
    for name, how in (("a.zip", zipfile.ZIP_DEFLATED), ("b.zip", zipfile.ZIP_STORED)):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", how) as packed:
            for path, data in texts.items():
                packed.writestr(path, data)
        out[name] = file.getvalue()
    for name, mode in (("c.tar", "w"), ("d.tar.gz", "w:gz"), ("e.tar.xz", "w:xz")):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
            for path, data in {**texts, "n" * 200: b"long"}.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        out[name] = file.getvalue()
    return out


def use_archives(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as out:
        corpus.tokenize([folder], out, _BYTES, walk_archives=True, on_error="skip", mode="inline")
    for path in sorted(folder.iterdir()):
        with rustllm.open_archive(path) as archive:
            for member in archive:
                member.open().readall()


TARGETS: dict[str, tuple[Callable[[Path], None], list[Callable[[], Files]]]] = {
    "corpus": (
        use_corpus,
        [functools.partial(a_corpus, format) for format in ("bin", "npy", "megatron")],
    ),
    "unfinished": (use_unfinished, [unfinished]),
    "npy": (use_files, [arrays]),
    "tables": (use_files, [tables]),
    "archives": (use_archives, [archives]),
}


@functools.cache
def _seeds(target: str) -> list[Files]:
    return [make() for make in TARGETS[target][1]]


def run_case(target: str, seed: int) -> str:
    """Run one case; "loaded", or the name of the typed error. Anything else is raised."""
    seeds = _seeds(target)
    rng = random.Random(f"{target} {seed}")
    files = rng.choice(seeds)
    victim = rng.choice(sorted(files))
    damaged = mutate(files[victim], len(files[victim]), rng)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, data in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(damaged if path == victim else data)
        with timed(f"{target} {seed}", SECONDS_A_CASE):
            return outcome_of(lambda: TARGETS[target][0](folder))


def main() -> int:
    parser = arguments(__doc__, TARGETS)
    args = parser.parse_args()
    run_cases(args, TARGETS, run_case)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak {peak} MB")
    return peak > MEGABYTES


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        sys.exit(main())

#!/usr/bin/env python3
"""Time opening and reading files beside the readers that people use otherwise.

    python loaders_race.py [--rounds 5]

Each row is a task; the ways to do it take turns, round by round, on files that the page cache
holds, and the median of each is given, with the ratio to ours. Readers that are not installed are
left out.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import shutil
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.loaders import _Files

import rustllm
from rustllm.loaders.detect import detect_format
from rustllm.loaders.gguf import GGUFFile
from rustllm.loaders.records import stream_records
from rustllm.loaders.safetensors import SafetensorsFile
from rustllm.loaders.text import read_text, stream_text


def drain(source: Any) -> int:
    return sum(1 for _ in source)


def peer(module: str, use: Callable[[Any], object]) -> Callable[[], object] | None:
    try:
        found = import_module(module)
    except ImportError:
        return None
    return lambda: use(found)


def _touch(reader: Any) -> float:
    return sum(float(t.data.sum()) for t in reader.tensors)


def _sum(arrays: dict[str, Any]) -> float:
    return sum(float(array.sum()) for array in arrays.values())


def open_gguf(path: Path) -> None:
    GGUFFile(path).close()


def read_gguf(path: Path) -> float:
    with GGUFFile(path) as file:
        return sum(float(tensor.array().sum()) for tensor in file.tensors.values())


def read_safetensors(path: Path) -> float:
    with SafetensorsFile(path) as file:
        return _sum(file.tensors)


def lines_of(path: Path) -> int:
    with path.open(encoding="utf-8") as file:
        return drain(file)


def parsed(path: Path) -> int:
    with path.open(encoding="utf-8") as file:
        return drain(map(json.loads, file))


def rows_of(path: Path) -> int:
    with path.open(encoding="utf-8", newline="") as file:
        return drain(csv.DictReader(file))


def tasks(folder: Path) -> dict[str, dict[str, Callable[[], object] | None]]:
    gguf, safe = folder / "model.gguf", folder / "model.safetensors"
    text, packed, rows = folder / "text.txt", folder / "text.txt.gz", folder / "rows.jsonl"
    table = folder / "rows.csv"
    table.write_text("id,text\n" + "".join(f"{i},row {i} of many\n" for i in range(200_000)))
    sparse = folder / "sparse.txt"
    with sparse.open("wb") as file:
        file.write(b"a text\n" * 20_000)
        file.truncate(10 << 30)
    return {
        "open a GGUF file (64 tensors, 100,000 tokens)": {
            "rustllm": lambda: open_gguf(gguf),
            "gguf": peer("gguf", lambda m: m.GGUFReader(gguf)),
        },
        "read its tensors, 134 MB": {
            "rustllm": lambda: read_gguf(gguf),
            "gguf": peer("gguf", lambda m: _touch(m.GGUFReader(gguf))),
        },
        "open a safetensors file (64 tensors)": {
            "rustllm": lambda: SafetensorsFile(safe).close(),
            "safetensors": peer("safetensors", lambda m: m.safe_open(safe, "np").__enter__()),
        },
        "read its tensors, 134 MB ": {
            "rustllm": lambda: read_safetensors(safe),
            "safetensors": peer("safetensors.numpy", lambda m: _sum(m.load_file(safe))),
        },
        "tell a format by content": {"rustllm": lambda: [detect_format(p) for p in (gguf, rows)]},
        "open 10 GB of text, mapped": {"rustllm": lambda: rustllm.open_file(sparse).close()},
        "a text whole, 24 MB": {
            "rustllm": lambda: read_text(text),
            "open().read()": lambda: text.read_text(encoding="utf-8"),
        },
        "its 500,000 lines": {
            "rustllm": lambda: drain(stream_text(text, unit="line")),
            "open()": lambda: lines_of(text),
        },
        "a text whole out of gzip": {
            "rustllm": lambda: read_text(packed),
            "gzip.open().read()": lambda: gzip.open(packed, "rt", encoding="utf-8").read(),
        },
        "100,000 records of JSON lines": {
            "rustllm": lambda: drain(stream_records(rows)),
            "open(), json.loads": lambda: parsed(rows),
        },
        "200,000 rows of CSV": {
            "rustllm": lambda: drain(stream_records(table)),
            "csv.DictReader": lambda: rows_of(table),
        },
    }


def race(task: str, ways: dict[str, Callable[[], object]], rounds: int) -> str:
    """Let the ways take turns; return a line of medians and of ratios to ours."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            took[name].append(time.perf_counter() - start)
    median = {name: statistics.median(seconds) for name, seconds in took.items()}
    cells = [f"{name} {1e3 * seconds:.3g} ms" for name, seconds in median.items()]
    ratios = [f"{seconds / median['rustllm']:.2f}" for seconds in list(median.values())[1:]]
    return f"{task:46} {', '.join(cells):60} {', '.join(ratios)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="tasks whose name holds this")
    args = parser.parse_args()
    folder = _Files().setup_cache()
    try:
        for task, all_ways in tasks(folder).items():
            if args.only in task:
                ways = {name: way for name, way in all_ways.items() if way is not None}
                print(race(task, ways, args.rounds), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

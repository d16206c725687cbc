#!/usr/bin/env python3
"""Time the ways from JSON lines to a file of ids side by side, each in a process of its own.

    python corpus_race.py FILE.jsonl [FILE.jsonl ...] --tokenizer NAME_OR_FILE --workers 2

rustllm    `rustllm.corpus.tokenize`, with its journal, hashes and syncs
datasets   `datasets.map` with a `tokenizers` tokenizer of the same vocabulary, arrays out
nanogpt    nanoGPT's `prepare.py`: `datasets.map` with tiktoken's `encode_ordinary`, then a memmap
encoder    the encoder alone, over texts that lie in memory: what the others are measured against

The vocabulary is a ``.tiktoken`` file of cl100k_base. Peers that are not installed are left out.
Slow peers can be given a part of the input: ``--megabytes datasets=20``. MB of input a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def texts(files: list[str]) -> list[str]:
    out = []
    for name in files:
        with Path(name).open(encoding="utf-8", newline="") as file:
            if name.endswith(".txt"):
                out.append(file.read())
            else:
                out += [json.loads(line)["text"] for line in file]
    return out


def rustllm(files: list[str], vocabulary: str, workers: int, folder: Path) -> float:
    import rustllm
    from rustllm import corpus

    encoding = rustllm.get_encoding("cl100k_base", vocab=vocabulary)
    start = time.perf_counter()
    corpus.tokenize(files, folder / "out", encoding, workers=workers)
    return time.perf_counter() - start


def encoder(files: list[str], vocabulary: str, workers: int, folder: Path) -> float:
    import rustllm

    encoding = rustllm.get_encoding("cl100k_base", vocab=vocabulary)
    documents = texts(files)
    start = time.perf_counter()
    for i in range(0, len(documents), 2000):
        encoding.encode_batch_flat(documents[i : i + 2000], workers)
    return time.perf_counter() - start


def _mapped(files: list[str], function: object, workers: int, folder: Path) -> float:
    import datasets
    import numpy as np

    datasets.disable_progress_bars()
    start = time.perf_counter()
    rows = datasets.load_dataset(
        "json", data_files=files, split="train", cache_dir=str(folder / "cache")
    )
    done = rows.map(function, remove_columns=rows.column_names, num_proc=workers)
    total = int(np.sum(done["len"], dtype=np.uint64))
    ids = np.memmap(folder / "train.bin", dtype=np.uint32, mode="w+", shape=(total,))
    at = 0
    for i in range(64):
        part = done.shard(num_shards=64, index=i, contiguous=True).with_format("numpy")
        block = np.concatenate(part["ids"]) if len(part) else np.empty(0, np.uint32)
        ids[at : at + len(block)] = block
        at += len(block)
    ids.flush()
    return time.perf_counter() - start


def nanogpt(files: list[str], vocabulary: str, workers: int, folder: Path) -> float:
    import tiktoken

    import rustllm

    ranks = rustllm.get_encoding("cl100k_base", vocab=vocabulary)._mergeable_ranks
    encoding = tiktoken.Encoding(
        "race", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|end|>": 100257}
    )

    def process(example: dict[str, str]) -> dict[str, object]:
        ids = encoding.encode_ordinary(example["text"])
        ids.append(100257)
        return {"ids": ids, "len": len(ids)}

    return _mapped(files, process, workers, folder)


def datasets(files: list[str], vocabulary: str, workers: int, folder: Path) -> float:
    import tokenizers

    import rustllm
    from rustllm.tokenizers.conversion import save_tokenizer

    saved = folder / "tokenizer.json"
    encoding = rustllm.get_encoding("cl100k_base", vocab=vocabulary)
    save_tokenizer(encoding, saved)
    tokenizer = tokenizers.Tokenizer.from_file(str(saved))

    def process(example: dict[str, str]) -> dict[str, object]:
        ids = [*tokenizer.encode(example["text"]).ids, 100257]
        return {"ids": ids, "len": len(ids)}

    return _mapped(files, process, workers, folder)


PEERS = {f.__name__: f for f in (encoder, rustllm, datasets, nanogpt)}


def part_of(files: list[str], megabytes: float | None, folder: Path) -> tuple[list[str], int]:
    """The files, or the beginning of them, and their size."""
    if megabytes is None:
        return files, sum(Path(name).stat().st_size for name in files)
    path, left = folder / "part.jsonl", int(megabytes * 1e6)
    with path.open("wb") as out:
        for name in files:
            with Path(name).open("rb") as file:
                for line in file:
                    if left <= 0:
                        break
                    out.write(line)
                    left -= len(line)
    return [str(path)], path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokenizer", required=True, help="cl100k_base.tiktoken")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--megabytes", action="append", default=[], metavar="PEER=N")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    limits = {name: float(n) for name, n in (one.split("=") for one in args.megabytes)}
    if args.worker:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files, size = part_of(args.files, limits.get(args.worker), folder)
            took = PEERS[args.worker](files, args.tokenizer, args.workers, folder)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(json.dumps({"speed": size / took / 1e6, "peak": max(own, children)}))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in args.peers.split(",")}
    for _ in range(args.rounds):
        for name, results in runs.items():
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--worker", name],
                capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            results.append(json.loads(done.stdout.splitlines()[-1]))
    for name, results in runs.items():
        if results:
            speed = statistics.median(r["speed"] for r in results)
            peak = max(r["peak"] for r in results)
            print(f"{name:10} {speed:7.1f} MB/s  peak {peak:.0f} MB")


if __name__ == "__main__":
    main()

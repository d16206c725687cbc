"""Make, check and describe token shards for training.

examples:
  rustllm corpus tokenize data/*.jsonl -o shards -t cl100k_base
  rustllm corpus tokenize books/ -o shards -t model.gguf --format megatron --workers 8
  rustllm corpus verify shards
  rustllm corpus stats shards --json

A run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import Any

from rustllm.cli.options import add_tokenizer_arguments, whole
from rustllm.cli.output import Output
from rustllm.cli.resolve import open_tokenizer
from rustllm.errors import ArgumentError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=["tokenize", "verify", "stats"])
    parser.add_argument("path", nargs="+", help="inputs to tokenize, or the folder of a corpus")
    group = parser.add_argument_group("tokenize")
    group.add_argument("-o", "--output", metavar="FOLDER", help="where the corpus goes")
    group.add_argument(
        "--kind",
        choices=["text", "lines", "jsonl"],
        help="a document a file, a line, or a JSON record (default: by content)",
    )
    group.add_argument("--field", default="text", help="name of the text in a record")
    group.add_argument("--format", choices=["bin", "npy", "megatron"], default="bin")
    group.add_argument("--dtype", choices=["uint16", "uint32", "int32"])
    group.add_argument(
        "--end-token",
        default="auto",
        metavar="TOKEN",
        help="special token after each document; 'none' for none (default: the tokenizer's own)",
    )
    group.add_argument(
        "--on-error", choices=["raise", "skip", "quarantine"], default="raise", help="bad documents"
    )
    group.add_argument("--unit-bytes", type=whole(1), default=16 << 20, metavar="N")
    group.add_argument("--workers", type=whole(1), metavar="N", help="(default: all cores)")
    group.add_argument("--mode", choices=["threads", "processes", "inline"], default="threads")
    group.add_argument(
        "--events", action="store_true", help="progress as a line of JSON a unit on stderr"
    )
    add_tokenizer_arguments(parser)


def run(args: Namespace) -> int:
    """Do the action."""
    output = Output.of(args)
    if args.action == "tokenize":
        return _tokenize(args, output)
    if len(args.path) != 1:
        raise ArgumentError(f"{args.action} takes one folder, got {len(args.path)} paths")
    from rustllm import corpus

    if args.action == "verify":
        facts = corpus.verify(args.path[0])
        if output.json:
            output.document("corpus.verify", **facts)
        else:
            output.line(
                f"whole: {facts['documents']} documents, {facts['tokens']} tokens, "
                f"{facts['files']} files, {facts['bytes']} bytes"
            )
        return 0
    _show(corpus.stats(args.path[0]), output)
    return 0


def _tokenize(args: Namespace, output: Output) -> int:
    from rustllm import corpus

    if args.output is None:
        raise ArgumentError("there is no place for the corpus", hint="--output FOLDER")
    tokenizer = open_tokenizer(args.tokenizer, output)
    started = time.perf_counter()
    with output.progress() as bar:

        def show(event: dict[str, Any]) -> None:
            if args.events:
                event = {**event, "seconds": round(time.perf_counter() - started, 3)}
                print(json.dumps(event), file=sys.stderr, flush=True)
            else:
                bar("tokenizing", event["bytes"], event["bytes_total"])

        made = corpus.tokenize(
            args.path,
            args.output,
            tokenizer,
            kind=args.kind,
            field=args.field,
            format=args.format,
            dtype=args.dtype,
            end_token=None if args.end_token == "none" else args.end_token,
            unit_bytes=args.unit_bytes,
            on_error=args.on_error,
            workers=args.workers,
            mode=args.mode,
            progress=show,
        )
    facts = {
        name: made.manifest[name] for name in ("tokens", "documents", "text_bytes", "failures")
    }
    if output.json:
        output.document("corpus.tokenize", output=args.output, **facts)
    else:
        failed = f", {facts['failures']} left out" if facts["failures"] else ""
        output.line(f"{facts['documents']} documents, {facts['tokens']} tokens{failed}")
    return 0


def _show(facts: dict[str, Any], output: Output) -> None:
    if output.json:
        output.document("corpus.stats", **facts)
        return
    output.line(f"tokens           {facts['tokens']}")
    output.line(f"documents        {facts['documents']}")
    if facts["bytes_per_token"] is not None:
        output.line(f"bytes a token    {facts['bytes_per_token']:.3f}")
    if not facts["lengths"]:
        return
    for name, value in facts["lengths"].items():
        output.line(f"{name.replace('_', ' '):16} {value:g}")
    most = max(row["documents"] for row in facts["histogram"])
    for row in facts["histogram"]:
        bar = "#" * max(1, round(40 * row["documents"] / most))
        output.line(f"{row['from']:>9} to {row['to']:<9} {row['documents']:>9}  {bar}")

"""Make, check and describe token shards for training.

examples:
  rustllm corpus tokenize data/*.jsonl -o shards -t cl100k_base
  rustllm corpus tokenize books/ -o shards -t model.gguf --format megatron --workers 8
  rustllm corpus tokenize dump.tar.gz -o shards -t cl100k_base --walk-archives
  rustllm corpus verify shards
  rustllm corpus verify shards --repair -t cl100k_base
  rustllm corpus stats shards --plot stats.html
  rustllm corpus inspect shards --document 3 --text -t cl100k_base
  rustllm corpus derive shards -o train --shuffle 1 --split train=0.99 --split validation=0.01
  rustllm corpus derive shards -o packed --window 2049 --packing whole
  rustllm corpus merge shards-a shards-b -o both
  rustllm corpus export shards -o shards.parquet

A run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from rustllm.cli.options import add_action_argument, add_tokenizer_arguments, whole
from rustllm.cli.output import Output
from rustllm.cli.resolve import open_tokenizer
from rustllm.errors import ArgumentError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_action_argument(
        parser,
        {
            "tokenize": "files to a corpus",
            "verify": "hold every byte against its checksums",
            "stats": "counts and lengths",
            "inspect": "what it was made of and how, or one document",
            "derive": "shuffle, split or pack",
            "merge": "several into one",
            "export": "to a Parquet or Arrow file",
        },
    )
    parser.add_argument("path", nargs="+", help="inputs to tokenize, or folders of corpora")
    group = parser.add_argument_group("tokenize")
    group.add_argument("-o", "--output", metavar="FOLDER", help="where the corpus goes")
    group.add_argument(
        "--kind",
        choices=["text", "lines", "jsonl", "json", "csv", "tsv", "parquet", "arrow"],
        help="a document a file, a line, or a record (default: by content)",
    )
    group.add_argument("--field", default="text", help="name of the text in a record")
    group.add_argument("--format", choices=["bin", "npy", "megatron"], help="(default: bin)")
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
    group.add_argument(
        "--walk-archives", action="store_true", help="read the files in zip and tar archives"
    )
    group.add_argument(
        "--unit-bytes",
        type=whole(1),
        metavar="N",
        help="of input that a crash may cost a worker (default: by the input, 1 to 16 MiB)",
    )
    group.add_argument("--workers", type=whole(1), metavar="N", help="(default: all cores)")
    group.add_argument("--mode", choices=["threads", "processes", "inline"], default="threads")
    group.add_argument("--events", action="store_true", help="progress as lines of JSON on stderr")
    group = parser.add_argument_group("verify")
    group.add_argument(
        "--repair", action="store_true", help="do damaged units again; needs --tokenizer"
    )
    group = parser.add_argument_group("derive")
    group.add_argument("--shuffle", type=int, metavar="SEED", help="documents in another order")
    group.add_argument(
        "--split", action="append", default=[], metavar="NAME=SHARE", help="a corpus for each"
    )
    group.add_argument("--window", type=whole(1), metavar="N", help="pack into windows of N ids")
    group.add_argument(
        "--packing",
        choices=["cut", "whole"],
        default="cut",
        help="cut documents anywhere, or keep them whole and pad (default: cut)",
    )
    group = parser.add_argument_group("stats and inspect")
    group.add_argument("--plot", metavar="FILE", help="draw the statistics: .png, .svg or .html")
    group.add_argument("--document", type=int, metavar="N", help="show the ids of one document")
    group.add_argument("--text", action="store_true", help="show its text, by --tokenizer")
    add_tokenizer_arguments(parser)


def run(args: Namespace) -> int:
    """Do the action."""
    return _ACTIONS[args.action](args, Output.of(args))


def _folder(args: Namespace) -> str:
    if len(args.path) != 1:
        raise ArgumentError(f"{args.action} takes one folder, got {len(args.path)} paths")
    path: str = args.path[0]
    return path


def _target(args: Namespace) -> str:
    if args.output is None:
        raise ArgumentError("there is no place for the result", hint="--output PATH")
    output: str = args.output
    return output


def _verify(args: Namespace, output: Output) -> int:
    from rustllm import corpus

    repaired: dict[str, Any] = {}
    if args.repair:
        tokenizer = open_tokenizer(args.tokenizer, output)
        done = corpus.repair(_folder(args), tokenizer, workers=args.workers)
        repaired = {"repaired_units": done["units"], "repaired_files": done["files"]}
    facts = corpus.verify(_folder(args))
    if output.json:
        output.document("corpus.verify", **facts, **repaired)
        return 0
    if repaired:
        names = ", ".join(repaired["repaired_files"]) or "no file"
        output.line(f"{names} damaged: {repaired['repaired_units']} units done again")
    output.line(
        f"whole: {facts['documents']} documents, {facts['tokens']} tokens, "
        f"{facts['files']} files, {facts['bytes']} bytes"
    )
    return 0


def _stats(args: Namespace, output: Output) -> int:
    from rustllm import corpus

    facts = corpus.stats(_folder(args))
    if args.plot:
        corpus.draw_stats(facts, args.plot)
    _show(facts, output)
    return 0


def _inspect(args: Namespace, output: Output) -> int:
    from rustllm import corpus

    made = corpus.Corpus(_folder(args))
    if args.document is None:
        facts = {
            name: made.manifest[name]
            for name in ("tokens", "documents", "text_bytes", "tokenizer", "options", "files")
        }
        if output.json:
            output.document("corpus.inspect", **facts)
            return 0
        for name, value in facts.items():
            for key, one in value.items() if isinstance(value, dict) else [("", value)]:
                shown = f"{one['bytes']} bytes, sha256 {one['sha256']}" if name == "files" else one
                output.line(f"{f'{name} {key}'.strip():24} {shown}")
        return 0
    ids = made[args.document].tolist()
    text = None
    if args.text:
        tokenizer = open_tokenizer(args.tokenizer, output)
        if corpus.tokenizer_fingerprint(tokenizer) != made.manifest["tokenizer"]:
            raise ArgumentError("the corpus was made with another tokenizer")
        text = tokenizer.decode(ids)
    if output.json:
        output.document("corpus.inspect", document=args.document, ids=ids, text=text)
    else:
        output.line(text if text is not None else " ".join(map(str, ids)))
    return 0


def _derive(args: Namespace, output: Output) -> int:
    from rustllm import corpus

    splits = {}
    for given in args.split:
        name, _, share = given.partition("=")
        try:
            splits[name] = float(share)
        except ValueError:
            raise ArgumentError(f"{given!r} is no split", hint="as in validation=0.01") from None
    made = corpus.derive(
        _folder(args),
        _target(args),
        shuffle=args.shuffle,
        splits=splits or None,
        window=args.window,
        packing=args.packing,
        format=args.format,
    )
    facts = {
        name: {"documents": len(one), "tokens": len(one.ids), "path": str(one.folder)}
        for name, one in made.items()
    }
    if output.json:
        output.document("corpus.derive", corpora=facts)
    else:
        for name, fact in facts.items():
            label = f"{name}: " if name else ""
            output.line(f"{label}{fact['documents']} documents, {fact['tokens']} tokens")
    return 0


def _merge(args: Namespace, output: Output) -> int:
    from rustllm import corpus

    made = corpus.merge(args.path, _target(args))
    facts = {"documents": len(made), "tokens": len(made.ids)}
    if output.json:
        output.document("corpus.merge", output=args.output, **facts)
    else:
        output.line(f"{facts['documents']} documents, {facts['tokens']} tokens")
    return 0


def _export(args: Namespace, output: Output) -> int:
    from rustllm import corpus

    rows = corpus.export_table(_folder(args), _target(args))
    if output.json:
        output.document("corpus.export", output=args.output, rows=rows)
    else:
        output.line(f"{rows} rows")
    return 0


def _tokenize(args: Namespace, output: Output) -> int:
    from rustllm import corpus

    _target(args)
    tokenizer = open_tokenizer(args.tokenizer, output)
    with output.progress() as bar:

        def show(event: dict[str, Any]) -> None:
            if args.events:
                print(json.dumps(event), file=sys.stderr, flush=True)
            else:
                bar("tokenizing", event["bytes"], event["bytes_total"], after=_pace(event))

        made = corpus.tokenize(
            args.path,
            args.output,
            tokenizer,
            kind=args.kind,
            field=args.field,
            format=args.format or "bin",
            dtype=args.dtype,
            end_token=None if args.end_token == "none" else args.end_token,
            unit_bytes=args.unit_bytes,
            on_error=args.on_error,
            walk_archives=args.walk_archives,
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


def _pace(event: dict[str, Any]) -> str:
    """Ids so far, rate, time left, and the stage that the others wait for."""
    left = event["seconds_left"]
    time_left = "" if left is None else f", {left // 60:.0f}:{left % 60:02.0f} left"
    return (
        f" {event['tokens'] / 1e6:.1f} M ids, {event['bytes_per_second'] / 1e6:.0f} MB/s"
        f"{time_left}, most time: {event['busiest']}"
    )


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


_ACTIONS = {
    "tokenize": _tokenize,
    "verify": _verify,
    "stats": _stats,
    "inspect": _inspect,
    "derive": _derive,
    "merge": _merge,
    "export": _export,
}

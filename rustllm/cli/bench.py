"""Measure this machine, a model or a tokenizer.

examples:
  rustllm bench roofline --threads 1,2 --plot roofline.svg
  rustllm bench roofline --types q4_k,q8_0 --json
  rustllm bench model smollm2-135m-instruct
  rustllm bench model model.gguf --threads 1,4 --prompt 1024 --depth 4000
  rustllm bench tokenizer cl100k_base book.txt

`roofline` finds how fast memory is read and how fast a core computes, and what share of that each
kernel reaches. `model` starts processes of its own and shows the time from file to first token,
reading of a prompt, generation and memory. `tokenizer` encodes and decodes a file. Let the machine
do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from typing import Any

from rustllm.cli.options import add_action_argument, decode_utf8, read_bytes, real, whole
from rustllm.cli.output import Output, ProgressBar
from rustllm.errors import ArgumentError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_action_argument(
        parser,
        {
            "roofline": "memory, cores and every kernel",
            "model": "start, reading, generation and memory",
            "tokenizer": "encoding and decoding of a file",
        },
    )
    parser.add_argument(
        "names",
        nargs="*",
        default=[],
        metavar="NAME|PATH",
        help="for model: a name, a file or a folder; for tokenizer: a tokenizer and a text file",
    )
    parser.add_argument(
        "--threads",
        type=thread_counts,
        metavar="N,N",
        help="numbers of threads (default: 1 and all cores)",
    )
    parser.add_argument(
        "--rounds", type=whole(1), metavar="N", help="samples of each figure (default: 5; model 3)"
    )
    group = parser.add_argument_group("roofline")
    group.add_argument("--types", metavar="TYPE,TYPE", help="block types (default: all)")
    group.add_argument("--plot", metavar="FILE", help="draw it: .svg or .png")
    group.add_argument(
        "--seconds", type=real(0), default=0.05, help="of a sample (default: %(default)s)"
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--prompt", type=whole(1), default=512, metavar="N", help="tokens (default: %(default)s)"
    )
    group.add_argument(
        "--tokens",
        type=whole(1),
        default=128,
        metavar="N",
        help="single steps (default: %(default)s)",
    )
    group.add_argument(
        "--depth",
        type=whole(0),
        default=1500,
        metavar="N",
        help="tokens of context after which steps are timed again (default: %(default)s)",
    )
    group.add_argument("--exact", action="store_true", help="float32 activations")


def run(args: Namespace) -> int:
    """Measure and print."""
    from rustllm._core.threads import available_threads

    if args.threads is None:
        args.threads = sorted({1, available_threads()})
    output = Output.of(args)
    with output.progress() as bar:
        _ACTIONS[args.action](args, output, bar)
    return 0


def thread_counts(text: str) -> list[int]:
    """Read ``"1,2,4"``.

    Examples
    --------
    >>> from rustllm.cli.bench import thread_counts
    >>> thread_counts("4,1")
    [1, 4]
    """
    counts = sorted({whole(1)(part) for part in text.split(",")})
    if counts[-1] > 256:
        raise argparse.ArgumentTypeError(f"{counts[-1]} threads are more than 256")
    return counts


def _roofline(args: Namespace, output: Output, bar: ProgressBar) -> None:
    from rustllm.bench.roofline_plot import check_format, draw_roofline
    from rustllm.models.kernel_speed import measure_roofline

    _take(args, 0, "nothing")
    if args.plot is not None:
        check_format(args.plot)
    options: dict[str, Any] = {}
    if args.types is not None:
        options["types"] = args.types.split(",")
    roofline = measure_roofline(
        args.threads,
        seconds=args.seconds,
        repeats=args.rounds or 5,
        progress=lambda name, done, total: bar(name, done, total, "kernels"),
        **options,
    )
    bar.close()
    if args.plot is not None:
        draw_roofline(roofline, args.plot)
    if output.json:
        output.document("bench.roofline", **roofline.to_dict())
    else:
        output.line(str(roofline))


def _model(args: Namespace, output: Output, bar: ProgressBar) -> None:
    from rustllm.bench import machine_facts
    from rustllm.models import store
    from rustllm.models.model_speed import measure_model

    (name,) = _take(args, 1, "a model")
    path = store.resolve_model(name, progress=bar)
    rows = measure_model(
        path,
        args.threads,
        prompt=args.prompt,
        tokens=args.tokens,
        depth=args.depth,
        rounds=args.rounds or 3,
        exact=args.exact,
        progress=lambda what, done, total: bar(what, done, total, "processes"),
    )
    bar.close()
    if output.json:
        output.document("bench.model", path=str(path), facts=machine_facts(), runs=rows)
        return
    output.line(f"{path}: {rows[0]['file_bytes'] / 1e6:.1f} MB")
    for row in rows:
        deep = row["deep_decode_tokens_per_second"]
        lines = {
            "import": f"{row['import_seconds'] * 1e3:.0f} ms",
            "load": f"{row['load_seconds'] * 1e3:.0f} ms",
            "file to first token": f"{row['first_token_seconds'] * 1e3:.0f} ms",
            f"prompt of {args.prompt}": f"{row['prefill_tokens_per_second']:.0f} tokens/s",
            "single tokens": f"{row['decode_tokens_per_second']:.0f} tokens/s "
            f"({row['decode_share']:.0%} of reading the weights)",
        }
        if deep is not None:
            lines[f"after {args.depth}"] = f"{deep:.0f} tokens/s"
        if row["peak_bytes"] is not None:
            lines["peak memory"] = (
                f"{row['peak_bytes'] / 1e6:.0f} MB, of which keys and values "
                f"{row['cache_bytes'] / 1e6:.0f} MB"
            )
        output.line(f"\n{row['threads']} thread{'s' if row['threads'] > 1 else ''}")
        for what, value in lines.items():
            output.line(f"  {what:20} {value}")


def _tokenizer(args: Namespace, output: Output, bar: ProgressBar) -> None:
    from rustllm.bench import machine_facts
    from rustllm.cli.resolve import open_tokenizer
    from rustllm.tokenizers.tokenizer_speed import measure_tokenizer

    name, path = _take(args, 2, "a tokenizer and a text file")
    text = decode_utf8(read_bytes(path), path)
    open_tokenizer(name, output)  # a name that must be fetched first is, before the clock runs
    runs = []
    for threads in args.threads:
        facts = measure_tokenizer(
            lambda: open_tokenizer(name, output),
            text,
            threads=threads,
            repeats=args.rounds or 5,
            seconds=args.seconds,
        )
        runs.append((threads, facts))
        bar(name, len(runs), len(args.threads), "runs")
    bar.close()
    if output.json:
        output.document(
            "bench.tokenizer",
            tokenizer=name,
            path=path,
            facts=machine_facts(),
            bytes=runs[0][1]["bytes"],
            tokens=runs[0][1]["tokens"],
            texts=runs[0][1]["texts"],
            runs=[
                {
                    "threads": threads,
                    "measurements": {k: m.to_dict() for k, m in facts["measurements"].items()},
                }
                for threads, facts in runs
            ],
        )
        return
    first = runs[0][1]
    output.line(
        f"{name} on {path}: {first['bytes']:,} bytes, {first['tokens']:,} tokens, "
        f"{first['texts']:,} lines"
    )
    for threads, facts in runs:
        output.line(f"\n{threads} thread{'s' if threads > 1 else ''}")
        for what, result in facts["measurements"].items():
            output.line(f"  {_NAMES[what]:28} {str(result).partition(': ')[2]}")


_NAMES = {
    "load": "load",
    "first": "new text, to an array",
    "again": "the same again, to an array",
    "list": "the same again, to a list",
    "batch": "its lines, to one array",
    "count": "count",
    "decode": "decode, to a text",
}


def _take(args: Namespace, n: int, what: str) -> list[str]:
    names: list[str] = args.names
    if len(names) != n:
        raise ArgumentError(f"bench {args.action} takes {what}, got {len(names)} names")
    return names


_ACTIONS = {"roofline": _roofline, "model": _model, "tokenizer": _tokenizer}

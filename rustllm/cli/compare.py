"""Show where two tokenizers cut a text differently, and what that costs.

examples:
  rustllm compare cl100k_base o200k_base "Übergrößenträger"
  rustllm compare gpt2 cl100k_base --file script.py --limit 50
  rustllm compare smollm2-135m-instruct o200k_base --file book.txt --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rustllm.cli.options import add_text_arguments, read_text, whole
from rustllm.cli.output import Output
from rustllm.cli.resolve import open_tokenizer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    for name in ("left", "right"):
        parser.add_argument(name, help="an encoding, a named model, or a tokenizer or model file")
    add_text_arguments(parser, what="text")
    parser.add_argument("--special", action="store_true", help="special tokens become their ids")
    parser.add_argument(
        "-n",
        "--limit",
        type=whole(0),
        default=20,
        metavar="N",
        help="differences to print, those that cost most first (default: %(default)s)",
    )


def run(args: Namespace) -> int:
    """Compare and print."""
    from rustllm.tokenizers.comparison import compare_tokenizers
    from rustllm.tokenizers.vocabulary import Vocabulary

    output = Output.of(args)
    text = read_text(args, what="text")
    left = open_tokenizer(args.left, output)
    right = open_tokenizer(args.right, output)
    found = compare_tokenizers(left, right, text, special=args.special)
    apart = Vocabulary.from_tokenizer(left).compare(Vocabulary.from_tokenizer(right))
    if output.json:
        output.document(
            "compare",
            left={"tokenizer": args.left, "tokens": len(found.left), "n_vocab": left.n_vocab},
            right={"tokenizer": args.right, "tokens": len(found.right), "n_vocab": right.n_vocab},
            bytes=found.n_bytes,
            cost=found.cost,
            ratio=found.ratio,
            share_cut_alike=found.share_cut_alike,
            vocabulary={
                "shared": apart.n_shared,
                "same_id": apart.n_shared - len(apart.moved),
                "only_left": len(apart.only_left),
                "only_right": len(apart.only_right),
            },
            differences=[
                {
                    "start": d.start,
                    "end": d.end,
                    "text": text[d.start : d.end],
                    "cost": d.cost,
                    "left": [s.id for s in d.left],
                    "right": [s.id for s in d.right],
                }
                for d in found.differences
            ],
        )
        return 0
    names = [Path(choice).name for choice in (args.left, args.right)]
    width = max(map(len, names))
    for name, tokenizer, segments in (
        (names[0], left, found.left),
        (names[1], right, found.right),
    ):
        per_token = found.n_bytes / len(segments) if segments else 0.0
        output.line(
            f"{name:{width}}  {len(segments):>9,} tokens  {per_token:5.2f} bytes a token  "
            f"{tokenizer.n_vocab:>9,} in the vocabulary"
        )
    change = f"{(found.ratio - 1) * 100:+.1f} %"
    output.line(f"{names[1]} takes {found.cost:+,} tokens ({change}) for the same text;")
    output.line(
        f"{found.share_cut_alike:.0%} of the characters are cut alike, "
        f"{apart.n_shared:,} tokens stand in both vocabularies."
    )
    _differences(args.limit, output, found, text)
    return 0


def _differences(limit: int, output: Output, found: Any, text: str) -> None:
    from rustllm.tokenizers.terminal_view import terminal_view

    worst = sorted(found.differences, key=lambda d: (-abs(d.cost), d.start))[:limit]
    if not worst:
        return
    output.line()
    for d in sorted(worst, key=lambda d: d.start):
        shown = [" ".join(terminal_view(side, color=output.colors)) for side in (d.left, d.right)]
        output.line(f"{d.start:>8}  {d.cost:+3d}  ‹{shown[0]}›  →  ‹{shown[1]}›")
    rest = len(found.differences) - len(worst)
    if rest:
        output.line(f"and {rest:,} more (--limit)")

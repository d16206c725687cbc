"""Tell how likely a model finds a text: log-probabilities of its tokens and perplexity.

Each token is scored after those before it; the first only where the model begins a text with a
token of its own.

examples:
  rustllm score "The capital of France is Paris."
  rustllm score -m model.gguf --file chapter.txt
  rustllm score --json --logprobs 3 "The sky is green."
"""

from __future__ import annotations

import math
import time
from argparse import ArgumentParser, Namespace

from rustllm.cli.options import add_model_arguments, add_text_arguments, read_text, whole
from rustllm.cli.output import Output
from rustllm.cli.resolve import open_model

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_text_arguments(parser, what="text")
    add_model_arguments(parser)
    parser.add_argument(
        "--logprobs",
        dest="top_logprobs",
        type=whole(0),
        default=0,
        metavar="N",
        help="with --json: the N likeliest tokens at each place, with log-probabilities",
    )


def run(args: Namespace) -> int:
    """Score and print: three figures, or with --json everything."""
    output = Output.of(args)
    text = read_text(args, what="text")
    model = open_model(args, output)
    started = time.perf_counter()
    scores = model.score(text, top_logprobs=args.top_logprobs, context=args.context)
    seconds = time.perf_counter() - started
    if output.json:
        # JSON has no NaN: what nothing stands before has no probability.
        output.document(
            "score",
            model=args.model,
            ids=list(scores.ids),
            logprobs=[None if math.isnan(p) else p for p in scores.logprobs.tolist()],
            **({"top_logprobs": scores.top_logprobs} if args.top_logprobs else {}),
            total=scores.total,
            perplexity=None if math.isnan(scores.perplexity) else scores.perplexity,
            seconds=round(seconds, 4),
        )
        return 0
    output.line(f"tokens           {len(scores.ids)}")
    output.line(f"log-probability  {scores.total:.4f}")
    output.line(f"perplexity       {scores.perplexity:.4f}")
    output.note(f"[{len(scores.ids) / seconds:.0f} tokens/s]")
    return 0

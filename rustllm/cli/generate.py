"""Answer or continue a prompt with a model, token by token.

A model whose file has a chat template was trained to answer: it gets the prompt as a user's
message, as `rustllm chat` would send it. Any other model, or any with --raw, continues the text as
it is, special tokens in it included.

examples:
  rustllm generate "Why is the sky blue?"
  rustllm generate --raw --temperature 0 -n 20 "The capital of France is"
  rustllm generate -m model.gguf --file prompt.txt > answer.txt
  rustllm generate --json-schema person.json "Describe Marie Curie as JSON."
  rustllm generate --regex "[0-9]{1,2} legs" "How many legs has a dog?"
  git log -5 | rustllm generate - --json
  rustllm generate --json --logprobs 3 --temperature 0 -n 5 "The sky is"
  rustllm generate --raw --draft lookup --file code.py
  rustllm generate --batch prompts.txt > answers.jsonl
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from rustllm.cli.options import (
    add_generation_arguments,
    add_model_arguments,
    add_sampling_arguments,
    add_text_arguments,
    read_bytes,
    read_text,
    sampling_options,
    whole,
)
from rustllm.cli.output import Output
from rustllm.cli.resolve import open_draft, open_model
from rustllm.errors import ArgumentError, error_context

if TYPE_CHECKING:
    from rustllm.constrain import GrammarConstraint

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_text_arguments(parser, what="prompt")
    parser.add_argument(
        "--batch",
        metavar="FILE",
        help="many prompts made together: one a line, or of a .jsonl file strings or objects with "
        "their own settings; answers are JSON lines, as they end",
    )
    parser.add_argument(
        "--sequences",
        type=whole(1),
        default=8,
        metavar="N",
        help="with --batch: texts at a time (default: %(default)s)",
    )
    parser.add_argument("--raw", action="store_true", help="continue the text, never answer it")
    add_model_arguments(parser)
    add_sampling_arguments(parser)
    form = parser.add_argument_group("form of the answer").add_mutually_exclusive_group()
    form.add_argument("--regex", metavar="PATTERN", help="the whole answer matches PATTERN")
    form.add_argument(
        "--json-schema", metavar="FILE", help="the answer is JSON valid for the schema in FILE"
    )
    form.add_argument("--json-value", action="store_true", help="the answer is JSON")
    add_generation_arguments(parser)


def run(args: Namespace) -> int:
    """Generate and stream."""
    output = Output.of(args)
    prompts = None
    if args.batch is not None:
        if args.text is not None or args.file is not None:
            raise ArgumentError("--batch takes the place of a prompt", hint="leave one of them out")
        from rustllm.cli.generate_batch import generate_batch, read_prompts

        prompts = read_prompts(args.batch)
    prompt = read_text(args, what="prompt") if prompts is None else ""
    form = form_of(args)
    started = time.perf_counter()
    model = open_model(args, output)
    loaded = time.perf_counter()
    options = sampling_options(args)
    if form is not None:
        options["constraint"] = form
    if args.draft is not None:
        options["draft"] = open_draft(args.draft, args, output)
    if args.context is not None:
        options["context"] = args.context
    text: list[str] = []
    ids: list[int] = []
    logprobs: list[float] = []
    tops: list[Any] = []
    first = None
    raw = args.raw or not getattr(model, "has_chat_template", False)
    if prompts is not None:
        return generate_batch(args, output, model, prompts, options, raw=raw)
    if raw:
        pieces = model.generate(prompt, **options)
    else:
        pieces = model.chat([{"role": "user", "content": prompt}], **options)
    for piece in pieces:
        first = first or time.perf_counter()
        text.append(piece)
        ids.extend(piece.ids)
        logprobs.extend(piece.logprobs)
        tops.extend(piece.top_logprobs)
        if not output.json:
            output.write(piece)
    ended = time.perf_counter()
    seconds = {"load": loaded - started, "first": (first or ended) - loaded, "all": ended - loaded}
    if output.json:
        output.document(
            "generate",
            model=args.model,
            prompt=prompt,
            raw=raw,
            text="".join(text),
            ids=ids,
            logprobs=logprobs,
            **({"top_logprobs": tops} if args.top_logprobs else {}),
            finish_reason=pieces.finish_reason,
            **({"guessed": pieces.n_guessed, "right": pieces.n_right} if args.draft else {}),
            seconds={key: round(value, 4) for key, value in seconds.items()},
        )
        return 0
    if text and not text[-1].endswith("\n"):
        output.line()
    if form is not None and pieces.finish_reason != "stop":
        raise ArgumentError(
            f"the answer was cut after {len(ids)} tokens, before it had its form",
            hint="allow more tokens with -n, or a narrower form",
        )
    output.note(describe_speed(len(ids), seconds))
    return 0


def form_of(args: Namespace) -> GrammarConstraint | None:
    """Return what the answer must look like; a bad form is told of before a model is loaded."""
    if args.regex is None and args.json_schema is None and not args.json_value:
        return None
    from rustllm import constrain

    if args.regex is not None:
        return constrain.regex(args.regex)
    if args.json_schema is not None:
        with error_context("reading the schema", path=args.json_schema):
            return constrain.json_schema(read_bytes(args.json_schema))
    return constrain.json_value()


def describe_speed(n_ids: int, seconds: dict[str, float]) -> str:
    """One line on how long it took."""
    decoding = seconds["all"] - seconds["first"]
    speed = f", {(n_ids - 1) / decoding:.0f} tokens/s" if n_ids > 1 and decoding > 0 else ""
    return (
        f"[loaded in {seconds['load'] * 1e3:.0f} ms, first token after "
        f"{seconds['first'] * 1e3:.0f} ms, {n_ids} tokens in {seconds['all']:.2f} s{speed}]"
    )

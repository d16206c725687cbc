"""Turn text into token ids, or show where the tokens are.

Special tokens in the text are ordinary text unless --special asks for their ids.

examples:
  rustllm encode "some text"
  rustllm encode -t cl100k_base --file book.txt --json
  rustllm encode --pieces "naïve café"
  rustllm encode --show -t o200k_base "naïve café"
  rustllm encode --html tokens.html --file book.txt
  cat book.txt | rustllm encode - | rustllm decode -
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rustllm.cli.options import add_text_arguments, add_tokenizer_arguments, read_text
from rustllm.cli.output import Output
from rustllm.cli.resolve import open_tokenizer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_text_arguments(parser, what="text")
    add_tokenizer_arguments(parser)
    parser.add_argument("--special", action="store_true", help="special tokens become their ids")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--pieces", action="store_true", help="one id and its bytes per line")
    form.add_argument(
        "--show",
        action="store_true",
        help="the text with its tokens coloured; with bars between them where NO_COLOR is set or "
        "nobody looks",
    )
    form.add_argument(
        "--html",
        metavar="FILE",
        help="write a page that shows ids, bytes and characters of the token pointed at",
    )


def run(args: Namespace) -> int:
    """Encode and print."""
    output = Output.of(args)
    text = read_text(args, what="text")
    tokenizer = open_tokenizer(args.tokenizer, output)
    if args.show or args.html is not None:
        return _show(args, output, tokenizer, text)
    if args.special:
        ids = tokenizer.encode(text, allowed_special="all")
    else:
        ids = tokenizer.encode_ordinary(text)
    ids = [int(i) for i in ids]
    if output.json:
        output.document("encode", tokenizer=args.tokenizer, count=len(ids), ids=ids)
    elif args.pieces:
        for i in ids:
            output.line(f"{i}\t{tokenizer.id_to_bytes(i)!r}")
    else:
        output.line(" ".join(map(str, ids)))
    return 0


def _show(args: Namespace, output: Output, tokenizer: Any, text: str) -> int:
    from rustllm.tokenizers.segments import segments_of

    segments = segments_of(tokenizer, text, special=args.special)
    if args.html is not None:
        from rustllm.serialize.atomic import atomic_write
        from rustllm.tokenizers.html_view import html_view

        name = Path(args.tokenizer).name
        with atomic_write(args.html) as out:
            for part in html_view(segments, name=name, n_characters=len(text)):
                out.write(part.encode("utf-8", "replace"))
    if output.json:
        tokens = [
            {"id": s.id, "bytes": s.data.hex(), "text": s.text, "start": s.start, "end": s.end}
            for s in segments
        ]
        output.document("encode", tokenizer=args.tokenizer, count=len(tokens), tokens=tokens)
    elif args.html is not None:
        output.line(f"{args.html}: {len(segments)} tokens")
    else:
        from rustllm.tokenizers.terminal_view import terminal_view

        for line in terminal_view(segments, color=output.colors):
            output.line(line)
    return 0

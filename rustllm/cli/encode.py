"""Turn text into token ids.

Special tokens in the text are ordinary text unless --special asks for their ids.

examples:
  rustllm encode "some text"
  rustllm encode -t cl100k_base --file book.txt --json
  rustllm encode --pieces "naïve café"
  cat book.txt | rustllm encode - | rustllm decode -
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rustllm.cli.options import add_text_arguments, add_tokenizer_arguments, read_text
from rustllm.cli.output import Output
from rustllm.cli.resolve import open_tokenizer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_text_arguments(parser, what="text")
    add_tokenizer_arguments(parser)
    parser.add_argument("--special", action="store_true", help="special tokens become their ids")
    parser.add_argument("--pieces", action="store_true", help="one id and its bytes per line")


def run(args: Namespace) -> int:
    """Encode and print."""
    output = Output.of(args)
    text = read_text(args, what="text")
    tokenizer = open_tokenizer(args.tokenizer, output)
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

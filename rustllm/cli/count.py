"""Count the tokens of texts and files.

examples:
  rustllm count "some text"
  rustllm count -t cl100k_base --file README.md --file CHANGELOG.md
  cat book.txt | rustllm count -
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from rustllm.cli.options import STDIN, add_tokenizer_arguments, decode_utf8, read_bytes
from rustllm.cli.output import Output
from rustllm.cli.resolve import open_tokenizer
from rustllm.errors import ArgumentError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("text", nargs="*", help="texts to count; - reads stdin")
    parser.add_argument(
        "-f", "--file", action="append", default=[], metavar="PATH", help="a file; repeatable"
    )
    add_tokenizer_arguments(parser)


def run(args: Namespace) -> int:
    """Count and print: one number, or a line for each of several inputs and their sum."""
    output = Output.of(args)
    if not args.text and not args.file:
        raise ArgumentError("nothing to count", hint="pass a text, - for stdin, or --file")
    texts: list[tuple[str, str]] = []
    for i, text in enumerate(args.text):
        if text == STDIN:
            texts.append(("stdin", decode_utf8(read_bytes(STDIN), STDIN)))
        else:
            raw = text.encode("utf-8", "surrogateescape")
            texts.append((f"text {i + 1}", decode_utf8(raw, f"text {i + 1}")))
    texts.extend((path, decode_utf8(read_bytes(path), path)) for path in args.file)
    tokenizer = open_tokenizer(args.tokenizer, output)
    rows = [(name, int(tokenizer.count(text)), len(text.encode())) for name, text in texts]
    total = sum(count for _, count, _ in rows)
    if output.json:
        output.document(
            "count",
            tokenizer=args.tokenizer,
            total=total,
            inputs=[{"name": n, "tokens": c, "bytes": b} for n, c, b in rows],
        )
    elif len(rows) == 1:
        output.line(str(total))
    else:
        width = len(str(total))
        for name, count, _ in rows:
            output.line(f"{count:{width}}  {name}")
        output.line(f"{total:{width}}  total")
    return 0

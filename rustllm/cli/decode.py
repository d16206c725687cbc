"""Turn token ids into text.

Ids are separated by spaces, commas or line ends; a JSON array and the document that
`rustllm encode --json` prints are read too. Bytes are written as they are, even where they are not
whole characters.

examples:
  rustllm decode 504 3575 282
  rustllm decode -t cl100k_base --file ids.txt
  rustllm encode --json "some text" | rustllm decode -
"""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, Namespace

from rustllm.cli.options import (
    STDIN,
    add_tokenizer_arguments,
    decode_utf8,
    read_bytes,
)
from rustllm.cli.output import Output
from rustllm.cli.resolve import open_tokenizer
from rustllm.errors import ArgumentError

__all__ = ["add_arguments", "parse_ids", "run"]

MAX_DIGITS = 10  # of an id: ids are 32-bit; also keeps int() linear on hostile input


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("ids", nargs="*", help="token ids; - reads stdin")
    parser.add_argument("-f", "--file", metavar="PATH", help="read ids from a file")
    add_tokenizer_arguments(parser)


def run(args: Namespace) -> int:
    """Decode and print."""
    output = Output.of(args)
    if args.file is not None and args.ids:
        raise ArgumentError("ids are given twice", hint="either arguments or --file, not both")
    if args.file is None and not args.ids:
        raise ArgumentError("no ids", hint="pass them as arguments, as - for stdin, or with --file")
    path = args.file if args.file is not None else STDIN
    if args.file is not None or args.ids == [STDIN]:
        ids = parse_ids(decode_utf8(read_bytes(path), path))
    else:
        ids = parse_ids(" ".join(args.ids))
    tokenizer = open_tokenizer(args.tokenizer, output)
    raw: bytes = tokenizer.decode_bytes(ids)
    if output.json:
        output.document(
            "decode",
            tokenizer=args.tokenizer,
            count=len(ids),
            text=raw.decode("utf-8", "replace"),
            bytes_hex=raw.hex(),
        )
    else:
        output.write(raw)
        if output.shows_text and not raw.endswith(b"\n"):
            output.line()
    return 0


def parse_ids(text: str) -> list[int]:
    """Read ids out of text.

    Examples
    --------
    >>> from rustllm.cli.decode import parse_ids
    >>> parse_ids("1, 2 3"), parse_ids('{"ids": [4, 5]}'), parse_ids("[6]")
    ([1, 2, 3], [4, 5], [6])
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            found = json.loads(text)["ids"]
        except (ValueError, KeyError, RecursionError) as error:
            raise ArgumentError("JSON without a list of ids under the key 'ids'") from error
        if not isinstance(found, list) or not all(type(i) is int for i in found):
            raise ArgumentError("JSON whose 'ids' is not a list of whole numbers")
        return found
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    ids = []
    for number, word in enumerate(re.split(r"[\s,]+", text.strip(" ,\t\r\n"))):
        if not word:
            continue
        if not (word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS):
            raise ArgumentError(f"{word[:40]!r}, item {number + 1}, is not a token id")
        ids.append(int(word))
    return ids

"""Write a tokenizer in another format, if that format gives the same ids; say why not otherwise.

Formats: tokenizer.json, tiktoken, tekken, vocab-merges, gguf, sentencepiece. The name of the target
says which, or --format.

examples:
  rustllm convert o200k_base tokenizer.json
  rustllm convert model.gguf tokenizer.json
  rustllm convert tokenizer.model vocabulary.gguf
  rustllm convert gpt2/tokenizer.json gpt2-files/ --format vocab-merges
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from rustllm.cli.output import Output
from rustllm.cli.resolve import open_tokenizer

__all__ = ["FORMATS", "add_arguments", "run"]

FORMATS = ("tokenizer.json", "tiktoken", "tekken", "vocab-merges", "gguf", "sentencepiece")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", help="an encoding, a named model, or a tokenizer or model file")
    parser.add_argument("target", help="the file to write, or the folder for vocab-merges")
    parser.add_argument("--format", choices=FORMATS, help="default: what the target's name says")


def run(args: Namespace) -> int:
    """Convert and tell what was written."""
    from rustllm.tokenizers.conversion import format_of_path, save_tokenizer

    output = Output.of(args)
    format = args.format
    if format == "vocab-merges":
        Path(args.target).mkdir(parents=True, exist_ok=True)
    elif format is None:
        format = format_of_path(args.target)
    tokenizer = open_tokenizer(args.source, output)
    save_tokenizer(tokenizer, args.target, format)
    if output.json:
        output.document("convert", target=args.target, format=format, n_vocab=tokenizer.n_vocab)
    else:
        output.line(f"{args.target}: {tokenizer.n_vocab:,} ids as {format}")
    return 0

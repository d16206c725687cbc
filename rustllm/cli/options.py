"""Arguments that several commands share, and the input that they name."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rustllm.errors import ArgumentError, FileAccessError, FileMissingError

__all__ = [
    "access",
    "add_action_argument",
    "add_generation_arguments",
    "add_model_arguments",
    "add_sampling_arguments",
    "add_text_arguments",
    "add_tokenizer_arguments",
    "decode_utf8",
    "read_bytes",
    "read_text",
    "sampling_options",
]

STDIN = "-"


def add_action_argument(parser: argparse.ArgumentParser, actions: Mapping[str, str]) -> None:
    """Declare the word that says what a command is to do, and what each such word means."""
    parser.add_argument(
        "action",
        choices=[*actions],
        metavar="{" + ",".join(actions) + "}",  # what an error calls it when it is missing
        help="; ".join(f"{name}: {meaning}" for name, meaning in actions.items()),
    )


def whole(least: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number of at least ``least``."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return convert


def real(least: float, most: float = math.inf) -> Callable[[str], float]:
    """Return an argparse type: a finite number in ``[least, most]``."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not (math.isfinite(value) and least <= value <= most):
            bounds = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"{text} is not {bounds}")
        return value

    return convert


def add_text_arguments(parser: argparse.ArgumentParser, *, what: str) -> None:
    """Add the text to work on: words, ``-`` for stdin, or ``--file``."""
    parser.add_argument("text", nargs="?", help=f"{what}; - reads stdin")
    parser.add_argument("-f", "--file", metavar="PATH", help=f"read {what} from a file (UTF-8)")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a model and how it runs."""
    from rustllm.models.store import DEFAULT_MODEL

    group = parser.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|PATH",
        help="a name that `rustllm pull --list` shows, or a model file (default: %(default)s)",
    )
    group.add_argument("--threads", type=whole(1), metavar="N", help="threads (default: all cores)")
    group.add_argument("--context", type=whole(1), metavar="N", help="tokens of context to hold")
    group.add_argument(
        "--exact", action="store_true", help="float32 activations: slower, the reference result"
    )
    group.add_argument(
        "--kv-dtype",
        choices=("float16", "bfloat16", "int8", "float32"),
        help="what keys and values are kept in; int8 takes half the memory (default: float16)",
    )


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how the next token is chosen and when to stop."""
    # Cooler than the library's defaults: the models that fit a first try are small, and ramble.
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "-n", "--max-tokens", type=whole(1), default=256, metavar="N", help="(default: %(default)s)"
    )
    group.add_argument(
        "--temperature",
        type=real(0),
        default=0.2,
        metavar="T",
        help="0 always takes the likeliest token (default: %(default)s)",
    )
    group.add_argument("--top-k", type=whole(0), metavar="K", help="keep the K likeliest tokens")
    group.add_argument(
        "--top-p",
        type=real(0, 1),
        default=0.9,
        metavar="P",
        help="keep this much probability (default: %(default)s)",
    )
    group.add_argument(
        "--min-p", type=real(0, 1), metavar="P", help="drop tokens below P times the likeliest"
    )
    group.add_argument(
        "--typical",
        dest="typical_p",
        type=real(0, 1),
        metavar="P",
        help="keep this much probability nearest to the typical",
    )
    group.add_argument(
        "--repeat-penalty", type=real(0), metavar="X", help="above 1: repeat less (1.1 is usual)"
    )
    group.add_argument(
        "--frequency-penalty", type=real(-100, 100), metavar="X", help="for each time it was said"
    )
    group.add_argument(
        "--presence-penalty", type=real(-100, 100), metavar="X", help="once it was said"
    )
    group.add_argument(
        "--repeat-last-n",
        type=whole(-1),
        metavar="N",
        help="tokens the penalties look back; -1 all",
    )
    group.add_argument("--seed", type=whole(0), metavar="N", help="same seed, same text")
    group.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="stop before TEXT; repeatable"
    )


def add_generation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what goes beyond choosing tokens: log-probabilities, drafts, the end of the context."""
    group = parser.add_argument_group("generation")
    group.add_argument(
        "--logprobs",
        dest="top_logprobs",
        type=whole(0),
        metavar="N",
        help="with --json: the N likeliest tokens at each place, with log-probabilities",
    )
    group.add_argument(
        "--draft",
        metavar="lookup|NAME|PATH",
        help="guess ahead from the text so far or with a smaller model: faster, the same text",
    )
    group.add_argument(
        "--draft-tokens", type=whole(1), metavar="N", help="tokens to guess at a time (default: 8)"
    )
    group.add_argument(
        "--context-shift",
        type=whole(0),
        metavar="N",
        help="when the context is full, keep N first tokens and the later half, and go on",
    )


def sampling_options(args: argparse.Namespace) -> dict[str, object]:
    """Return the keyword arguments of ``generate`` and ``chat`` that were given."""
    chosen: dict[str, object] = {"max_tokens": args.max_tokens}
    names = (
        "temperature top_k top_p min_p typical_p repeat_penalty frequency_penalty presence_penalty "
        "repeat_last_n seed top_logprobs draft draft_tokens context_shift"
    )
    for name in names.split():
        value = getattr(args, name, None)
        if value is not None:
            chosen[name] = value
    if args.stop:
        chosen["stop"] = tuple(args.stop)
    return chosen


def add_tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a tokenizer."""
    from rustllm.models.store import DEFAULT_MODEL

    parser.add_argument(
        "-t",
        "--tokenizer",
        default=DEFAULT_MODEL,
        metavar="NAME|PATH",
        help="an encoding (cl100k_base), a named model, or a tokenizer or model file "
        "(default: %(default)s)",
    )


@contextmanager
def access(path: str) -> Iterator[None]:
    """Turn what the operating system says of a file into our errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileMissingError("no such file", path=path, hint="check the name") from error
    except OSError as error:
        text = error.strerror or str(error)
        raise FileAccessError(text, path=path, errno=error.errno) from error


def read_bytes(path: str) -> bytes:
    """Read a whole file, or stdin for ``-``."""
    if path == STDIN:
        return sys.stdin.buffer.read()
    with access(path):
        return Path(path).read_bytes()


def decode_utf8(raw: bytes, path: str) -> str:
    """Decode strictly; the error says where the first bad byte is."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"not UTF-8: byte 0x{raw[error.start]:02x}",
            path="stdin" if path == STDIN else path,
            offset=error.start,
            hint="convert it first, for example with iconv -t UTF-8",
        ) from error


def read_text(args: argparse.Namespace, *, what: str) -> str:
    """Return the text that the arguments name."""
    if args.file is not None:
        if args.text is not None:
            raise ArgumentError(f"{what} is given twice", hint="either words or --file, not both")
        return decode_utf8(read_bytes(args.file), args.file)
    if args.text is None:
        raise ArgumentError(f"no {what}", hint="pass it in quotes, as - for stdin, or with --file")
    if args.text == STDIN:
        return decode_utf8(read_bytes(STDIN), STDIN)
    # Arguments that are not valid in the locale arrive as lone surrogates.
    return decode_utf8(args.text.encode("utf-8", "surrogateescape"), f"the {what}")

"""The command line: ``rustllm`` and ``python -m rustllm``.

Each sub-command is one file of this folder with ``add_arguments(parser)`` and ``run(args) -> int``,
imported only when it is the one that was asked for, so that ``rustllm --help`` loads no numpy and
``rustllm encode`` no model code. To add one: write the file, add its row to ``COMMANDS``.

Data goes to stdout, everything else to stderr; the exit status tells the class of an error
(:attr:`rustllm.errors.RustLLMError.exit_code`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["COMMANDS", "build_parser", "main"]

# Name -> what it does, in the order of `rustllm --help`. The module is rustllm.cli.<name>.
COMMANDS = {
    "generate": "answer or continue a prompt with a model",
    "chat": "talk to a model, interactively or once",
    "score": "tell how likely a model finds a text",
    "encode": "text to token ids",
    "decode": "token ids to text",
    "count": "count the tokens of texts and files",
    "compare": "show where two tokenizers differ on a text, and what it costs",
    "train": "learn a vocabulary from files of text",
    "convert": "write a tokenizer in another format",
    "inspect": "show what a model file holds",
    "pull": "fetch a named model into the cache",
    "corpus": "make, check and describe token shards for training",
    "quantize": "write a model as GGUF in another block type",
    "bench": "measure this machine, a model or a tokenizer",
    "plugins": "look at plugins: list, doctor, why, graph, lock",
    "config": "show the settings in force and where they come from",
}

EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_CLOSED_PIPE = 141  # 128 + SIGPIPE, what a shell reports for a program that the signal ended

EPILOG = """\
examples:
  rustllm generate "Why is the sky blue?"
  rustllm chat -m smollm2-135m-instruct "Name three prime numbers."
  echo "some text" | rustllm count -
  rustllm inspect model.gguf --plan

`rustllm COMMAND --help` has more examples. Exit status: 0 done, 2 bad arguments or input,
3 a file or download cannot be reached, 4 a file is damaged or unsupported, 5 an optional package
is missing, 6 out of memory, 7 something is wrong with a plugin, 130 interrupted, 1 anything else.
"""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Build the parser; only ``command``'s own arguments are added, and only its module imported.

    Parameters
    ----------
    command : str, optional
        Name of the sub-command whose arguments are wanted.

    Examples
    --------
    >>> from rustllm.cli import build_parser
    >>> build_parser("count").parse_args(["count", "two words"]).command
    'count'
    """
    from rustllm import __version__

    parser = argparse.ArgumentParser(
        prog="rustllm",
        description="Tokenizers and language models on a CPU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rustllm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name == command:
            module = import_module(f"rustllm.cli.{name}")
            sub.description = module.__doc__
            module.add_arguments(sub)
            every = sub.add_argument_group("every command")
            every.add_argument("--json", action="store_true", help="one JSON document on stdout")
            every.add_argument(
                "-q", "--quiet", action="store_true", help="no progress, no timing on stderr"
            )
            every.add_argument(
                "--debug", action="store_true", help="show the traceback of an error"
            )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; ``sys.argv[1:]`` if not given.

    Returns
    -------
    int
        0 on success, otherwise the ``exit_code`` of the error's class.

    Examples
    --------
    >>> from rustllm.cli import main
    >>> main(["count", "--tokenizer", "no-such-name", "text"])
    3
    """
    from rustllm.cli.interrupt import interruptible

    words = list(sys.argv[1:] if argv is None else argv)
    # The command is the first word that is not an option: no option before it takes a value.
    command = next((word for word in words if not word.startswith("-")), None)
    debug = "--debug" in words
    try:
        with interruptible():
            parser = build_parser(command)
            args = parser.parse_args(words)
            if args.command is None:
                parser.print_help()
                return 0
            status: int = import_module(f"rustllm.cli.{args.command}").run(args)
            sys.stdout.flush()
            return status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _closed_pipe()
    except Exception as error:
        from rustllm.cli.report import report

        try:
            return report(error, json="--json" in words, command=command, debug=debug)
        except BrokenPipeError:
            return _closed_pipe()


def _closed_pipe() -> int:
    """Keep the interpreter from complaining, at exit, that stdout cannot be flushed."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):  # stdout is not a file: nothing to keep quiet
        pass
    return EXIT_CLOSED_PIPE

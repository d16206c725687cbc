"""From what a person typed to a tokenizer or a model: a path, else a name that rustllm knows."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from rustllm.cli.output import Output
from rustllm.errors import FileMissingError

__all__ = ["open_draft", "open_model", "open_tokenizer"]


def open_tokenizer(choice: str, output: Output) -> Any:
    """Load the tokenizer of a file, a named model or a named encoding, in this order."""
    from rustllm.models import store

    if Path(choice).exists():
        from rustllm.tokenizers import load_tokenizer

        return load_tokenizer(choice)
    if choice in store.MODELS:
        from rustllm.tokenizers import load_tokenizer

        with output.progress() as progress:
            path = store.find_model(choice, progress=progress)
        return load_tokenizer(path)
    if "/" in choice or "\\" in choice or Path(choice).suffix:
        raise FileMissingError("no such file", path=choice, hint="check the path")
    from rustllm.tokenizers import get_encoding, list_encoding_names

    names = list_encoding_names()
    if choice in names:
        return get_encoding(choice)
    from rustllm.plugins import lookup
    from rustllm.plugins import names as offered

    third_party = offered("tokenizer")
    if choice in third_party:
        return lookup("tokenizer", choice)()
    known = ", ".join([*store.MODELS, *names, *third_party])
    raise FileMissingError(
        "no file and no tokenizer of this name", path=choice, hint=f"names: {known}"
    )


def open_draft(choice: str, args: Namespace, output: Output) -> Any:
    """Return what guesses ahead: ``"lookup"``, or the model of that name or path."""
    if choice == "lookup":
        return choice
    return open_model(Namespace(**{**vars(args), "model": choice}), output)


def open_model(args: Namespace, output: Output) -> Any:
    """Load the model that the arguments name, fetching a named one first if it is not here."""
    from rustllm.models import store
    from rustllm.models.load import load_model

    with output.progress() as progress:
        path = store.resolve_model(args.model, progress=progress)
    return load_model(path, threads=args.threads, exact=args.exact, kv_dtype=args.kv_dtype)

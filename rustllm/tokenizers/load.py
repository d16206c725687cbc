"""One function that opens a tokenizer file of any known format, by its content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm.errors import FileAccessError, FileMissingError, UnsupportedError, convert_errors
from rustllm.plugins.builtin import for_file, lookup
from rustllm.traits import Tokenizer

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["load_tokenizer", "open_gguf", "open_ranks"]

_IN_FOLDER = ("tokenizer.json", "tekken.json", "tokenizer.model", "vocab.json")


@convert_errors()
def load_tokenizer(path: PathLikeStr, **options: Any) -> Tokenizer[Any]:
    """Open a tokenizer file, or the tokenizer of a model file or folder.

    Parameters
    ----------
    path : path
        ``.tiktoken`` ranks, ``tokenizer.json``, SentencePiece ``.model``, ``.gguf``, or a folder
        that holds one of them. What the content says counts, not the name, but for ranks: the name
        of an encoding that they belong to comes from the name of the file.
    **options
        For ranks: ``encoding``, the name whose pattern and special tokens to use.

    Returns
    -------
    Tokenizer

    Raises
    ------
    FileMissingError, FileAccessError
        The file is not there or cannot be read.
    FileFormatError
        The file breaks the rules of its format.
    UnsupportedError
        The format, or a part of the tokenizer, is not implemented.
    """
    place = Path(path)
    if place.is_dir():
        for name in _IN_FOLDER:
            if (place / name).is_file():
                return load_tokenizer(place / name, **options)
        raise FileMissingError(
            "the folder holds no tokenizer", path=str(place), hint=f"looked for {_IN_FOLDER}"
        )
    try:
        with place.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise FileMissingError("no such file", path=str(place)) from None
    except OSError as error:
        raise FileAccessError(
            os.strerror(error.errno or 0), path=str(place), errno=error.errno
        ) from None
    if head[:4] == b"GGUF":
        kind = "gguf"
    elif head.lstrip()[:1] == b"{":
        kind = "tokenizer-json"
    elif _looks_like_ranks(head):
        kind = "tiktoken"
    elif head[:1] == b"\n":  # field 1 of a message: the first piece
        kind = "sentencepiece"
    else:
        kind = None
    if kind is not None:
        open_it = lookup("tokenizer_format", kind)
    else:
        open_it = for_file("tokenizer_format", place, head)
    if open_it is not None:
        if kind in ("gguf", "sentencepiece"):  # these say everything themselves
            options = {}
        tokenizer: Tokenizer[Any] = open_it(place, **options)
        return tokenizer
    raise UnsupportedError(
        "this is no tokenizer file that rustllm knows",
        path=str(place),
        hint="known are tiktoken ranks, tokenizer.json, SentencePiece models and GGUF",
    )


def _looks_like_ranks(head: bytes) -> bool:
    first = head.split(b"\n", 1)[0].split()
    return len(first) == 2 and first[1].isdigit()


def open_ranks(path: PathLikeStr, *, encoding: str | None = None) -> Tokenizer[Any]:
    """Open tiktoken ranks as the encoding called `encoding`, or called as the file is."""
    from rustllm.tokenizers.registry import get_encoding, list_encoding_names

    place = Path(path)
    name = place.name.split(".")[0] if encoding is None else encoding
    if encoding is None and name not in list_encoding_names():
        raise UnsupportedError(
            "ranks alone do not say how text is cut, and this name is no known encoding",
            path=str(place),
            hint=f"pass encoding=, one of {', '.join(list_encoding_names())}",
        )
    return get_encoding(name, vocab=place)


def open_gguf(path: PathLikeStr) -> Tokenizer[Any]:
    """Open the tokenizer inside a GGUF file."""
    from rustllm.loaders.gguf import GGUFFile
    from rustllm.tokenizers.gguf import tokenizer_from_gguf

    with GGUFFile(path) as gguf:
        return tokenizer_from_gguf(gguf)

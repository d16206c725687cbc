"""Save a tokenizer in any format that can hold it, whatever format it was read from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm.errors import ArgumentError, UnsupportedError
from rustllm.tokenizers import save_formats
from rustllm.tokenizers.byte_bpe import byte_bpe_of
from rustllm.traits import Tokenizer

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["FORMATS", "format_of_path", "save_tokenizer"]

# Name of a format -> what writes a byte-level vocabulary in it.
FORMATS: dict[str, Callable[[Any, Path], None] | None] = {
    "tokenizer.json": save_formats.save_tokenizer_json,
    "tiktoken": save_formats.save_tiktoken,
    "tekken": save_formats.save_tekken,
    "vocab-merges": save_formats.save_vocab_merges,
    "gguf": save_formats.save_gguf,
    "sentencepiece": None,
}


def format_of_path(path: PathLikeStr) -> str:
    """The format that a file name means.

    >>> format_of_path("x/tekken.json"), format_of_path("tokenizer.json"), format_of_path("a.gguf")
    ('tekken', 'tokenizer.json', 'gguf')

    Raises
    ------
    ArgumentError
        The name says nothing.
    """
    place = Path(path)
    if place.is_dir():
        return "vocab-merges"
    if place.suffix == ".json":
        return "tekken" if place.name.startswith("tekken") else "tokenizer.json"
    known = {".tiktoken": "tiktoken", ".gguf": "gguf", ".model": "sentencepiece"}
    if place.suffix in known:
        return known[place.suffix]
    raise ArgumentError(
        f"the name {place.name!r} does not say in which format to write",
        key="format",
        hint=f"name one of {', '.join(FORMATS)}, or end in .json, .gguf, .model",
    )


def save_tokenizer(
    tokenizer: Tokenizer[Any] | Any, path: PathLikeStr, format: str | None = None
) -> None:
    """Write `tokenizer` to `path`.

    Parameters
    ----------
    tokenizer : Tokenizer, or what a trainer returned
    path : path
        A file, or for ``vocab-merges`` a folder that exists.
    format : {"tokenizer.json", "tiktoken", "tekken", "vocab-merges", "gguf", "sentencepiece"}
        The one that the name says by default; see `format_of_path`.

    Raises
    ------
    UnsupportedError
        The format cannot hold this tokenizer so that it gives the same ids for every text; the
        message says why.
    FileMissingError, FileAccessError
        The file cannot be written; what was there before is still there.

    Notes
    -----
    Truncation, padding and post-processors are no part of ids: only ``tokenizer.json`` read from
    ``tokenizer.json`` keeps them.

    Examples
    --------
    >>> import tempfile
    >>> from rustllm import BpeTrainer, load_tokenizer
    >>> trained = BpeTrainer(260).train(["low lower lowest"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_tokenizer(trained, f"{folder}/small.gguf")
    ...     load_tokenizer(f"{folder}/small.gguf").encode("lower") == trained.encode("lower")
    True
    """
    from rustllm.tokenizers.bpe import BpeTokenizer
    from rustllm.tokenizers.pipeline_tokenizer import JsonBpeTokenizer, PipelineTokenizer
    from rustllm.tokenizers.sentencepiece import SentencePieceTokenizer

    if format is None:
        format = format_of_path(path)
    if format not in FORMATS:
        raise ArgumentError(f"unknown format {format!r}", hint=f"known are {', '.join(FORMATS)}")
    place = Path(path)
    if format == "tokenizer.json" and isinstance(tokenizer, JsonBpeTokenizer | PipelineTokenizer):
        tokenizer.save(place)
        return
    if format == "sentencepiece" and isinstance(tokenizer, SentencePieceTokenizer):
        tokenizer.save(place)
        return
    # What marks spaces is SentencePiece's, whether it was read from a .model or from GGUF.
    marked = isinstance(tokenizer, SentencePieceTokenizer) or (
        type(tokenizer) is BpeTokenizer and tokenizer._encoder.parts["spaces"]
    )
    if format == "sentencepiece" or (format == "gguf" and marked):
        from rustllm.tokenizers import sentencepiece_writer

        if format == "gguf":
            sentencepiece_writer.save_sentencepiece_gguf(tokenizer, place)
        else:
            sentencepiece_writer.save_sentencepiece(tokenizer, place)
        return
    if format == "tokenizer.json" and marked:
        _refuse_lists_of_merges(tokenizer)
    write = FORMATS[format]
    assert write is not None
    write(byte_bpe_of(tokenizer), place)


def _refuse_lists_of_merges(tokenizer: Any) -> None:
    """Say why SentencePiece's vocabularies are not written as ``tokenizer.json``."""
    if getattr(tokenizer, "_unigram", None) is not None:
        reason = "it adds scores up in single precision, and that format in double precision"
    else:
        reason = (
            "it merges by the score of what is made, the leftmost of two ways first; a list of "
            "merges puts one of the ways first everywhere"
        )
    raise UnsupportedError(
        f"{tokenizer.name} cannot be written as tokenizer.json without changing ids: {reason}",
        key="tokenizer.json",
        hint="save it as a .model",
    )

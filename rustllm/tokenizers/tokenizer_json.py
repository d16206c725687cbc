"""Read ``tokenizer.json``, the format of Hugging Face's ``tokenizers``.

Every component is read strictly, and one that is not implemented is refused by its name: a
pre-tokenizer that is passed over gives other ids without anyone noticing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm.errors import FileAccessError, FileFormatError, FileMissingError
from rustllm.tokenizers.added_tokens import AddedToken
from rustllm.tokenizers.fast_bpe import fast_bpe
from rustllm.tokenizers.pipeline import Pipeline, parse_json
from rustllm.tokenizers.pipeline_tokenizer import (
    JsonBpeTokenizer,
    PipelineTokenizer,
    WordEncoder,
)

if TYPE_CHECKING:
    from rustllm.traits import Tokenizer

__all__ = ["from_bytes", "load"]


def load(path: str | os.PathLike[str]) -> Tokenizer[Any]:
    """Open a ``tokenizer.json``, a ``tekken.json``, or a ``vocab.json`` beside a ``merges.txt``.

    Returns
    -------
    JsonBpeTokenizer, BpeTokenizer or PipelineTokenizer
        The first two if the compiled encoder runs the text as it is.

    Raises
    ------
    FileMissingError, FileAccessError
        The file cannot be read.
    FileFormatError
        It breaks the rules of the format.
    UnsupportedError
        It has a component that is not implemented; the message names it.
    """
    place = Path(path)
    try:
        source = place.read_bytes()
    except FileNotFoundError as error:
        raise FileMissingError("no such file", path=place) from error
    except OSError as error:
        raise FileAccessError(str(error), path=place, errno=error.errno) from error
    name = place.stem if place.stem != "tokenizer" else place.parent.name
    try:
        content = _parse(source)
        # a vocab.json first: any key may be one of its tokens
        if content and all(type(id) is int for id in content.values()):
            from rustllm.tokenizers.vocab_merges import content_of_vocab_and_merges

            content = content_of_vocab_and_merges(content, place.with_name("merges.txt"))
            source = json.dumps(content, ensure_ascii=False).encode()
        elif "model" not in content and isinstance(content.get("vocab"), list):
            from rustllm.tokenizers.tekken import tokenizer_from_tekken

            return tokenizer_from_tekken(content, name)
        return _from_content(content, source, name)
    except FileFormatError as error:
        error.fields.setdefault("path", str(place))
        raise


def from_bytes(source: bytes, name: str = "tokenizer.json") -> Tokenizer[Any]:
    """Build the tokenizer that the bytes of a ``tokenizer.json`` describe."""
    return _from_content(_parse(source), source, name)


def _parse(source: bytes) -> dict[str, Any]:
    try:
        content = parse_json(source)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"this is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise FileFormatError("this is no JSON object")
    return content


def _from_content(content: dict[str, Any], source: bytes, name: str) -> Tokenizer[Any]:
    try:
        pipeline = Pipeline(content)
    except RecursionError:
        raise FileFormatError("components within components without end") from None
    fast = fast_bpe(pipeline)
    n_stripped = _n_stripped(content.get("decoder")) if fast is not None else -1
    tokens = pipeline.added.tokens
    if fast is not None and fast.is_direct and n_stripped >= 0 and _found_at_once(pipeline):
        return JsonBpeTokenizer(
            fast.encoder,
            source=source,
            n_stripped=n_stripped,
            name=name,
            special_tokens={token.content: token.id for token in tokens if token.special},
            added_tokens={
                token.content: token.id for token in tokens if not token.special and token.content
            },
        )
    words = _word_encoder(pipeline) if fast is None and pipeline.added.is_early else None
    return PipelineTokenizer(source, pipeline, fast, name, n_stripped, words)


def _word_encoder(pipeline: Pipeline) -> WordEncoder | None:
    from rustllm.tokenizers.fast_unigram import fast_unigram
    from rustllm.tokenizers.fast_wordpiece import fast_wordpiece

    return fast_wordpiece(pipeline) or fast_unigram(pipeline)


def _n_stripped(decoder: Any) -> int:
    """Spaces that the decoder strips from the text; -1 if it is not one of bytes."""
    if decoder is None:
        return -1
    if decoder["type"] == "ByteLevel":
        return 0
    parts = decoder.get("decoders", [decoder])
    usual = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if parts == usual:
        return 0
    if parts[:3] == usual and len(parts) == 4:
        last = parts[3]
        if last["type"] == "Strip" and last.get("content") == " " and last.get("stop") == 0:
            start: int = last["start"]
            return start
    return -1


def _found_at_once(pipeline: Pipeline) -> bool:
    """Whether all added tokens can be looked for in the text as it is, in one go."""
    tokens = [token for token in pipeline.added.tokens if token.content]
    if not all(token.is_plain for token in tokens):
        return False
    late = [token for token in tokens if token.normalized]
    if late and pipeline.normalizer is not None:
        return False
    early = [token for token in tokens if not token.normalized]
    return not late or not early or not _overlap(early, late)


def _overlap(early: list[AddedToken], late: list[AddedToken]) -> bool:
    """Whether an occurrence of one of `early` can share characters with one of `late`."""
    if len(early) * len(late) > 1 << 20:
        return True
    for one in early:
        for other in late:
            a, b = one.content, other.content
            if a in b or b in a:
                return True
            for n in range(1, min(len(a), len(b))):
                if a.endswith(b[:n]) or b.endswith(a[:n]):
                    return True
    return False

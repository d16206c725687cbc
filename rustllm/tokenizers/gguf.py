"""The tokenizer that a GGUF file carries.

Two kinds: ``gpt2``, byte-level BPE with explicit merges, and ``llama``, SentencePiece's BPE, which
merges by scores and spells what it lacks in byte tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm._core.byte_level import decode_vocabulary, merge_ids
from rustllm._core.encoder import Encoder
from rustllm._core.split import pattern_id
from rustllm.errors import FileFormatError, UnsupportedError
from rustllm.tokenizers.bpe import BpeTokenizer

if TYPE_CHECKING:
    from rustllm.loaders.gguf import GGUFFile

__all__ = ["PATTERNS", "tokenizer_from_gguf"]

_PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_NO_ID = 0x7FFFFFFF

# Name of the pre-tokenizer in the file -> (pattern, whether a pretoken that is a token is kept).
PATTERNS = {
    "default": ("gpt2", False),
    "gpt-2": ("gpt2", False),
    "smollm": ("smollm", False),
    "llama-bpe": ("cl100k", True),
    "llama3": ("cl100k", True),
    "llama-v3": ("cl100k", True),
    "qwen2": ("qwen2", False),
    "deepseek-v3": ("deepseek", False),
    "deepseek-r1-qwen": ("qwen2", False),
    "gpt-4o": ("o200k", False),
    "tekken": ("tekken", True),
}
_END_NAMES = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>")


def tokenizer_from_gguf(file: GGUFFile) -> BpeTokenizer:
    """Build the tokenizer described by the metadata of `file`.

    Parameters
    ----------
    file : GGUFFile

    Returns
    -------
    BpeTokenizer
        ``bos_id``, ``eos_id``, ``end_ids`` and ``add_bos`` are set from the file.

    Raises
    ------
    UnsupportedError
        The kind of tokenizer or its pre-tokenizer is not implemented; ``key`` says which.
    FileFormatError
        A needed key is missing, or tokens, types, scores and merges contradict each other.
    """
    reader = _Metadata(file.metadata, getattr(file, "path", None))
    kind = reader.text("model")
    if kind == "gpt2":
        encoder, special, added = _byte_level(reader)
    elif kind == "llama":
        encoder, special, added = _sentencepiece(reader)
    else:
        raise UnsupportedError(
            f"tokenizer model {kind!r} is not implemented",
            path=reader.path,
            key=_PREFIX + "model",
            hint="gpt2 (byte-level BPE) and llama (SentencePiece BPE) are",
        )
    n = encoder.n_vocab
    eos = reader.id("eos_token_id", n)
    ends = {special[name] for name in _END_NAMES if name in special}
    for key in ("eot_token_id", "eom_token_id"):
        id = reader.id(key, n)
        if id is not None:
            ends.add(id)
    return BpeTokenizer(
        encoder,
        name=f"gguf-{kind}",
        special_tokens=special,
        added_tokens=added,
        bos_id=reader.id("bos_token_id", n),
        eos_id=eos,
        end_ids=ends,
        add_bos=reader.flag("add_bos_token", kind == "llama"),
        add_eos=reader.flag("add_eos_token", False),
    )


class _Metadata:
    """The ``tokenizer.ggml.`` keys of a file, each checked when it is read."""

    def __init__(self, metadata: Mapping[str, Any], path: Any) -> None:
        self.metadata = metadata
        self.path = path

    def error(self, key: str, message: str) -> FileFormatError:
        return FileFormatError(
            message,
            hint="the file has no sound tokenizer: convert the model again with its vocabulary",
            path=self.path,
            key=_PREFIX + key,
        )

    def get(self, key: str, default: Any = None) -> Any:
        return self.metadata.get(_PREFIX + key, default)

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self.error(key, "the tokenizer needs this key to be a string")
        return value

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.get(key, default))

    def id(self, key: str, n: int) -> int | None:
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or not 0 <= value < n:
            raise self.error(key, f"token id {value!r} is outside the vocabulary of {n}")
        return value

    def strings(self, key: str) -> tuple[Any, Any, Any]:
        """Buffer, offsets and lengths of an array of strings."""
        value = self.get(key)
        if hasattr(value, "offsets") and hasattr(value, "buffer"):
            return value.buffer, value.offsets, value.lengths
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise self.error(key, "the tokenizer needs this key to be an array of strings")
        pieces = [v.encode("utf-8", "surrogatepass") for v in value]
        lengths = np.array([len(p) for p in pieces], dtype=np.int64)
        return b"".join(pieces), np.cumsum(lengths) - lengths, lengths

    def numbers(self, key: str, dtype: Any, n: int) -> np.ndarray[Any, Any] | None:
        value = self.get(key)
        if value is None:
            return None
        array = np.asarray(value)
        if array.shape != (n,) or array.dtype.kind not in "iuf":
            raise self.error(key, f"{n} numbers are needed, one a token")
        return array.astype(dtype)


def _kinds(reader: _Metadata, n: int) -> np.ndarray[Any, Any]:
    kinds = reader.numbers("token_type", np.int64, n)
    return np.full(n, NORMAL) if kinds is None else kinds


def _named(blob: bytes, ends: np.ndarray[Any, Any], ids: np.ndarray[Any, Any]) -> dict[str, int]:
    tokens: dict[str, int] = {}
    for id in ids.tolist():
        text = blob[ends[id] : ends[id + 1]].decode("utf-8", "replace")
        if text:
            tokens.setdefault(text, id)
    return tokens


def _byte_level(reader: _Metadata) -> tuple[Encoder, dict[str, int], dict[str, int]]:
    name = reader.get("pre", "default")
    if name not in PATTERNS:
        raise UnsupportedError(
            f"pre-tokenizer {name!r} is not implemented, and another would give other ids",
            path=reader.path,
            key=_PREFIX + "pre",
            hint=f"known are {', '.join(PATTERNS)}",
        )
    pattern, whole = PATTERNS[name]
    buffer, offsets, lengths = reader.strings("tokens")
    n = len(lengths)
    kinds = _kinds(reader, n)
    listed = kinds == NORMAL
    marks = listed.astype(np.uint8).tobytes()
    blob, ends = decode_vocabulary(buffer, offsets, lengths, (~listed).astype(np.uint8).tobytes())
    words, word_offsets, word_lengths = reader.strings("merges")
    merges, bad = merge_ids(blob, ends, marks, words, word_offsets, word_lengths)
    if bad >= 0:
        start = int(word_offsets[bad])
        word = bytes(words[start : start + int(word_lengths[bad])])
        raise reader.error("merges", f"merge {bad} {word!r} does not join two tokens to a third")
    encoder = Encoder(
        blob, ends, merges=merges, listed=marks, pattern=pattern_id(pattern), whole=whole
    )
    special = _named(blob, ends, np.flatnonzero((kinds == CONTROL) | (kinds == UNKNOWN)))
    return encoder, special, _named(blob, ends, np.flatnonzero(kinds == USER_DEFINED))


def _sentencepiece(reader: _Metadata) -> tuple[Encoder, dict[str, int], dict[str, int]]:
    from rustllm.tokenizers.sentencepiece_bpe import sentencepiece_encoder

    buffer, offsets, lengths = reader.strings("tokens")
    n = len(lengths)
    scores = reader.numbers("scores", np.float32, n)
    if scores is None:
        raise reader.error("scores", "the tokenizer needs this key: merging goes by scores")
    kinds = _kinds(reader, n)
    try:
        encoder, blob, ends = sentencepiece_encoder(
            buffer,
            offsets,
            lengths,
            scores,
            kinds,
            prefix=1 if reader.flag("add_space_prefix", True) else 0,
        )
    except ValueError as error:
        raise reader.error("tokens", str(error)) from None
    special = _named(blob, ends, np.flatnonzero((kinds == CONTROL) | (kinds == UNKNOWN)))
    return encoder, special, _named(blob, ends, np.flatnonzero(kinds == USER_DEFINED))

"""Write a SentencePiece vocabulary: its own ``.model``, or GGUF, whose kind ``llama`` it is."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from rustllm.errors import UnsupportedError
from rustllm.serialize.atomic import write_whole
from rustllm.tokenizers.bpe import BpeTokenizer
from rustllm.tokenizers.pipeline_tokenizer import PipelineTokenizer
from rustllm.tokenizers.sentencepiece import SentencePieceTokenizer
from rustllm.tokenizers.sentencepiece_model import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    SentencePieceModel,
)
from rustllm.tokenizers.unigram import UnigramModel

__all__ = ["model_bytes", "pieces_of", "save_sentencepiece", "save_sentencepiece_gguf"]

_NO_ID = 0x7FFFFFFF
_MARK = "▁"


def pieces_of(tokenizer: Any) -> SentencePieceModel:
    """Pieces and settings of a SentencePiece tokenizer, from its own file or from GGUF.

    GGUF's tokenizer keeps the order of the scores, which is all that merging goes by: the pieces
    get their places in that order, negated, for scores.

    Raises
    ------
    UnsupportedError
        It is no SentencePiece tokenizer, or one of a ``tokenizer.json``.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        return tokenizer._model
    if isinstance(tokenizer, PipelineTokenizer) and isinstance(
        tokenizer.pipeline.model, UnigramModel
    ):
        raise UnsupportedError(
            f"{tokenizer.name} cannot be written as a .model without changing ids: its scores have "
            "double precision, and those of a .model single precision",
            key="sentencepiece",
            hint="save it in its own format: tokenizer.save(path)",
        )
    parts = tokenizer._encoder.parts if type(tokenizer) is BpeTokenizer else {}
    if not parts.get("spaces") or parts["order"] is None or parts["prefix"] == 2:
        raise UnsupportedError(
            f"{tokenizer.name} is no SentencePiece vocabulary that merges by score",
            hint="save it in its own format: tokenizer.save(path)",
        )
    n = tokenizer.n_vocab
    texts = [tokenizer.id_to_bytes(id) for id in range(n)]
    kinds = [UNUSED] * n
    scores = [0.0] * n
    for place, id in enumerate(np.asarray(parts["order"]).tolist()):
        kinds[id], scores[id] = NORMAL, -float(place)
    for tokens, kind in (
        (tokenizer.added_tokens, USER_DEFINED),
        (tokenizer.special_tokens, CONTROL),
    ):
        for id in tokens.values():
            kinds[id] = kind
    fallback = parts["fallback"]
    bytes_of = {} if fallback is None else dict(zip(np.asarray(fallback).tolist(), range(256)))
    bytes_of.pop(_NO_ID, None)
    for id in bytes_of:
        kinds[id] = BYTE
    unknown = parts["unknown"]
    if unknown is not None:
        kinds[unknown] = UNKNOWN
    pieces = []
    for id, (data, score, kind) in enumerate(zip(texts, scores, kinds)):
        if kind == BYTE:
            text = f"<0x{bytes_of[id]:02X}>"
        else:
            text = data.decode("utf-8", "replace")
            text = text.replace(" ", _MARK) if kind in (NORMAL, USER_DEFINED) else text
        pieces.append((text or f"[UNUSED_{id}]", score, kind))
    model = SentencePieceModel(pieces, BPE, byte_fallback=len(bytes_of) == 256)
    model.normalizer = "identity"
    model.add_dummy_prefix = parts["prefix"] == 1
    model.remove_extra_whitespaces = False
    model.unk_id = -1 if unknown is None else unknown
    model.bos_id = -1 if tokenizer.bos_id is None else tokenizer.bos_id
    model.eos_id = -1 if tokenizer.eos_id is None else tokenizer.eos_id
    return model


# -- .model: a protocol buffer -------------------------------------------------------------------


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def model_bytes(model: SentencePieceModel) -> bytes:
    """The bytes of the ``.model`` file that holds `model`.

    >>> from rustllm.tokenizers.sentencepiece_model import read_sentencepiece_model
    >>> model = SentencePieceModel([("<unk>", 0.0, 2), ("a", -1.5, 1)])
    >>> read_sentencepiece_model(model_bytes(model)) == model
    True
    """
    out = []
    for text, score, kind in model.pieces:
        data = _message(1, text.encode("utf-8")) + _varint(2 << 3 | 5) + struct.pack("<f", score)
        out.append(_message(1, data + _number(3, kind)))
    trainer = _number(3, model.kind) + _number(4, len(model.pieces))
    for field, flag in ((24, model.whitespace_is_suffix), (35, model.byte_fallback)):
        trainer += _number(field, int(flag))
    for field, id in enumerate((model.unk_id, model.bos_id, model.eos_id, model.pad_id), 40):
        trainer += _number(field, id)
    out.append(_message(2, trainer + _message(44, model.unk_surface.encode())))
    normalizer = _message(1, model.normalizer.encode()) + _message(2, model.charsmap)
    for field, flag in (
        (3, model.add_dummy_prefix),
        (4, model.remove_extra_whitespaces),
        (5, model.escape_whitespaces),
    ):
        normalizer += _number(field, int(flag))
    return b"".join([*out, _message(3, normalizer)])


def save_sentencepiece(tokenizer: Any, path: Path) -> None:
    """Write a ``.model``."""
    model = pieces_of(tokenizer)
    if any(kind == UNUSED for _, _, kind in model.pieces):
        raise UnsupportedError(f"{tokenizer.name} has ids that are not in use", key="UNUSED")
    write_whole(path, model_bytes(model))


# -- GGUF ---------------------------------------------------------------------------------------


def save_sentencepiece_gguf(tokenizer: Any, path: Path) -> None:
    """Write a GGUF file with no tensors, only the vocabulary."""
    from rustllm.loaders.gguf_writer import Typed, write_gguf

    model = pieces_of(tokenizer)
    for wrong, reason in (
        (model.kind != BPE, "it is a Unigram model"),
        (bool(model.charsmap), "it replaces characters before cutting the text"),
        (model.remove_extra_whitespaces, "it takes repeated spaces away"),
        (any(kind == USER_DEFINED for _, _, kind in model.pieces), "it has pieces of the user's"),
    ):
        if wrong:
            raise UnsupportedError(
                f"{tokenizer.name} cannot be written as GGUF without changing ids: {reason}",
                key="GGUF",
                hint="save it as a .model",
            )
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": tokenizer.name,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text for text, _, _ in model.pieces],
        "tokenizer.ggml.scores": Typed("[f32]", [score for _, score, _ in model.pieces]),
        "tokenizer.ggml.token_type": Typed("[i32]", [kind for _, _, kind in model.pieces]),
        "tokenizer.ggml.add_space_prefix": model.add_dummy_prefix,
    }
    ids = (("bos", model.bos_id), ("eos", model.eos_id), ("unknown", model.unk_id))
    for key, id in ids:
        if id >= 0:
            metadata[f"tokenizer.ggml.{key}_token_id"] = Typed("u32", id)
    write_gguf(path, metadata, {})

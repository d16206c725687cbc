"""SentencePiece's BPE: merges go by score, and characters that are no piece are spelt in bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from rustllm._core.byte_level import decode_pieces
from rustllm._core.encoder import Encoder

__all__ = [
    "BYTE",
    "CONTROL",
    "NORMAL",
    "UNKNOWN",
    "UNUSED",
    "USER_DEFINED",
    "sentencepiece_encoder",
]

# Types of pieces, as SentencePiece and GGUF number them.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_NO_ID = 0x7FFFFFFF


def sentencepiece_encoder(
    buffer: Any,
    offsets: np.ndarray[Any, Any],
    lengths: np.ndarray[Any, Any],
    scores: np.ndarray[Any, Any],
    kinds: np.ndarray[Any, Any],
    *,
    prefix: int = 0,
) -> tuple[Encoder, bytes, np.ndarray[Any, Any]]:
    """Build the encoder of a SentencePiece BPE vocabulary.

    Parameters
    ----------
    buffer : bytes-like
        Holds the pieces, U+2581 for the space.
    offsets, lengths : ndarray of int64 [n]
        Where each piece starts, and its bytes.
    scores : ndarray of float32 [n]
    kinds : ndarray of int [n]
        Types of the pieces.
    prefix : int
        1 puts a space before the text, 2 before every stretch between special tokens.

    Returns
    -------
    encoder : Encoder
    blob : bytes
        The pieces with spaces for U+2581 and single bytes for byte tokens.
    ends : ndarray of uint32 [n + 1]

    Raises
    ------
    ValueError
        A byte token is not written as ``<0x0A>`` is.
    """
    # Only normal pieces hold U+2581 for a space; a control token's text is what it says.
    as_is = np.isin(kinds, (CONTROL, UNKNOWN)).astype(np.uint8)
    codes = np.where(kinds == BYTE, 2, as_is).astype(np.uint8)
    blob, ends, fallback = decode_pieces(buffer, offsets, lengths, codes.tobytes())
    normal = np.flatnonzero(kinds == NORMAL)
    order = normal[np.argsort(-scores[normal], kind="stable")].astype(np.uint32)
    unknown = np.flatnonzero(kinds == UNKNOWN)
    encoder = Encoder(
        blob,
        ends,
        order=order,
        by_char=True,
        fallback=fallback,
        unknown=int(unknown[0]) if len(unknown) else None,
        spaces=True,
        prefix=prefix,
        fuse_unknown=bool((fallback == _NO_ID).any()),
    )
    return encoder, blob, ends

"""Names for the arrays and numbers that cross the library's borders.

Aliases only: they cost nothing at run time and tell a reader, and a type checker, what an array
holds. Shapes are in the comments because numpy's types do not carry them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, NewType, TypeAlias, Union

import numpy as np

if TYPE_CHECKING:
    from rustllm.types.batch import TokenBatch

__all__ = [
    "BytesLike",
    "EmbeddingArray",
    "IntLike",
    "Logits",
    "Logprobs",
    "OffsetArray",
    "PathLikeStr",
    "TokenArray",
    "TokenId",
    "TokenIds",
    "Weights",
]

TokenId = NewType("TokenId", int)
"""The id of a token: its row in the embedding table, from 0."""

IntLike: TypeAlias = int | np.integer[Any]
"""A Python or numpy integer."""

TokenArray: TypeAlias = np.ndarray[Any, np.dtype[np.uint32]]
"""Token ids, ``uint32 [n_tokens]``: what every encoder of the library returns."""

OffsetArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""Positions in text, bytes or a flat batch, ``int64``."""

Logits: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
"""Scores before softmax, ``float32 [n_vocab]`` or ``[n_tokens, n_vocab]``."""

Logprobs: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
"""Natural logarithms of probabilities, ``float32``, same shape as the logits."""

EmbeddingArray: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
"""Hidden vectors, ``float32 [n_embd]`` or ``[n_tokens, n_embd]``."""

Weights: TypeAlias = np.ndarray[Any, np.dtype[Any]]
"""A tensor as its file holds it, of any dtype and shape."""

TokenIds: TypeAlias = Union[Sequence[int], Iterable[int], TokenArray, "TokenBatch"]
"""Anything that can be read as token ids."""

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""Objects with the buffer protocol that hold bytes."""

PathLikeStr: TypeAlias = str | PathLike[str]
"""A path, as text or as an object that names one."""

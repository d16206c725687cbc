"""Types that say what arrays hold and what state a thing is in.

Aliases (:data:`TokenId`, :data:`TokenArray`, :data:`Logits`...), the flat :class:`TokenBatch`,
phantom markers (:class:`Tokens`, whose parameter is a stage that a checker follows), and shapes
given by literal types (:class:`FixedWindow`, :class:`FixedMatrix`).
"""

from rustllm.types.aliases import (
    BytesLike,
    EmbeddingArray,
    IntLike,
    Logits,
    Logprobs,
    OffsetArray,
    PathLikeStr,
    TokenArray,
    TokenId,
    TokenIds,
    Weights,
)
from rustllm.types.batch import TokenBatch, as_token_array
from rustllm.types.shapes import FixedMatrix, FixedWindow
from rustllm.types.stages import Encoded, Tokens, Unchecked

__all__ = [
    "BytesLike",
    "EmbeddingArray",
    "Encoded",
    "FixedMatrix",
    "FixedWindow",
    "IntLike",
    "Logits",
    "Logprobs",
    "OffsetArray",
    "PathLikeStr",
    "TokenArray",
    "TokenBatch",
    "TokenId",
    "TokenIds",
    "Tokens",
    "Unchecked",
    "Weights",
    "as_token_array",
]

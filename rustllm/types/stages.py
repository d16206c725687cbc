"""Tokens that carry, as a type, what is known about them.

The stage is a phantom: a type parameter that a checker follows and that stands for no value of its
own. Each stage is reached by the method that makes it true, so that ids read from a file cannot
reach a decoder, or an unpadded batch a kernel, without the check in between; at run time the same
mistakes raise StateError.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np

from rustllm.errors import OutOfRangeError, StateError
from rustllm.types.aliases import TokenArray
from rustllm.types.batch import as_token_array

if TYPE_CHECKING:
    from rustllm.traits import SupportsDecode, TokenizerLike

__all__ = ["Encoded", "Tokens", "Unchecked"]


class Unchecked:
    """Stage of ids that may be anything that fits 32 bits."""


class Encoded:
    """Stage of ids that are all in one vocabulary."""


StageT = TypeVar("StageT", covariant=True)


class Tokens(Generic[StageT]):
    """Token ids and, in the type, whether they are known to be in a vocabulary.

    Made by `unchecked`, which gives ``Tokens[Unchecked]``, or by `encode`, which gives
    ``Tokens[Encoded]``; `check` leads from one to the other.

    Attributes
    ----------
    ids : ndarray of uint32, shape [n_tokens]
        Read-only.
    n_vocab : int or None
        Size of the vocabulary that they are known to be in.

    Notes
    -----
    Immutable, so any number of threads may read one.

    Examples
    --------
    >>> from rustllm.testing import ByteTokenizer
    >>> from rustllm.types import Tokens
    >>> tokens = Tokens.unchecked([104, 105])
    >>> tokens.check(n_vocab=256).decode(ByteTokenizer())
    'hi'
    >>> tokens.decode(ByteTokenizer())
    Traceback (most recent call last):
        ...
    rustllm.errors.StateError: decode needs tokens that are Encoded, and these are Unchecked \
(call check first)
    """

    __slots__ = ("_stage", "ids", "n_vocab")

    ids: TokenArray
    n_vocab: int | None
    _stage: type

    def __init__(self) -> None:
        raise StateError("tokens are made by Tokens.unchecked or Tokens.encode")

    @staticmethod
    def _make(ids: TokenArray, stage: type, n_vocab: int | None) -> Tokens[Any]:
        tokens: Tokens[Any] = object.__new__(Tokens)
        tokens.ids = ids.view()
        tokens.ids.flags.writeable = False
        tokens.n_vocab = n_vocab
        tokens._stage = stage
        return tokens

    @staticmethod
    def unchecked(ids: Iterable[int] | TokenArray) -> Tokens[Unchecked]:
        """Take ids of whatever origin; ArgumentError when they are no ids at all."""
        return Tokens._make(as_token_array(ids), Unchecked, None)

    @staticmethod
    def encode(tokenizer: TokenizerLike, text: str) -> Tokens[Encoded]:
        """Encode `text`; the ids are in the tokenizer's vocabulary by construction."""
        ids = as_token_array(tokenizer.encode_ordinary(text))
        return Tokens._make(ids, Encoded, tokenizer.n_vocab)

    @property
    def stage(self) -> type:
        """The stage that the type parameter stands for."""
        return self._stage

    def _require(self, stage: type, what: str, hint: str) -> None:
        if self._stage is not stage:
            raise StateError(
                f"{what} needs tokens that are {stage.__name__}, and these are "
                f"{self._stage.__name__}",
                hint=hint,
                stage=self._stage.__name__,
            )

    def check(self: Tokens[Unchecked], n_vocab: int) -> Tokens[Encoded]:
        """Return the tokens as ``Tokens[Encoded]`` if every id is below `n_vocab`.

        Raises
        ------
        OutOfRangeError
            One is not; ``index`` says where it is.
        StateError
            They have been checked already.
        """
        self._require(Unchecked, "check", "they are checked already")
        wrong = np.flatnonzero(self.ids >= n_vocab)
        if len(wrong):
            index = int(wrong[0])
            raise OutOfRangeError(
                f"id {int(self.ids[index])} is outside a vocabulary of {n_vocab}", index=index
            )
        return cast("Tokens[Encoded]", Tokens._make(self.ids, Encoded, n_vocab))

    def decode(self: Tokens[Encoded], tokenizer: SupportsDecode) -> str:
        """Return the text of tokens that are known to be in the vocabulary.

        Raises
        ------
        StateError
            They are not known to be.
        """
        self._require(Encoded, "decode", "call check first")
        return tokenizer.decode(self.ids.tolist())

    def __add__(self, other: Tokens[StageT]) -> Tokens[StageT]:
        if not isinstance(other, Tokens):
            return NotImplemented
        other._require(self._stage, "adding", "check both or neither")
        sizes = [tokens.n_vocab for tokens in (self, other) if tokens.n_vocab is not None]
        ids = np.concatenate([self.ids, other.ids])
        return Tokens._make(ids, self._stage, max(sizes, default=None))

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        return self._stage is other._stage and np.array_equal(self.ids, other.ids)

    def __hash__(self) -> int:
        return hash((self._stage, self.ids.tobytes()))

    def __repr__(self) -> str:
        return f"Tokens[{self._stage.__name__}]({len(self)} ids)"

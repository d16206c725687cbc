"""The smallest honest implementation of each trait, to test against and to learn from.

`ByteTokenizer` has a token a byte, `BigramModel` counts which token follows which. They are exact,
need no file, and pass the conformance kit, so that code written against a trait can be tested
without a real tokenizer or model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from rustllm.errors import (
    ArgumentError,
    ContextLengthError,
    ModelError,
    OutOfRangeError,
    TensorError,
    UnknownTokenError,
)
from rustllm.traits import (
    LanguageModel,
    LanguageModelConfig,
    Loaded,
    ModelBuilder,
    ModelState,
    Tokenizer,
    VocabularyToken,
)
from rustllm.types import as_token_array

if TYPE_CHECKING:
    from rustllm.traits import ModelConfig
    from rustllm.types import Logits, TokenArray, Weights

__all__ = ["BigramBuilder", "BigramConfig", "BigramModel", "BigramState", "ByteTokenizer"]


class ByteTokenizer(Tokenizer[VocabularyToken]):
    """A token a byte of UTF-8, and special tokens after them.

    Parameters
    ----------
    special_tokens : iterable of str
        Get the ids from 256 up.

    Examples
    --------
    >>> from rustllm.testing import ByteTokenizer
    >>> tokenizer = ByteTokenizer(["<end>"])
    >>> tokenizer.encode("hi<end>", allowed_special="all")
    [104, 105, 256]
    """

    def __init__(self, special_tokens: Iterable[str] = ()) -> None:
        self._special = {text: 256 + i for i, text in enumerate(special_tokens)}
        self._special_bytes = [text.encode() for text in self._special]

    @property
    def name(self) -> str:
        return "bytes"

    @property
    def n_vocab(self) -> int:
        return 256 + len(self._special)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return self._special

    def id_to_bytes(self, id: int) -> bytes:
        if 0 <= id < 256:
            return bytes((id,))
        if 256 <= id < self.n_vocab:
            return self._special_bytes[id - 256]
        raise UnknownTokenError(f"no token has the id {id}", token=id)

    def _encode_ordinary_to_numpy(self, text: str) -> TokenArray:
        # A lone surrogate is no Unicode text; like tiktoken, read it as U+FFFD.
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        return np.frombuffer(data, dtype=np.uint8).astype(np.uint32)


@dataclass(frozen=True)
class BigramConfig(LanguageModelConfig):
    """Hyper-parameters of a `BigramModel`."""

    n_vocab: int
    n_ctx: int = 1024
    n_embd: int = 0
    architecture: str = "bigram"

    def validate(self) -> None:
        if self.n_vocab < 1 or self.n_ctx < 1:
            raise ModelError("n_vocab and n_ctx must be positive", key="n_vocab")


class BigramState(ModelState):
    """The tokens read so far."""

    def __init__(self, context: int) -> None:
        if context < 1:
            raise ArgumentError(f"a context of {context} tokens holds nothing")
        self._context = context
        self.ids: list[int] = []

    @property
    def position(self) -> int:
        return len(self.ids)

    @property
    def context(self) -> int:
        return self._context

    @property
    def tokens(self) -> Sequence[int]:
        return self.ids

    def truncate(self, n: int) -> None:
        if not 0 <= n <= len(self.ids):
            raise OutOfRangeError(f"cannot keep {n} of {len(self.ids)} tokens", index=n)
        del self.ids[n:]

    def fork(self) -> Self:
        twin = type(self)(self._context)
        twin.ids = list(self.ids)
        return twin


class BigramModel(LanguageModel[Loaded, BigramConfig, BigramState]):
    """Scores the next token by how often it followed the last one.

    Parameters
    ----------
    config : BigramConfig
    counts : ndarray of float32, shape [n_vocab, n_vocab]
        How often the column's token followed the row's.
    tokenizer : Tokenizer, optional
        By default a `ByteTokenizer`.
    """

    def __init__(
        self, config: BigramConfig, counts: Weights, tokenizer: Tokenizer[Any] | None = None
    ) -> None:
        config.validate()
        n = config.n_vocab
        if counts.shape != (n, n):
            raise TensorError(f"counts must be [{n}, {n}], got {counts.shape}", tensor="counts")
        if not np.isfinite(counts).all() or (counts < 0).any():
            raise TensorError("counts must be finite and not negative", tensor="counts")
        self._config = config
        self._tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        self._logits: Logits = np.log(counts.astype(np.float32) + np.float32(1e-6))

    @classmethod
    def fit(cls, text: str, tokenizer: Tokenizer[Any] | None = None) -> Self:
        """Count the neighbours in `text`."""
        tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        ids = tokenizer.encode_ordinary_to_numpy(text)
        counts = np.zeros((tokenizer.n_vocab, tokenizer.n_vocab), dtype=np.float32)
        np.add.at(counts, (ids[:-1], ids[1:]), 1)
        return cls(BigramConfig(tokenizer.n_vocab), counts, tokenizer)

    @property
    def config(self) -> BigramConfig:
        return self._config

    @property
    def tokenizer(self) -> Tokenizer[Any]:
        return self._tokenizer

    @property
    def n_parameters(self) -> int:
        return int(self._logits.size)

    def new_state(self, context: int | None = None) -> BigramState:
        self.require(Loaded)
        return BigramState(self._config.n_ctx if context is None else context)

    def forward(
        self, ids: Iterable[int], state: BigramState, logits: Literal["last", "all"] = "last"
    ) -> Logits:
        self.require(Loaded)
        if logits not in ("last", "all"):
            raise ArgumentError(f"logits must be 'last' or 'all', got {logits!r}")
        new = as_token_array(ids)
        if len(new) == 0:
            raise ArgumentError("there are no ids to read")
        if int(new.max()) >= self._config.n_vocab:
            raise OutOfRangeError(f"id {int(new.max())} is not in the vocabulary")
        if state.position + len(new) > state.context:
            raise ContextLengthError(
                f"{len(new)} more tokens do not fit",
                needed=state.position + len(new),
                context=state.context,
            )
        state.ids.extend(new.tolist())
        rows: Logits = self._logits[new if logits == "all" else new[-1:]]
        return rows if logits == "all" else rows[0]


class BigramBuilder(ModelBuilder[Any]):
    """Builds a `BigramModel` from its config and the tensor ``counts``."""

    def assemble(
        self,
        config: ModelConfig,
        weights: Any,
        tokenizer: Tokenizer[Any] | None,
        **options: Any,
    ) -> BigramModel:
        if not isinstance(config, BigramConfig):
            raise ArgumentError(f"a bigram model needs a BigramConfig, got {config!r}")
        if options:
            raise ArgumentError(f"a bigram model has no option {next(iter(options))!r}")
        if set(weights) != {"counts"}:
            raise TensorError("the only tensor of a bigram model is counts", tensor="counts")
        return BigramModel(config, weights["counts"], tokenizer)

"""The simplest tokenizer: words between white space, with a vocabulary fitted to texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from rustllm.errors import ArgumentError, UnknownTokenError
from rustllm.tokenizers.vocabulary import Vocabulary
from rustllm.traits import Token, Tokenizer

if TYPE_CHECKING:
    from rustllm.types import OffsetArray, PathLikeStr, TokenArray

__all__ = ["WhitespaceTokenizer"]


class WhitespaceTokenizer(Tokenizer[Token]):
    """Words between white space, as ids of a vocabulary.

    Parameters
    ----------
    vocabulary : Vocabulary
    unknown : str, optional
        Token for words that are not in the vocabulary; without it they raise UnknownTokenError.

    Notes
    -----
    Immutable: any number of threads may use one. Decoding puts one space between words, so what
    stood between them is not kept; everything else is.

    Examples
    --------
    >>> tokenizer = WhitespaceTokenizer.fit(["so it goes", "it is so"])
    >>> ids = tokenizer.encode("so  is it not")
    >>> ids, tokenizer.decode(ids)
    ([2, 4, 1, 0], 'so is it <unk>')
    """

    def __init__(self, vocabulary: Vocabulary, unknown: str | None = "<unk>") -> None:
        if unknown is not None and unknown not in vocabulary:
            raise ArgumentError(
                f"the unknown token {unknown!r} is not in the vocabulary",
                key="unknown",
                hint="extend the vocabulary, or pass unknown=None",
            )
        self.vocabulary = vocabulary
        self.unknown = unknown
        self._unknown_id = None if unknown is None else int(vocabulary[unknown])
        self._special = {
            vocabulary[id].decode("utf-8", "replace"): id for id in sorted(vocabulary.special)
        }
        self._words = {
            token.decode("utf-8", "surrogatepass"): id
            for token, id in vocabulary.ids.items()
            if id not in vocabulary.special
        }

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        *,
        max_size: int | None = None,
        min_count: int = 1,
        unknown: str | None = "<unk>",
        special_tokens: Iterable[str] = (),
    ) -> WhitespaceTokenizer:
        """Fit a vocabulary to `texts`; arguments as in `Vocabulary.from_texts`."""
        special = [] if unknown is None else [unknown]
        special += [token for token in special_tokens if token != unknown]
        vocabulary = Vocabulary.from_texts(
            texts, min_count=min_count, max_size=max_size, special=special
        )
        return cls(vocabulary, unknown)

    @classmethod
    def load(cls, path: PathLikeStr, unknown: str | None = "<unk>") -> WhitespaceTokenizer:
        """Read a vocabulary that `save` wrote."""
        return cls(Vocabulary.load(path), unknown)

    def save(self, path: PathLikeStr) -> None:
        """Write the vocabulary."""
        self.vocabulary.save(path)

    @property
    def name(self) -> str:
        return "whitespace"

    @property
    def n_vocab(self) -> int:
        return self.vocabulary.n_vocab

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return MappingProxyType(self._special)

    def id_to_bytes(self, id: int) -> bytes:
        token: bytes = self.vocabulary[int(id)]
        return token

    def bytes_to_id(self, data: bytes) -> int:
        id: int = self.vocabulary[data]
        return id

    def _id_of(self, word: str) -> int:
        id = self._words.get(word, self._unknown_id)
        if id is None:
            raise UnknownTokenError(f"{word!r} is not in the vocabulary", token=word)
        return id

    def _encode_ordinary_to_numpy(self, text: str) -> TokenArray:
        import numpy as np

        return np.array([self._id_of(word) for word in text.split()], dtype=np.uint32)

    def encode_with_offsets(self, text: str) -> tuple[TokenArray, OffsetArray]:
        """Encode `text` with the characters of each word."""
        import numpy as np

        ids = self._encode_ordinary_to_numpy(text)
        offsets = np.empty((len(ids), 2), dtype=np.int64)
        at = 0
        for i, word in enumerate(text.split()):
            at = text.index(word, at)
            offsets[i] = at, at + len(word)
            at += len(word)
        return ids, offsets

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return b" ".join([self.id_to_bytes(id) for id in ids])

"""The WordPiece model: the longest token first, and again from where it ends."""

from __future__ import annotations

from typing import Any

from rustllm.errors import FileFormatError
from rustllm.tokenizers.components import Fields
from rustllm.tokenizers.subword_model import PieceToken, SubwordModel, read_vocabulary

__all__ = ["WordPieceModel", "read_wordpiece"]


class WordPieceModel(SubwordModel):
    """Greedy longest match within a word.

    Parameters
    ----------
    vocab : dict of str to int
    unk_token : str
        What a word becomes that cannot be written whole.
    continuing_subword_prefix : str
        Written before every token but the first of a word.
    max_input_chars_per_word : int
        Longer words are unknown.

    Notes
    -----
    Immutable. The compiled encoder gives the same ids; this is its definition.

    Examples
    --------
    >>> model = WordPieceModel({"[UNK]": 0, "low": 1, "##er": 2})
    >>> model.tokenize("lower"), model.tokenize("lows")
    ([(1, 0, 3), (2, 3, 5)], [(0, 0, 4)])
    """

    def __init__(
        self,
        vocab: dict[str, int],
        unk_token: str = "[UNK]",
        continuing_subword_prefix: str = "##",
        max_input_chars_per_word: int = 100,
    ) -> None:
        self.vocab = vocab
        self.tokens = {id: text for text, id in vocab.items()}
        self.unk_token = unk_token
        self.prefix = continuing_subword_prefix
        self.longest_word = max_input_chars_per_word
        self._longest = max(map(len, vocab), default=0)

    @property
    def unk_id(self) -> int:
        """Id of the unknown token."""
        id = self.vocab.get(self.unk_token)
        if id is None:
            raise FileFormatError(
                f"the unknown token {self.unk_token!r} is not in the vocabulary", key="unk_token"
            )
        return id

    def tokenize(self, piece: str) -> list[PieceToken]:
        n = len(piece)
        if n > self.longest_word:
            return [(self.unk_id, 0, n)]
        out = []
        start = 0
        while start < n:
            for end in range(min(n, start + self._longest), start, -1):
                text = piece[start:end]
                id = self.vocab.get(self.prefix + text if start else text)
                if id is not None:
                    break
            else:
                return [(self.unk_id, 0, n)]
            out.append((id, start, end))
            start = end
        return out

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "WordPiece",
            "unk_token": self.unk_token,
            "continuing_subword_prefix": self.prefix,
            "max_input_chars_per_word": self.longest_word,
            "vocab": self.vocab,
        }


def read_wordpiece(fields: Fields) -> WordPieceModel:
    """Read a WordPiece model."""
    return WordPieceModel(
        read_vocabulary(fields),
        fields.take("unk_token", str, "[UNK]"),
        fields.take("continuing_subword_prefix", str, "##"),
        fields.take("max_input_chars_per_word", int, 100),
    )

"""The WordLevel model: a piece is one token, or the unknown one."""

from __future__ import annotations

from typing import Any

from rustllm.errors import FileFormatError
from rustllm.tokenizers.components import Fields
from rustllm.tokenizers.subword_model import PieceToken, SubwordModel, read_vocabulary

__all__ = ["WordLevelModel", "read_wordlevel"]


class WordLevelModel(SubwordModel):
    """A piece is one token, or the unknown one.

    Examples
    --------
    >>> WordLevelModel({"[UNK]": 0, "so": 1}, "[UNK]").tokenize("so")
    [(1, 0, 2)]
    """

    def __init__(self, vocab: dict[str, int], unk_token: str) -> None:
        self.vocab = vocab
        self.tokens = {id: text for text, id in vocab.items()}
        self.unk_token = unk_token

    def tokenize(self, piece: str) -> list[PieceToken]:
        id = self.vocab.get(piece)
        if id is None:
            id = self.vocab.get(self.unk_token)
            if id is None:
                raise FileFormatError(
                    f"the unknown token {self.unk_token!r} is not in the vocabulary",
                    key="unk_token",
                )
        return [(id, 0, len(piece))]

    def to_json(self) -> dict[str, Any]:
        return {"type": "WordLevel", "vocab": self.vocab, "unk_token": self.unk_token}


def read_wordlevel(fields: Fields) -> WordLevelModel:
    """Read a WordLevel model."""
    return WordLevelModel(read_vocabulary(fields), fields.take("unk_token", str))

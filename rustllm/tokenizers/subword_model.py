"""What the model of a ``tokenizer.json`` does: one piece of text to ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from rustllm.errors import FileFormatError
from rustllm.tokenizers.components import Fields

__all__ = ["PieceToken", "SubwordModel", "read_vocabulary"]

# id, and the characters of the piece that it covers
PieceToken = tuple[int, int, int]


class SubwordModel(ABC):
    """A model: a vocabulary and a way to write a piece of text with it.

    Attributes
    ----------
    vocab : dict of str to int
    tokens : dict of int to str
    """

    vocab: dict[str, int]
    tokens: dict[int, str]

    @abstractmethod
    def tokenize(self, piece: str) -> list[PieceToken]:
        """Write a non-empty piece, with the characters behind each id."""

    def ids(self, piece: str) -> list[int]:
        """Write a non-empty piece."""
        return [token[0] for token in self.tokenize(piece)]

    def token_text(self, id: int, covered: str) -> str:
        """Text of the token `id`, which covers the characters `covered`."""
        return self.tokens[id]

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The object that ``tokenizer.json`` holds."""


def read_vocabulary(fields: Fields) -> dict[str, int]:
    """Read the ``vocab`` of a model, an object from text to id."""
    vocab: dict[str, int] = fields.take("vocab", dict)
    for text, id in vocab.items():
        if type(id) is not int or not 0 <= id < 1 << 31:
            raise FileFormatError(f"the token {text!r} has the id {id!r}", key=text)
    return vocab

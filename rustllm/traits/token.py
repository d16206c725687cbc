"""What a token is: an id, the bytes it stands for, and whether text may spell it."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Token", "VocabularyToken"]


class Token(ABC):
    """One entry of a vocabulary.

    An implementation gives `id` and `to_bytes`; the rest follows. Tokens compare and hash by their
    id and bytes, and can be used wherever an integer is expected.

    Examples
    --------
    >>> from rustllm.traits import VocabularyToken
    >>> token = VocabularyToken(262, b" the")
    >>> token.id, token.text, token.is_special, [10, 20][VocabularyToken(1, b"x")]
    (262, ' the', False, 20)
    """

    __slots__ = ()

    @property
    @abstractmethod
    def id(self) -> int:
        """Row of the token in the embedding table, from 0."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Bytes that the token stands for in a text."""

    @property
    def is_special(self) -> bool:
        """Whether the token marks structure and is never read out of ordinary text."""
        return False

    @property
    def text(self) -> str:
        """The bytes as text; what is no valid UTF-8 becomes U+FFFD."""
        return self.to_bytes().decode("utf-8", "replace")

    def __index__(self) -> int:
        return self.id

    __int__ = __index__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Token):
            return NotImplemented
        return self.id == other.id and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash((self.id, self.to_bytes()))

    def __repr__(self) -> str:
        special = ", special" if self.is_special else ""
        return f"{type(self).__name__}({self.id}, {self.to_bytes()!r}{special})"


class VocabularyToken(Token):
    """A token that holds its own id and bytes; what `Tokenizer.token` returns by default."""

    __slots__ = ("_bytes", "_id", "_is_special")

    def __init__(self, id: int, data: bytes, is_special: bool = False) -> None:
        self._id = id
        self._bytes = data
        self._is_special = is_special

    @property
    def id(self) -> int:
        return self._id

    def to_bytes(self) -> bytes:
        return self._bytes

    @property
    def is_special(self) -> bool:
        return self._is_special

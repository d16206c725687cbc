"""A vocabulary as a value: build, extend, trim, merge, compare, inspect."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rustllm.errors import ArgumentError, FileFormatError, UnknownTokenError

if TYPE_CHECKING:
    from rustllm.traits import Tokenizer
    from rustllm.types import PathLikeStr

__all__ = ["Vocabulary", "VocabularyDifference"]


@dataclass(frozen=True)
class VocabularyDifference:
    """How two vocabularies differ.

    Attributes
    ----------
    only_left, only_right : tuple of bytes
        Tokens of one that the other lacks, by id.
    moved : dict of bytes to (int, int)
        Tokens of both that have different ids.
    n_shared : int
        Tokens of both.
    """

    only_left: tuple[bytes, ...]
    only_right: tuple[bytes, ...]
    moved: Mapping[bytes, tuple[int, int]]
    n_shared: int

    @property
    def is_empty(self) -> bool:
        """Whether both have the same tokens with the same ids."""
        return not (self.only_left or self.only_right or self.moved)


class Vocabulary:
    """Tokens, as bytes, and their ids.

    Parameters
    ----------
    tokens : iterable of (bytes or str)
        Tokens in the order of their ids; None leaves an id unused.
    special : iterable of (bytes or str)
        Which of them are special.

    Raises
    ------
    ArgumentError
        A token is empty or stands twice, or a special one is not among `tokens`.

    Notes
    -----
    Immutable: every change gives a new vocabulary. All changes but `trim` and `merge` keep the ids
    of the tokens that stay.

    Examples
    --------
    >>> words = Vocabulary.from_texts(["so it goes", "so it is"], min_count=2)
    >>> words.tokens()
    [b'it', b'so']
    >>> words = words.extend(["<end>"], special=True)
    >>> words["<end>"], words.special, words[1]
    (2, frozenset({2}), b'so')
    """

    def __init__(
        self, tokens: Iterable[bytes | str | None], special: Iterable[bytes | str] = ()
    ) -> None:
        self._tokens = [None if token is None else _as_bytes(token) for token in tokens]
        self._ids: dict[bytes, int] = {}
        for id, token in enumerate(self._tokens):
            if token is None:
                continue
            if not token:
                raise ArgumentError(f"token {id} is empty", key=id)
            if self._ids.setdefault(token, id) != id:
                raise ArgumentError(
                    f"{token!r} stands twice, as {self._ids[token]} and as {id}", key=id
                )
        try:
            self._special = frozenset(self._ids[_as_bytes(token)] for token in special)
        except KeyError as error:
            raise ArgumentError(
                f"the special token {error.args[0]!r} is not in the vocabulary", key="special"
            ) from None

    # -- making ---------------------------------------------------------------------------------

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        special: Sequence[str] = (),
    ) -> Vocabulary:
        """Collect the words between white space.

        Parameters
        ----------
        texts : iterable of str
        min_count : int
            Words that occur less often are left out.
        max_size : int, optional
            Number of tokens to stop at, special ones included: the most frequent stay.
        special : sequence of str
            They get the first ids.

        Notes
        -----
        The most frequent word comes first, words as frequent in the order of their characters.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text.split())
        room = None if max_size is None else max(max_size - len(special), 0)
        words = sorted(
            (word for word, count in counts.items() if count >= min_count and word not in special),
            key=lambda word: (-counts[word], word),
        )
        return cls([*special, *words[:room]], special)

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer[Any]) -> Vocabulary:
        """The tokens of `tokenizer`; of those with the same bytes, the one with the least id."""
        tokens: list[bytes | None] = []
        seen: set[bytes] = set()
        for id in range(tokenizer.n_vocab):
            try:
                token = tokenizer.id_to_bytes(id)
            except UnknownTokenError:
                token = b""
            tokens.append(None if not token or token in seen else token)
            seen.add(token)
        special = [text for text in tokenizer.special_tokens if text.encode() in seen]
        return cls(tokens, special)

    @classmethod
    def load(cls, path: PathLikeStr) -> Vocabulary:
        """Read what `save` wrote.

        Raises
        ------
        FileFormatError
            The file is no vocabulary.
        """
        from pathlib import Path

        try:
            content = json.loads(Path(path).read_bytes())
            tokens = [
                token if token is None or isinstance(token, str) else bytes.fromhex(token["hex"])
                for token in content["tokens"]
            ]
            vocabulary = cls(tokens)
            special = [int(id) for id in content["special"]]
            vocabulary._special = frozenset(special)
            if any(id not in vocabulary for id in special):
                raise ValueError("a special id without a token")
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"this is no vocabulary: {error}", path=str(path)) from error
        return vocabulary

    def save(self, path: PathLikeStr) -> None:
        """Write the vocabulary as JSON: text where a token is UTF-8, hexadecimal where not."""
        from rustllm.serialize.atomic import write_whole

        content = {
            "special": sorted(self._special),
            "tokens": [None if token is None else _as_json(token) for token in self._tokens],
        }
        write_whole(path, json.dumps(content, ensure_ascii=False, indent=0).encode())

    # -- asking ---------------------------------------------------------------------------------

    @property
    def n_vocab(self) -> int:
        """One more than the largest id."""
        return len(self._tokens)

    @property
    def special(self) -> frozenset[int]:
        """Ids of the special tokens."""
        return self._special

    @property
    def ids(self) -> Mapping[bytes, int]:
        """Each token and its id."""
        return MappingProxyType(self._ids)

    def tokens(self) -> list[bytes]:
        """The tokens in the order of their ids."""
        return [token for token in self._tokens if token is not None]

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.tokens())

    def __contains__(self, token: object) -> bool:
        if isinstance(token, int):
            return 0 <= token < len(self._tokens) and self._tokens[token] is not None
        return isinstance(token, str | bytes) and _as_bytes(token) in self._ids

    def __getitem__(self, token: bytes | str | int) -> Any:
        """Id of a token, or token of an id; UnknownTokenError when there is none."""
        if token not in self:
            raise UnknownTokenError(f"{token!r} is not in the vocabulary", token=token)
        return self._tokens[token] if isinstance(token, int) else self._ids[_as_bytes(token)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self._tokens == other._tokens and self._special == other._special

    def __hash__(self) -> int:
        return hash((tuple(self._tokens), self._special))

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} tokens, {len(self._special)} of them special>"

    def statistics(self) -> dict[str, float]:
        """Numbers to look at: tokens, special ones, unused ids, mean and greatest length, and how
        many are not UTF-8 by themselves.
        """
        tokens = self.tokens()
        lengths = [len(token) for token in tokens]
        return {
            "n_tokens": len(tokens),
            "n_special": len(self._special),
            "n_unused_ids": self.n_vocab - len(tokens),
            "mean_bytes": sum(lengths) / len(lengths) if lengths else 0.0,
            "max_bytes": max(lengths, default=0),
            "n_not_utf8": sum(not _is_text(token) for token in tokens),
        }

    def compare(self, other: Vocabulary) -> VocabularyDifference:
        """How `other` differs from this one."""
        shared = self._ids.keys() & other._ids.keys()
        moved = {
            token: (self._ids[token], other._ids[token])
            for token in sorted(shared)
            if self._ids[token] != other._ids[token]
        }
        return VocabularyDifference(
            tuple(token for token in self.tokens() if token not in other._ids),
            tuple(token for token in other.tokens() if token not in self._ids),
            MappingProxyType(moved),
            len(shared),
        )

    # -- changing -------------------------------------------------------------------------------

    def extend(self, tokens: Iterable[bytes | str], special: bool = False) -> Vocabulary:
        """Add tokens behind the others; those that are there already keep their ids."""
        added = [_as_bytes(token) for token in tokens]
        new = [token for token in dict.fromkeys(added) if token not in self._ids]
        marked = [token for token in self._ids if self._ids[token] in self._special]
        return Vocabulary([*self._tokens, *new], [*marked, *(added if special else [])])

    def without(self, tokens: Iterable[bytes | str]) -> Vocabulary:
        """Leave tokens out; their ids stay unused."""
        gone = {_as_bytes(token) for token in tokens}
        for token in gone:
            if token not in self._ids:
                raise UnknownTokenError(f"{token!r} is not in the vocabulary", token=token)
        return self._of([None if token in gone else token for token in self._tokens])

    def trim(self, size: int) -> Vocabulary:
        """Keep the special tokens and, of the others, the first; unused ids are closed up.

        Raises
        ------
        ArgumentError
            The special tokens alone are more than `size`.
        """
        if size < len(self._special):
            raise ArgumentError(
                f"{len(self._special)} special tokens do not fit in {size}", key="size"
            )
        room = size - len(self._special)
        kept = []
        for id, token in enumerate(self._tokens):
            if token is None:
                continue
            if id in self._special:
                kept.append(token)
            elif room:
                kept.append(token)
                room -= 1
        return self._of(kept)

    def merge(self, other: Vocabulary) -> Vocabulary:
        """Add the tokens of `other` that are not here, in order; special in either is special."""
        marked = [other._tokens[id] for id in other._special]
        both = self.extend(other.tokens())
        return Vocabulary(
            both._tokens,
            [token for token in (*marked, *(both._tokens[id] for id in both._special)) if token],
        )

    def _of(self, tokens: Sequence[bytes | None]) -> Vocabulary:
        here = set(tokens)
        return Vocabulary(
            tokens,
            [token for id in self._special if (token := self._tokens[id]) and token in here],
        )


def _as_bytes(token: bytes | str) -> bytes:
    return token.encode("utf-8", "surrogatepass") if isinstance(token, str) else bytes(token)


def _is_text(token: bytes) -> bool:
    try:
        token.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _as_json(token: bytes) -> str | dict[str, str]:
    return token.decode("utf-8") if _is_text(token) else {"hex": token.hex()}

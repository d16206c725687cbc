"""A byte-level BPE vocabulary as every format of such vocabularies sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rustllm._core.split import NAMES
from rustllm.errors import UnsupportedError
from rustllm.tokenizers.bpe import BpeTokenizer

__all__ = ["ByteBpe", "Merge", "byte_bpe_of"]

Merge = tuple[int, int, int]


@dataclass(frozen=True)
class ByteBpe:
    """Tokens, merges or ranks, and what text is cut by.

    Attributes
    ----------
    name : str
    tokens : list of bytes
        By id; empty where an id is not in use.
    merges : list of (int, int, int) or None
        Left, right, and what they make, in the order in which they are tried. None where ranks say
        it: any two tokens that spell a third are merged, the one of the lowest rank first.
    ranks : list of int or None
        Ids in the order of their ranks.
    pattern : str or None
        Name of the splitter, or an expression that has none; None for text that is not cut.
    whole : bool
        A pretoken that is a token is not merged.
    special, added : dict of str to int
    bos_id, eos_id : int or None
    """

    name: str
    tokens: list[bytes]
    merges: list[Merge] | None
    ranks: list[int] | None
    pattern: str | None
    whole: bool
    special: dict[str, int]
    added: dict[str, int]
    bos_id: int | None
    eos_id: int | None

    @property
    def ordinary(self) -> dict[bytes, int]:
        """Each token that text can give, and its id."""
        apart = {*self.special.values(), *self.added.values()}
        if self.ranks is not None:
            return {self.tokens[id]: id for id in self.ranks}
        assert self.merges is not None
        apart -= {made for _, _, made in self.merges}
        return {t: id for id, t in reversed(list(enumerate(self.tokens))) if t and id not in apart}

    def explicit_merges(self) -> list[Merge]:
        """The merges one by one; for ranks, every way to put a token together from two others.

        Time is linear in the bytes of the vocabulary.
        """
        if self.merges is not None:
            return self.merges
        assert self.ranks is not None
        rank_of = {self.tokens[id]: rank for rank, id in enumerate(self.ranks)}
        merges: list[Merge] = []
        for id in self.ranks:
            token = self.tokens[id]
            halves = [
                (rank_of[token[:i]], rank_of[token[i:]])
                for i in range(1, len(token))
                if token[:i] in rank_of and token[i:] in rank_of
            ]
            merges += [(self.ranks[a], self.ranks[b], id) for a, b in sorted(halves)]
        return merges

    def as_ranks(self) -> list[int] | None:
        """Ids in the order of their ranks, if the merges say just what ranks would; else None.

        They do if every way to put a token together from two others is among them, those of one
        token side by side, those of single bytes aside.
        """
        if self.merges is None:
            return self.ranks
        made: list[int] = []
        for _, _, id in self.merges:
            if not made or made[-1] != id:
                made.append(id)
        ordinary = self.ordinary
        singles = [id for token, id in ordinary.items() if len(token) == 1]
        if len(set(made)) != len(made) or len(singles) + len(made) != len(ordinary):
            return None
        ranks = sorted(singles) + made
        twin = ByteBpe(**{**self.__dict__, "merges": None, "ranks": ranks})
        return ranks if sorted(twin.explicit_merges()) == sorted(self.merges) else None


def byte_bpe_of(tokenizer: Any) -> ByteBpe:
    """Read the vocabulary of a tokenizer.

    Raises
    ------
    UnsupportedError
        It is no byte-level BPE behind a built-in splitter, or changes the text before cutting it.
    """
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # what a trainer found
    if not isinstance(tokenizer, BpeTokenizer):
        raise UnsupportedError(
            f"{tokenizer.name} is no byte-level BPE that takes text as it is",
            hint="save it in its own format: tokenizer.save(path)",
        )
    encoder = tokenizer._encoder
    parts = encoder.parts
    if parts["by_char"] or parts["spaces"] or parts["fallback"] is not None:
        raise UnsupportedError(
            f"{tokenizer.name} is SentencePiece's BPE, which merges characters and marks spaces",
            hint="it can be written as a SentencePiece .model or as GGUF",
        )
    blob, ends = encoder.tables()
    bounds = np.asarray(ends).tolist()
    tokens = [blob[start:end] for start, end in zip(bounds, bounds[1:])]
    order, merges = parts["order"], parts["merges"]
    return ByteBpe(
        tokenizer.name,
        tokens,
        None if order is not None else [tuple(m) for m in np.asarray(merges).tolist()],
        None if order is None else np.asarray(order).tolist(),
        NAMES[parts["pattern"]] if parts["pattern"] >= 0 else parts.get("expression"),
        bool(parts["whole"]),
        dict(tokenizer.special_tokens),
        dict(tokenizer.added_tokens),
        tokenizer.bos_id,
        tokenizer.eos_id,
    )

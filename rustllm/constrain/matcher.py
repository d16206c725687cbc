"""Constraints of generated text, and the matchers that follow one text."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from rustllm._core.automaton import Automaton, TokenTrie
from rustllm.errors import ArgumentError, UnknownTokenError, UnsupportedError

if TYPE_CHECKING:
    from rustllm.constrain.grammar import Grammar
    from rustllm.traits.tokenizer import Tokenizer
    from rustllm.types import Logits

__all__ = ["GrammarConstraint", "GrammarMatcher"]


class GrammarConstraint:
    """A form that a generated text must have.

    Made by :func:`rustllm.constrain.regex`, :func:`~rustllm.constrain.json_schema` and
    :func:`~rustllm.constrain.json_value`; given to ``model.generate(..., constraint=...)``.

    Every text that ends by itself has the form, and no beginning leads to a dead end: where a text
    may not end, a token is left that can go on. A text that runs into ``max_tokens`` is the
    beginning of one.

    Parameters
    ----------
    grammar : Grammar
    name : str
        What it is, for people.
    max_depth : int
        Forms inside forms of the same kind, as arrays in arrays.

    Notes
    -----
    Immutable and thread-safe; generations that share one share what it learns. Tokens are looked up
    by their bytes, and only bytes that the vocabulary has as tokens of their own are used.
    """

    def __init__(self, grammar: Grammar, name: str, *, max_depth: int = 64) -> None:
        if max_depth < 1:
            raise ArgumentError(f"max_depth must be at least 1, not {max_depth}", key="max_depth")
        self._grammar = grammar
        self._name = name
        self._max_depth = max_depth
        self._followed: WeakKeyDictionary[Any, _Followed] = WeakKeyDictionary()
        self._lock = threading.Lock()
        # A form that nothing can have is refused here, not when a model is at work.
        if Automaton(*grammar.network(), TokenTrie([]), max_depth).start() < 0:
            raise ArgumentError(f"no text within {max_depth} levels has the form of {name}")

    def start(
        self, tokenizer: Tokenizer[Any], end_ids: frozenset[int] = frozenset()
    ) -> GrammarMatcher:
        """Return a matcher at the beginning of a text.

        Raises
        ------
        UnsupportedError
            The vocabulary cannot spell any text of this form.
        """
        with self._lock:
            followed = self._followed.get(tokenizer)
            if followed is None:
                followed = _Followed(self._grammar, _vocabulary(tokenizer), self._max_depth)
                self._followed[tokenizer] = followed
        if not followed.is_possible:
            raise UnsupportedError(
                f"the vocabulary cannot spell any text of the form of {self._name}"
            )
        return GrammarMatcher(followed, end_ids)

    def __repr__(self) -> str:
        return f"<constraint: {self._name}>"


class _Followed:
    """The automata of one grammar and one vocabulary, under a lock."""

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary, max_depth: int) -> None:
        network = grammar.network(vocabulary.trie.single)
        self.vocabulary = vocabulary
        self.automaton = Automaton(*network, vocabulary.trie, max_depth)
        # Where a text's first token is spelled in another way, it has a trie of its own.
        self.first = self.automaton
        if vocabulary.first_trie is not None:
            self.first = Automaton(*network, vocabulary.first_trie, max_depth)
        self.is_possible = self.automaton.start() >= 0
        self.lock = threading.Lock()


class GrammarMatcher:
    """Follows one text; see :class:`rustllm.traits.sampling.Matcher`.

    Notes
    -----
    One thread at a time.
    """

    def __init__(self, followed: _Followed, end_ids: frozenset[int]) -> None:
        self._followed = followed
        self._end_ids = np.array(sorted(end_ids), np.int64)
        self._text = bytearray()
        self._begun = False
        self._epoch = -1
        self._state = -1

    def _now(self) -> int:
        """The automaton's state; found again from the text where the automaton has forgotten."""
        automaton = self._followed.automaton
        if self._epoch != automaton.epoch:
            self._state = automaton.advance(automaton.start(), bytes(self._text))
            self._epoch = automaton.epoch
        return self._state

    @property
    def may_end(self) -> bool:
        """Whether the text so far is complete."""
        with self._followed.lock:
            return self._followed.automaton.may_end(self._now())

    def mask(self, scores: Logits, /) -> None:
        """Set the scores of tokens that may not come next to minus infinity, in place."""
        followed = self._followed
        row = np.ascontiguousarray(scores, np.float32)
        ends = self._end_ids[self._end_ids < len(row)]
        kept = row[ends]
        with followed.lock:
            followed.automaton.trim()
            state = self._now()
            complete = followed.automaton.may_end(state)
            if self._begun:
                followed.automaton.forbid(state, row)
            else:
                followed.first.forbid(followed.first.start(), row)
        row[ends] = kept if complete else -np.inf
        if row is not scores:
            scores[...] = row

    def advance(self, id: int, /) -> bool:
        """Take the token that came next; True when the text is complete and nothing may follow.

        Raises
        ------
        ArgumentError
            The token does not fit.
        """
        followed = self._followed
        data = followed.vocabulary.bytes_of(id, first=not self._begun)
        with followed.lock:
            state = -1
            if data is not None:
                state = followed.automaton.advance(self._now(), data)
            if data is None or state < 0:
                raise ArgumentError(f"token {id} does not fit the form of the text", token=id)
            self._begun = True
            self._text += data
            self._state = state
            return followed.automaton.may_end(state) and not followed.automaton.may_go_on(state)


class Vocabulary:
    """The bytes that each token adds to a text, and to an empty one."""

    def __init__(self, tokenizer: Tokenizer[Any]) -> None:
        special = set(tokenizer.special_tokens.values())
        self._bytes: list[bytes | None] = []
        for id in range(tokenizer.n_vocab):
            data = None
            if id not in special:
                try:
                    data = tokenizer.id_to_bytes(id) or None
                except UnknownTokenError:
                    pass  # an id that is not in use
            self._bytes.append(data)
        self._strips = _strips_first_space(tokenizer, self._bytes)
        self.trie = TokenTrie(self._bytes)
        self.first_trie: TokenTrie | None = None
        if self._strips:
            self.first_trie = TokenTrie([_stripped(data) for data in self._bytes])

    def bytes_of(self, id: int, *, first: bool) -> bytes | None:
        """Return what the token adds; None for one that stands for no text."""
        data = self._bytes[id] if 0 <= id < len(self._bytes) else None
        return _stripped(data) if first and self._strips else data


def _stripped(data: bytes | None) -> bytes | None:
    return data[1:] or None if data is not None and data.startswith(b" ") else data


def _strips_first_space(tokenizer: Tokenizer[Any], tokens: Sequence[bytes | None]) -> bool:
    """Whether decoding leaves out a space that a text begins with, as SentencePiece does."""
    for id, data in enumerate(tokens):
        if data is not None and len(data) > 1 and data[:1] == b" " and data[1:].isalpha():
            decoder = tokenizer.stream_decoder()
            return (decoder.push(id) + decoder.finish()).encode() == data[1:]
    return False


_vocabularies: WeakKeyDictionary[Any, Vocabulary] = WeakKeyDictionary()
_vocabularies_lock = threading.Lock()


def _vocabulary(tokenizer: Tokenizer[Any]) -> Vocabulary:
    with _vocabularies_lock:
        found = _vocabularies.get(tokenizer)
        if found is None:
            found = _vocabularies[tokenizer] = Vocabulary(tokenizer)
        return found

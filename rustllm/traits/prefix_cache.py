"""States kept for the next prompt that begins the same way."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from rustllm.errors import ArgumentError

__all__ = ["PrefixCache", "common_prefix"]


class PrefixCache:
    """Keeps states of finished texts, so that a prompt is read only from where it differs.

    Hand one to :meth:`LanguageModel.generate` or :meth:`LanguageModel.chat`; each prompt then goes
    on from the longest beginning that any earlier text shares with it.

    Parameters
    ----------
    max_tokens : int
        Tokens to keep in all; the states used longest ago go first. An upper bound of the memory:
        what states share is counted in each.

    Notes
    -----
    Any number of threads may use one. It serves one model; a state of another is never given out.
    Results do not depend on it: a state gives the same bits however it came about. Finding takes
    time linear in the tokens kept.

    Examples
    --------
    >>> from rustllm.testing import BigramModel
    >>> from rustllm.traits import PrefixCache
    >>> model, cache = BigramModel.fit("the cat sat. the cat ran. "), PrefixCache()
    >>> for end in ("c", "ca"):
    ...     text = model.generate("the " + end, max_tokens=2, temperature=0, prefix_cache=cache)
    ...     print(text.text(), text.n_reused)
    at 0
    t  5
    """

    def __init__(self, *, max_tokens: int = 1 << 16) -> None:
        if max_tokens < 1:
            raise ArgumentError(f"max_tokens must be positive, got {max_tokens}")
        self.max_tokens = max_tokens
        self._lock = threading.Lock()
        self._entries: list[tuple[Any, np.ndarray[Any, Any], Any]] = []  # the latest last

    def find(self, model: Any, ids: Sequence[int], context: int) -> Any:
        """Return a fork of the state that shares the longest beginning with `ids`, cut to it.

        At least one token of `ids` is left to read. None where nothing is shared, or where no state
        has room for `context` tokens.
        """
        wanted = np.asarray(ids[:-1], np.int64)
        with self._lock:
            best, length = -1, 0
            for index, (owner, tokens, state) in enumerate(self._entries):
                if owner is model and state.context >= context:
                    shared = common_prefix(tokens, wanted)
                    if shared > length:
                        best, length = index, shared
            if best < 0:
                return None
            self._entries.append(self._entries.pop(best))
            found = self._entries[-1][2].fork()
        found.truncate(length)
        return found

    def keep(self, model: Any, state: Any) -> None:
        """Keep a fork of `state`, in the place of states that hold a part of it only."""
        tokens = np.array(state.tokens, np.int64)
        if not 0 < len(tokens) <= self.max_tokens:
            return
        fork = state.fork()
        with self._lock:
            self._entries = [
                entry
                for entry in self._entries
                if entry[0] is not model
                or len(entry[1]) > len(tokens)
                or entry[2].context > fork.context
                or common_prefix(entry[1], tokens) < len(entry[1])
            ]
            self._entries.append((model, tokens, fork))
            total = sum(len(entry[1]) for entry in self._entries)
            while total > self.max_tokens:
                total -= len(self._entries.pop(0)[1])

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._entries.clear()

    @property
    def n_tokens(self) -> int:
        """Tokens kept, those that states share counted in each."""
        with self._lock:
            return sum(len(entry[1]) for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<PrefixCache of {len(self)} states>"


def common_prefix(one: Any, other: Any) -> int:
    """Length of the longest common beginning of two rows of ids."""
    n = min(len(one), len(other))
    differ = np.flatnonzero(np.asarray(one[:n]) != np.asarray(other[:n]))
    return int(differ[0]) if len(differ) else n

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

class TokenTrie:
    n_vocab: int
    n_nodes: int
    single: frozenset[int]
    def __init__(self, tokens: Sequence[bytes | None]) -> None: ...

class Automaton:
    trie: TokenTrie
    epoch: int
    n_states: int
    def __init__(
        self,
        edges: list[list[tuple[int, int, int]]],
        empty: list[list[int]],
        calls: list[list[tuple[int, int]]],
        ends: list[bool],
        need: list[int],
        start: int,
        trie: TokenTrie,
        max_depth: int = 64,
        limit: int = ...,
    ) -> None: ...
    def start(self) -> int: ...
    def advance(self, state: int, data: bytes) -> int: ...
    def may_end(self, state: int) -> bool: ...
    def may_go_on(self, state: int) -> bool: ...
    def trim(self) -> bool: ...
    def forbid(self, state: int, scores: NDArray[np.float32]) -> None: ...
    def allowed(self, state: int) -> list[int]: ...

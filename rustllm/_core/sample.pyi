from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

class Sampler:
    n_vocab: int
    def __init__(
        self,
        n_vocab: int,
        *,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_last_n: int = 64,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
    ) -> None: ...
    def extend(self, ids: Iterable[int]) -> None: ...
    def uniform(self, index: int = 0) -> float: ...
    def adjust(self, scores: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def __call__(
        self, scores: NDArray[np.float32], changed: NDArray[np.float32] | None = None
    ) -> tuple[int, float]: ...
    def guess(self, scores: NDArray[np.float32], uniform: float) -> int: ...

def draw_rows(
    samplers: Sequence[Sampler],
    rows: Sequence[NDArray[np.float32]],
    changed: Sequence[NDArray[np.float32] | None],
    threads: int = 1,
) -> list[tuple[int, float] | ArithmeticError]: ...
def log_probabilities(
    scores: NDArray[np.float32], ids: NDArray[np.int32], threads: int = 1
) -> NDArray[np.float64]: ...
def likeliest(scores: NDArray[np.float32], n: int) -> list[tuple[int, float]]: ...

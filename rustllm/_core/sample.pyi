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
        seed: int | None = None,
    ) -> None: ...
    def __call__(self, scores: NDArray[np.float32]) -> tuple[int, float]: ...

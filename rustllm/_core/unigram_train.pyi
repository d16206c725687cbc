import numpy as np
from numpy.typing import NDArray

class UnigramLoop:
    text: NDArray[np.uint32]
    places: NDArray[np.uint32]
    lengths: NDArray[np.uint8]
    scores: NDArray[np.float64]
    def __init__(
        self,
        text: NDArray[np.uint32],
        starts: NDArray[np.uint32],
        counts: NDArray[np.int64],
        places: NDArray[np.uint32],
        lengths: NDArray[np.uint8],
        scores: NDArray[np.float64],
        first: NDArray[np.uint32],
        last: NDArray[np.uint32],
        suffixes: NDArray[np.uint32],
    ) -> None: ...
    def __len__(self) -> int: ...
    def expect(self, begin: int, end: int, expected: NDArray[np.float64]) -> float: ...
    def segment(self, begin: int, end: int, found: NDArray[np.float64]) -> int: ...
    def maximise(self, expected: NDArray[np.float64]) -> None: ...
    def prune(self, found: NDArray[np.float64], goal: int) -> None: ...
    def pieces(self) -> list[tuple[str, float]]: ...

import numpy as np
from numpy.typing import NDArray

class UnigramEncoder:
    def __init__(
        self,
        entries: list[tuple[bytes, int, float]],
        unknown: int,
        unknown_score: float,
        fallback: list[int] | None = None,
        single_precision: bool = False,
    ) -> None: ...
    def encode_piece(self, text: str) -> NDArray[np.uint32]: ...
    def encode_pieces(self, text: str) -> NDArray[np.uint32]: ...

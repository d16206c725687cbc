from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rustllm._core.specials import SpecialMatcher

class WordPieceEncoder:
    def __init__(
        self,
        tokens: list[tuple[bytes, int]],
        continuing: list[tuple[bytes, int]],
        unknown: int,
        longest_word: int,
        describe: Callable[[str], tuple[bytes, bool, bool] | None],
    ) -> None: ...
    def encode(
        self, text: str, stop: SpecialMatcher | None = None
    ) -> NDArray[np.uint32] | None: ...

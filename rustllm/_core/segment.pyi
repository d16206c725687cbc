from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

def store_positions(keys: Floats, values: Floats, dtype: str) -> NDArray[np.uint8]: ...
def attend(
    planes: NDArray[np.uint8],
    queries: Floats,
    first: Sequence[int],
    last: Sequence[int],
    dtype: str,
    softcap: float = 0.0,
) -> tuple[Floats, Floats, Floats]: ...

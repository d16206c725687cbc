import numpy as np
from numpy.typing import NDArray

def product(
    x: NDArray[np.float32],
    w: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    out: NDArray[np.float32],
    threads: int = 1,
) -> None: ...

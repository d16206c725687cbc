import numpy as np
from numpy.typing import NDArray

def attend(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    out: NDArray[np.float32],
    scale: float,
    *,
    causal: bool = False,
    window: int = 0,
    softcap: float = 0.0,
    bias: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> None: ...

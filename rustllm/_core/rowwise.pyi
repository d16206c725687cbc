import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

def normalize(
    x: Rows,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    out: Rows,
    eps: float,
    *,
    centre: bool,
    threads: int = 1,
) -> None: ...
def softmax(x: Rows, out: Rows, scale: float = 1.0, *, threads: int = 1) -> None: ...
def activate(x: Rows, out: Rows, kind: str, *, threads: int = 1) -> None: ...
def rotate(
    x: Rows,
    positions: NDArray[np.int64],
    frequencies: NDArray[np.float64],
    out: Rows,
    *,
    halves: bool,
    threads: int = 1,
) -> None: ...

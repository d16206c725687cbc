import numpy as np
from numpy.typing import NDArray

SILU: int
GELU_TANH: int
GELU: int

def norm(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    out: NDArray[np.float32],
    eps: float,
    *,
    centre: bool = False,
    threads: int = 1,
) -> None: ...
def softmax(
    x: NDArray[np.float32], out: NDArray[np.float32], scale: float = 1.0, threads: int = 1
) -> None: ...
def rope(
    x: NDArray[np.float32],
    positions: NDArray[np.float64],
    frequencies: NDArray[np.float64],
    out: NDArray[np.float32],
    *,
    halves: bool = True,
    threads: int = 1,
) -> None: ...
def activate(
    x: NDArray[np.float32], out: NDArray[np.float32], activation: int, threads: int = 1
) -> None: ...
def dequantize(
    blocks: NDArray[np.uint8], type_id: int, out: NDArray[np.float32], threads: int = 1
) -> None: ...
def quantize(
    x: NDArray[np.float32],
    weights: NDArray[np.float32] | None,
    type_id: int,
    out: NDArray[np.uint8],
    threads: int = 1,
) -> None: ...

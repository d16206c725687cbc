from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

class BlockType(IntEnum):
    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ4_NL = 20
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    BF16 = 30

class BlockFormat(NamedTuple):
    type_id: int
    name: str
    elements: int
    bytes: int

BLOCK_FORMATS: dict[int, BlockFormat]

def block_format(type: int | str) -> BlockFormat: ...
def n_bytes(type: int | str, n_elements: int) -> int: ...
def dequantize(
    data: Any, type: int | str, out: NDArray[np.float32] | None = None, *, threads: int = 1
) -> NDArray[np.float32]: ...
def first_not_finite(data: Any, type: int | str) -> int: ...
def quantize(
    data: Any,
    type: int | str,
    out: NDArray[np.uint8] | None = None,
    weights: Any = None,
    *,
    threads: int = 1,
) -> NDArray[np.uint8]: ...

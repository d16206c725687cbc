from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rustllm._core.zeroed import ZeroedMemory

class PackedMatrix:
    def __init__(
        self, type_id: int, n_rows: int, n_cols: int, source: object, *, mapped: bool = False
    ) -> None: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def type_id(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def is_packed(self) -> bool: ...
    def row(self, index: int) -> NDArray[np.float32]: ...
    def matmul(
        self,
        x: ArrayLike,
        *,
        exact: bool = False,
        fine: bool = False,
        threads: int = 1,
        bias: ArrayLike | None = None,
    ) -> NDArray[np.float32]: ...

class NotFiniteError(ValueError):
    index: int
    row: int
    def __init__(self, index: int, row: int) -> None: ...

def pack(
    matrices: Iterable[PackedMatrix],
    *,
    threads: int = 1,
    region: ZeroedMemory | None = None,
) -> None: ...

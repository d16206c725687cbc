from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DTYPES: tuple[str, ...]

class KVCache:
    n_layers: int
    n_kv_heads: int
    head_dim: int
    padded_dim: int
    context: int
    dtype: str
    position: int
    def __init__(
        self, n_layers: int, n_kv_heads: int, head_dim: int, context: int, dtype: str = "float16"
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def shared_bytes(self) -> int: ...
    def advance(self, n: int) -> None: ...
    def truncate(self, n: int) -> None: ...
    def fork(self) -> KVCache: ...
    def to_arrays(self) -> list[NDArray[np.uint8]]: ...
    def from_arrays(self, arrays: Sequence[NDArray[np.uint8]], position: int) -> None: ...

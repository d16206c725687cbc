from typing import Any

from numpy.typing import NDArray

class KVCache:
    n_layers: int
    n_kv_heads: int
    head_dim: int
    padded_dim: int
    context: int
    capacity: int
    is_half: bool
    position: int
    def __init__(
        self, n_layers: int, n_kv_heads: int, head_dim: int, context: int, is_half: bool = True
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def to_array(self) -> NDArray[Any]: ...
    def from_array(self, array: NDArray[Any], position: int) -> None: ...
    def copy(self) -> KVCache: ...

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustllm._core.kv_cache import KVCache
from rustllm._core.linear import PackedMatrix

KINDS: dict[str, int]
ACTIVATIONS: dict[str, int]

class Rows:
    shape: tuple[int, int]
    type_id: int
    def __init__(self, type_id: int, n_rows: int, n_cols: int, source: object) -> None: ...
    def row(self, index: int) -> NDArray[np.float32]: ...

class Workspace:
    capacity: int
    n_threads: int
    max_segments: int
    max_singles: int
    def __init__(self) -> None: ...
    @property
    def nbytes(self) -> int: ...

class Engine:
    plan: object
    exact: bool
    weights: dict[str, Any]
    def __init__(
        self,
        plan: object,
        weights: Mapping[str, PackedMatrix | Rows | NDArray[np.float32]],
        *,
        exact: bool = False,
    ) -> None: ...
    def forward(
        self,
        workspace: Workspace,
        sequences: Sequence[tuple[KVCache, NDArray[np.int32]]],
        kept: NDArray[np.int32],
        logits: NDArray[np.float32],
        threads: int,
        cancel: NDArray[np.int32] | None = None,
    ) -> bool: ...

def first_not_finite(values: NDArray[np.float32]) -> tuple[int, int] | None: ...

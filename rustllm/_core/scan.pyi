from typing import Any

import numpy as np
from numpy.typing import NDArray

class ScanError(ValueError):
    kind: str
    message: str
    offset: int
    hint: str | None
    key: str | None
    tensor: str | None

VALUE_TYPES: tuple[str, ...]

def scan_gguf(
    buffer: NDArray[np.uint8], strict: bool = False
) -> tuple[
    int,
    int,
    int,
    dict[str, tuple[int, int, int, Any]],
    dict[str, tuple[tuple[int, ...], int, int, int, int]],
]: ...
def strings_to_list(
    buffer: NDArray[np.uint8], offsets: NDArray[np.int64], lengths: NDArray[np.int64], decode: bool
) -> list[Any]: ...
def first_bad_utf8(
    buffer: NDArray[np.uint8], offsets: NDArray[np.int64], lengths: NDArray[np.int64]
) -> int: ...

from typing import Any

import numpy as np
from numpy.typing import NDArray

def scan_texts(
    data: Any, at: int, stop: int, name: bytes | None, spans: NDArray[np.int64], n: int
) -> tuple[int, int, int]: ...
def run_of(data: Any, reference: bool = False) -> int: ...

from typing import Any

import numpy as np
from numpy.typing import NDArray

def view_of(memory: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]: ...
def plain_dtype(dtype: Any) -> np.dtype[Any]: ...

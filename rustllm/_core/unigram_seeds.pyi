import numpy as np
from numpy.typing import NDArray

class Substrings:
    suffixes: NDArray[np.uint32]
    begins: NDArray[np.uint32]
    ends: NDArray[np.uint32]
    depths: NDArray[np.uint8]
    def __init__(self, text: NDArray[np.uint32], longest: int) -> None: ...

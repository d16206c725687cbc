from typing import Any

import numpy as np
from numpy.typing import NDArray

def parse_ranks(data: Any) -> tuple[bytes, NDArray[np.uint32], NDArray[np.uint32], int]: ...

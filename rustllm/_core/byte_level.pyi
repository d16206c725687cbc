from typing import Any

import numpy as np
from numpy.typing import NDArray

def bytes_to_text(data: bytes) -> str: ...
def text_to_bytes(text: str) -> bytes: ...
def decode_vocabulary(
    buffer: Any, offsets: Any, lengths: Any, verbatim: bytes
) -> tuple[bytes, NDArray[np.uint32]]: ...
def merge_ids(
    blob: bytes,
    ends: NDArray[np.uint32],
    listed: bytes,
    buffer: Any,
    offsets: Any,
    lengths: Any,
    byte_level: bool = True,
) -> tuple[NDArray[np.uint32], int]: ...
def decode_pieces(
    buffer: Any, offsets: Any, lengths: Any, codes: bytes
) -> tuple[bytes, NDArray[np.uint32], NDArray[np.uint32]]: ...

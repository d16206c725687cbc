import mmap

class ZeroedMemory:
    mapping: mmap.mmap
    def __init__(self, n_bytes: int, purpose: str, huge: bool = False) -> None: ...

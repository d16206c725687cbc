from enum import IntEnum

class Level(IntEnum):
    SCALAR = 0
    AVX2 = 1
    AVX512 = 2
    NEON = 3
    DOTPROD = 4

NAMES: tuple[str, ...]

def available_levels() -> tuple[str, ...]: ...
def current_level() -> str: ...
def set_level(name: str) -> None: ...

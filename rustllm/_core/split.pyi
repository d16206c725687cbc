from enum import IntEnum

class Pattern(IntEnum):
    GPT2 = 0
    CL100K = 1
    O200K = 2
    QWEN2 = 3
    SMOLLM = 4
    TEKKEN = 5
    DEEPSEEK = 6
    CL100K_TIKTOKEN = 7
    N_PATTERNS = 8

EXPRESSIONS: dict[str, tuple[str, ...]]
NAMES: tuple[str, ...]

def pattern_id(name: str) -> int: ...
def pretoken_ends(pattern: int, text: bytes, reference: bool = False) -> list[int]: ...
def safe_cut(text: bytes, from_: int, reach: int = 4096) -> int: ...

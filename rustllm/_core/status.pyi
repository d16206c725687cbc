from collections.abc import Callable
from enum import IntEnum

class Status(IntEnum):
    OK = 0
    NO_MEMORY = -1
    BAD_ARGUMENT = -2
    OUT_OF_RANGE = -3
    BAD_FORMAT = -4
    TRUNCATED = -5
    LIMIT_REACHED = -6
    NOT_FINITE = -7
    CANCELLED = -8
    STALE = -9
    CLOSED = -10

def register_raiser(raiser: Callable[[int, str], BaseException]) -> None: ...
def check_status(code: int, what: str) -> int: ...

from collections.abc import Callable
from enum import IntEnum
from typing import Any

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
    LIVE_VIEWS = -11
    RELEASED_TWICE = -12
    BAD_UTF8 = -13

def register_raiser(raiser: Callable[[int, str, dict[str, Any]], BaseException]) -> None: ...
def check_status(code: int, what: str) -> int: ...

from enum import IntEnum

class CharClass(IntEnum):
    OTHER = 0
    SPACE = 1
    NUMBER = 2
    UPPER = 3
    LOWER = 4
    LETTER = 5
    MARK = 6
    PUNCTUATION = 7
    SYMBOL = 8
    END = 15

UNICODE_VERSION: str
CATEGORIES: tuple[str, ...]

def category(char: str) -> str: ...
def char_class(char: str) -> int: ...

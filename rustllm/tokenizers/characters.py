"""Classes of characters as the regular expressions and Rust methods behind ``tokenizers`` see them.

From this package's own Unicode tables, not the interpreter's, whose version changes, and from
`older_categories` where the reference's are of another age.
"""

from __future__ import annotations

from functools import lru_cache

from rustllm._core.unicode import CharClass, category, char_class
from rustllm.tokenizers.older_categories import (
    MARKS_ONCE,
    MARKS_SINCE,
    NONSPACING_ONCE,
    NONSPACING_SINCE,
    NUMERIC_LATER,
    OTHERS_SINCE,
    PUNCTUATION_ONCE,
    PUNCTUATION_SINCE,
)

__all__ = [
    "is_chinese",
    "is_control",
    "is_mark",
    "is_nonspacing_mark",
    "is_numeric",
    "is_punctuation",
    "is_space",
    "is_word",
]

# Alphabetic characters outside letters, marks and letter-like numbers: circled and squared letters.
_OTHER_ALPHABETIC = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


@lru_cache(1 << 14)
def is_space(char: str) -> bool:
    """White_Space."""
    return char_class(char) == CharClass.SPACE


@lru_cache(1 << 14)
def is_word(char: str) -> bool:
    r"""``\\w``: alphabetic, mark, decimal digit, connector or joiner."""
    if category(char)[0] in "LM" or category(char) in ("Nd", "Nl", "Pc"):
        return True
    code = ord(char)
    if code in (0x200C, 0x200D):
        return True
    return any(first <= code <= last for first, last in _OTHER_ALPHABETIC)


@lru_cache(1 << 14)
def is_numeric(char: str) -> bool:
    """Any kind of number."""
    return category(char)[0] == "N" or char in NUMERIC_LATER


@lru_cache(1 << 14)
def is_punctuation(char: str) -> bool:
    """Punctuation, and the ASCII symbols that BERT takes for it."""
    code = ord(char)
    if code < 0x80:
        return 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    if category(char)[0] == "P":
        return char not in PUNCTUATION_SINCE
    return char in PUNCTUATION_ONCE


@lru_cache(1 << 14)
def is_control(char: str) -> bool:
    """What BERT's cleaning takes away; what is not assigned stays."""
    if char in "\t\n\r" or category(char) not in ("Cc", "Cf", "Co"):
        return False
    return char not in OTHERS_SINCE


@lru_cache(1 << 14)
def is_mark(char: str) -> bool:
    """Any combining mark."""
    if category(char)[0] == "M":
        return char not in MARKS_SINCE
    return char in MARKS_ONCE


@lru_cache(1 << 14)
def is_nonspacing_mark(char: str) -> bool:
    """A combining mark without a width of its own."""
    if category(char) == "Mn":
        return char not in NONSPACING_SINCE
    return char in NONSPACING_ONCE


def is_chinese(char: str) -> bool:
    """What BERT sets apart as a word of its own."""
    code = ord(char)
    return code >= 0x3400 and any(first <= code <= last for first, last in _CHINESE)

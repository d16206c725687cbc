"""Unicode's normal forms, of one version of Unicode whatever interpreter runs.

The version is the one that ``tokenizers`` carries (9.0). Unicode promises never to change how a
character is normalized, only to add some, so the interpreter's own tables do the work and what was
added later is left alone: such a character is a border that nothing moves or joins across.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Literal

from rustllm.tokenizers.normal_form_tables import LATER, NONSTARTERS

__all__ = ["Form", "is_normal", "is_starter", "normal_form"]

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]


# Interpreters put a run of marks in order in quadratic time; longer ones are sorted here.
_LONG_RUN = 64


def _class_of(ranges: tuple[tuple[int, int], ...]) -> str:
    return "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges) + "]"


# A class of characters below U+10000 is one look-up, what lies above is tried range by range: text
# without such characters, which is most, is searched ten times as fast without those ranges.
_ABOVE = re.compile("[\U00010000-\U0010ffff]")
_END_BELOW = 0x10000


def _kept(ranges: tuple[tuple[int, int], ...], below: bool) -> tuple[tuple[int, int], ...]:
    if not below:
        return ranges
    return tuple((first, min(last, 0xFFFF)) for first, last in ranges if first < _END_BELOW)


@cache
def _later(below: bool) -> re.Pattern[str]:
    return re.compile(f"({_class_of(_kept(LATER, below))}+)")


@cache
def _long_run(below: bool) -> re.Pattern[str]:
    return re.compile(f"{_class_of(_kept(NONSTARTERS, below))}{{{_LONG_RUN},}}")


@cache
def _nonstarter() -> re.Pattern[str]:
    return re.compile(_class_of(NONSTARTERS))


def _in_order(run: re.Match[str]) -> str:
    return "".join(
        sorted(
            [part for char in run[0] for part in unicodedata.normalize("NFD", char)],
            key=unicodedata.combining,
        )
    )


def is_normal(form: Form, text: str) -> bool:
    """Whether `text` is in the normal form already; False may mean that it has to be looked at.

    >>> is_normal("NFC", "é"), is_normal("NFD", "é")
    (True, False)
    """
    # what the interpreter takes for normal is so without its later characters too
    return text.isascii() or unicodedata.is_normalized(form, text)


def normal_form(form: Form, text: str) -> str:
    r"""The normal form of `text`, in time linear in it.

    Lone surrogates stay as they are.

    >>> normal_form("NFC", "e\u0301"), normal_form("NFKD", "ﬁ")
    ('é', 'fi')
    >>> normal_form("NFKC", "\u32ff")  # a character of Unicode 12.1
    '㋿'
    """
    if is_normal(form, text):
        return text
    below = _ABOVE.search(text) is None
    if len(text) > _LONG_RUN:
        text = _long_run(below).sub(_in_order, text)
    later = _later(below)
    if later.search(text) is None:
        return unicodedata.normalize(form, text)
    # every other part is a run of later characters
    parts = later.split(text)
    parts[::2] = [unicodedata.normalize(form, part) for part in parts[::2]]
    return "".join(parts)


def is_starter(char: str) -> bool:
    """Whether a character keeps its place among those around it; so does one added later."""
    return _nonstarter().match(char) is None

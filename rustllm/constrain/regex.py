"""Regular expressions as forms of a text.

The syntax is what Python's ``re``, ECMAScript and RE2 have in common: characters and escapes,
``.``, classes, groups, ``|`` and the quantifiers. What looks around, back or at flags is refused by
name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NoReturn

from rustllm.constrain.code_points import EVERY, Ranges, but_not, of, union, utf8
from rustllm.constrain.grammar import Alt, Node, Repeat, Seq
from rustllm.errors import ArgumentError, UnsupportedError

__all__ = ["parse_regex"]

MAX_DEPTH = 100
MAX_COUNT = 10_000

_DIGIT = of("09")
_WORD = of("09", "AZ", "az", "_")
_SPACE = of(" ", "\t", "\n", "\r", "\f", "\v")
# What `.` leaves out in one dialect or another.
_LINE_ENDS = of("\n", "\r", "\u2028", "\u2029")
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0", "a": "\a"}


def parse_regex(
    pattern: str, *, encode: Callable[[Ranges], Node] = utf8, search: bool = False
) -> Node:
    """Return the expression of a regular expression.

    Parameters
    ----------
    pattern : str
    encode : callable
        Spells one character of a set in bytes.
    search : bool
        The pattern may match anywhere in the text, unless it says ``^`` or ``$``.

    Raises
    ------
    ArgumentError
        The pattern is malformed; ``position`` tells where.
    UnsupportedError
        It uses what is not supported.
    """
    return _Parser(pattern, encode, search).whole()


_KINDS = {"d": (_DIGIT, str.isdecimal), "w": (_WORD, str.isalnum), "s": (_SPACE, str.isspace)}


@cache
def _wide(kind: str) -> Ranges:
    """What ``\\d``, ``\\w`` or ``\\s`` stands for in any dialect: all scripts, and ASCII."""
    ascii, test = _KINDS[kind]
    extra = ((0xFEFF, 0xFEFF),) if kind == "s" else ()
    return union((*ascii, *extra, *((c, c) for c in range(0x110000) if test(chr(c)))))


def _kind(letter: str, wide: bool) -> Ranges:
    """The set of an escape; of what dialects differ in, all if `wide`, else nothing.

    A class that is negated leaves out whatever any dialect has in it.
    """
    kind = letter.lower()
    if letter == kind:
        return _wide(kind) if wide else _KINDS[kind][0]
    return but_not(EVERY, _KINDS[kind][0] if wide else _wide(kind))


class _Parser:
    def __init__(self, pattern: str, encode: Callable[[Ranges], Node], search: bool) -> None:
        self._pattern = pattern
        self._encode = encode
        self._search = search
        self._at = 0
        self._depth = 0

    # ---- errors ----------------------------------------------------------------------------------

    def _wrong(self, what: str, at: int | None = None) -> NoReturn:
        at = self._at if at is None else at
        raise ArgumentError(
            f"{what} at position {at} of the pattern {self._pattern!r}", position=at
        )

    def _not_supported(self, what: str, at: int) -> NoReturn:
        raise UnsupportedError(
            f"{what} at position {at} of the pattern {self._pattern!r} is not supported",
            position=at,
        )

    # ---- the pattern, from the outside in --------------------------------------------------------

    def _peek(self) -> str:
        return self._pattern[self._at] if self._at < len(self._pattern) else ""

    def _take(self, token: str) -> bool:
        if self._pattern.startswith(token, self._at):
            self._at += len(token)
            return True
        return False

    def whole(self) -> Node:
        parts = [self._anchored()]
        while self._take("|"):
            parts.append(self._anchored())
        if self._peek():
            self._wrong("unbalanced )")
        return parts[0] if len(parts) == 1 else Alt(tuple(parts))

    def _anchored(self) -> Node:
        """One alternative of the whole pattern: it may say where it begins and ends."""
        anything = Repeat(self._encode(EVERY), 0, None)
        begins = self._take("^") or self._take("\\A")
        parts: list[Node] = [] if begins or not self._search else [anything]
        parts.append(self._sequence(outermost=True))
        ends = self._take("$") or self._take("\\Z") or self._take("\\z")
        if ends and self._peek() not in ("", "|"):
            self._not_supported("an end in the middle", self._at - 1)
        if self._search and not ends:
            parts.append(anything)
        return Seq(tuple(parts))

    def _alternatives(self) -> Node:
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else Alt(tuple(parts))

    def _sequence(self, outermost: bool = False) -> Node:
        parts: list[Node] = []
        while (char := self._peek()) and char not in "|)":
            if outermost and (
                char == "$" or self._pattern[self._at : self._at + 2] in ("\\Z", "\\z")
            ):
                break
            atom = self._atom()
            parts.append(self._quantified(atom))
        return parts[0] if len(parts) == 1 else Seq(tuple(parts))

    def _quantified(self, atom: Node) -> Node:
        count = self._count()
        if count is None:
            return atom
        at = self._at
        if self._take("+"):
            self._not_supported("a possessive quantifier", at)
        self._take("?")  # lazy or greedy, the texts are the same
        at = self._at
        if self._count() is not None:
            self._wrong("a second quantifier", at)
        return Repeat(atom, *count)

    def _count(self) -> tuple[int, int | None] | None:
        for token, count in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(token):
                return count
        at = self._at
        if self._take("{"):
            least = self._number()
            comma = self._take(",")
            most = self._number() if comma else least
            if self._take("}") and (least is not None or most is not None):
                low, high = least or 0, most
                if high is not None and high < low:
                    self._wrong("the smaller number comes second", at)
                if max(low, high or 0) > MAX_COUNT:
                    self._not_supported(f"more than {MAX_COUNT} repetitions", at)
                return low, high
            self._at = at  # a brace like any other character
        return None

    def _number(self) -> int | None:
        at = self._at
        while self._peek() and self._peek() in "0123456789":
            self._at += 1
        if self._at - at > 9:
            self._not_supported("a number that large", at)
        return int(self._pattern[at : self._at]) if self._at > at else None

    def _atom(self) -> Node:
        at = self._at
        if self._count() is not None:
            self._wrong("nothing to repeat", at)
        char = self._pattern[at]
        self._at = at + 1
        if char == "(":
            return self._group(at)
        if char == "[":
            return self._encode(self._class(at))
        if char == ".":
            return self._encode(but_not(EVERY, _LINE_ENDS))
        if char in "^$":
            self._not_supported(f"{char} in the middle", at)
        if char == "\\":
            return self._encode(self._escape(at))
        return self._encode(((ord(char), ord(char)),))

    def _group(self, at: int) -> Node:
        if self._take("?"):
            if self._take("P<") or (
                self._pattern.startswith("<", self._at)
                and self._pattern[self._at + 1 : self._at + 2] not in ("=", "!")
                and self._take("<")
            ):
                end = self._pattern.find(">", self._at)
                if end < 0 or not self._pattern[self._at : end].isidentifier():
                    self._wrong("a group's name is missing", at)
                self._at = end + 1
            elif not self._take(":"):
                names = {"=": "a lookahead", "!": "a lookahead", "<": "a lookbehind"}
                names |= {"#": "a comment", "(": "a conditional", ">": "an atomic group"}
                names |= {"P": "a reference"}
                self._not_supported(names.get(self._peek(), "a flag"), at)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._not_supported(f"a nesting of more than {MAX_DEPTH} groups", at)
        inner = self._alternatives()
        self._depth -= 1
        if not self._take(")"):
            self._wrong("a group without an end", at)
        return inner

    def _class(self, at: int) -> Ranges:
        negative = self._take("^")
        found: list[tuple[int, int]] = []
        first = True
        while first or self._peek() != "]":
            first = False
            low = self._member(at, negative)
            here = self._at
            if self._peek() == "-" and self._pattern[here + 1 : here + 2] not in ("]", ""):
                self._at += 1
                high = self._member(at, negative)
                if any(len(side) != 1 or side[0][0] != side[0][1] for side in (low, high)):
                    self._wrong("a range between sets", here)
                if high[0][0] < low[0][0]:
                    self._wrong("a range that ends before it begins", here)
                found.append((low[0][0], high[0][1]))
            else:
                found += low
        self._at += 1
        ranges = union(found)
        return but_not(EVERY, ranges) if negative else ranges

    def _member(self, at: int, wide: bool) -> Ranges:
        here = self._at
        char = self._peek()
        if not char:
            self._wrong("a class without an end", at)
        self._at += 1
        if char == "\\":
            return self._escape(here, in_class=True, wide=wide)
        if char == "[" and self._peek() == ":":
            self._not_supported("a named class", here)
        return ((ord(char), ord(char)),)

    def _escape(self, at: int, *, in_class: bool = False, wide: bool = False) -> Ranges:
        char = self._peek()
        if not char:
            self._wrong("a backslash at the end", at)
        self._at += 1
        if char in "dwsDWS":
            return _kind(char, wide)
        if char in "xuU":
            return self._hexadecimal(at, {"x": 2, "u": 4, "U": 8}[char])
        if char == "b" and in_class:
            return of("\b")
        if char in _CONTROLS and not (char == "0" and self._peek().isdigit()):
            return of(_CONTROLS[char])
        if char.isascii() and char.isalnum():
            names = {"b": "a word boundary", "B": "a word boundary", "p": "a property"}
            names |= {"P": "a property", "A": "a beginning in the middle"}
            names |= dict.fromkeys("Zz", "an end in the middle")
            names |= dict.fromkeys("0123456789k", "a reference or octal number")
            self._not_supported(names.get(char, f"the escape \\{char}"), at)
        return of(char)

    def _hexadecimal(self, at: int, n: int) -> Ranges:
        digits = self._pattern[self._at : self._at + n]
        if len(digits) < n or not all(c in "0123456789abcdefABCDEF" for c in digits):
            self._wrong(f"{n} hexadecimal digits expected", at)
        self._at += n
        code = int(digits, 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            self._wrong("that is no character", at)
        return ((code, code),)

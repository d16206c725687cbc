"""What splits or is replaced: a string, a known regular expression, or another one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from rustllm._core import split as _split
from rustllm._optional import need
from rustllm.errors import FileFormatError
from rustllm.tokenizers.traced_text import Span

__all__ = ["Finder", "known_pattern", "pattern_finder", "splitter_finder"]

Finder = Callable[[str], list[Span]]

# Means the same to every engine: one literal character, maybe repeated.
_SIMPLE = re.compile(r"[ \w](\{\d+,\d*\}|\+)?", re.ASCII)

_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PREFIX = r"[^\r\n\p{L}\p{N}]?"
_FOLDED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LISTED = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_CAMEL_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _camel(contraction: str, numbers: str) -> str:
    return (
        rf"{_PREFIX}{_UPPER}*{_LOWER}+{contraction}|{_PREFIX}{_UPPER}+{_LOWER}*{contraction}"
        rf"|{numbers}|{_CAMEL_TAIL}"
    )


# The spellings found in public files, beside those of the splitters themselves.
_KNOWN: dict[str, str] = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    _camel("", r"\p{N}"): "tekken",
}
for _contraction in (_FOLDED, _LISTED, "'(?i:[sdmt]|ll|ve|re)"):
    for _numbers, _name in ((r"\p{N}{1,3}", "cl100k"), (r"\p{N}", "qwen2")):
        _KNOWN[rf"{_contraction}|{_PREFIX}\p{{L}}+|{_numbers}|{_TAIL}"] = _name
    _KNOWN[_camel(f"{_contraction}?", r"\p{N}{1,3}")] = "o200k"
    _KNOWN[_camel(f"(?:{_contraction})?", r"\p{N}{1,3}")] = "o200k"
for _name, _expressions in _split.EXPRESSIONS.items():
    if len(_expressions) == 1:
        _KNOWN[_expressions[0]] = _name


def known_pattern(expression: str) -> str | None:
    """Name of the built-in splitter that does what `expression` does."""
    return _KNOWN.get(expression)


def splitter_finder(name: str) -> Finder:
    """Matches of a built-in splitter; they cover the text."""
    number = _split.pattern_id(name)

    def find(text: str) -> list[Span]:
        data = text.encode("utf-8", "surrogatepass")
        ends = _split.pretoken_ends(number, data)
        if len(data) == len(text):
            return list(zip([0, *ends], ends))
        spans = []
        start = at = 0
        for end in ends:
            n = len(data[at:end].decode("utf-8", "surrogatepass"))
            spans.append((start, start + n))
            start += n
            at = end
        return spans

    return find


def string_finder(wanted: str) -> Finder:
    """Occurrences of `wanted`, from left to right."""

    def find(text: str) -> list[Span]:
        spans = []
        at = text.find(wanted)
        while at >= 0:
            spans.append((at, at + len(wanted)))
            at = text.find(wanted, at + len(wanted))
        return spans

    return find if wanted else lambda text: []


def expression_finder(expression: str) -> Finder:
    """Matches of a regular expression, through the regex package if no splitter does it."""
    name = known_pattern(expression)
    if name is not None:
        return splitter_finder(name)
    if _SIMPLE.fullmatch(expression):
        simple = re.compile(expression)
        return lambda text: [found.span() for found in simple.finditer(text)]
    regex = need("regex", "regex", f"the expression {expression!r} is not built in and needs")
    try:
        compiled = regex.compile(expression)
    except regex.error as error:
        raise FileFormatError(
            f"{expression!r} is no regular expression: {error}", key="pattern"
        ) from error
    return lambda text: [found.span() for found in compiled.finditer(text)]


def pattern_finder(pattern: Any) -> Finder:
    """Read the ``pattern`` of a component: a string, ``{"String": ...}`` or ``{"Regex": ...}``."""
    if isinstance(pattern, str):
        return string_finder(pattern)
    if isinstance(pattern, Mapping) and len(pattern) == 1:
        ((kind, value),) = pattern.items()
        if isinstance(value, str):
            if kind == "String":
                return string_finder(value)
            if kind == "Regex":
                return expression_finder(value)
    raise FileFormatError(f"{pattern!r} is no pattern", key="pattern")

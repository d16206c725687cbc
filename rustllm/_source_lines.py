"""On which line of a TOML or JSON text each key stands.

Parsers give values without places; an error in a settings file or a manifest should name the line.
Both scanners run over text that a parser has accepted, in one linear pass.
"""

from __future__ import annotations

import re

__all__ = ["json_key_lines", "nearest_line", "toml_key_lines"]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = re.compile(rf"[ \t]*({_PART}(?:[ \t]*\.[ \t]*{_PART})*)[ \t]*=")
_TABLE = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_PART}(?:[ \t]*\.[ \t]*{_PART})*)[ \t]*\]\]?")
_SPLIT = re.compile(_PART)
# Everything inside a value that can hide a line end, a bracket or a comment sign.
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}|'
    r"'''(?:[^']|'(?!''))*'{3,5}|"
    r'"(?:[^"\\\n]|\\.)*"|'
    r"'[^'\n]*'|"
    r"#[^\n]*|[\[\]{}\n]|[^\"'#\[\]{}\n]+|.",
    re.DOTALL,
)
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|\n|[^"\[\]{},:\n]+', re.DOTALL)


def _parts(key: str) -> list[str]:
    return [part.strip("\"'") for part in _SPLIT.findall(key)]


def toml_key_lines(text: str) -> dict[str, int]:
    """Map dotted keys to line numbers, counted from 1; entries of ``[[x]]`` are ``x[0]``, ..."""
    lines: dict[str, int] = {}
    prefix = ""
    counts: dict[str, int] = {}
    position, line = 0, 1
    while position < len(text):
        table = _TABLE.match(text, position)
        key = None if table else _KEY.match(text, position)
        if table:
            prefix = ".".join(_parts(table[2]))
            if table[1] == "[[":
                index = counts.get(prefix, 0)
                counts[prefix] = index + 1
                prefix = f"{prefix}[{index}]"
            lines.setdefault(prefix, line)
            position = table.end()
        elif key:
            dotted = ".".join(([prefix] if prefix else []) + _parts(key[1]))
            lines.setdefault(dotted, line)
            position = key.end()
        depth = 0
        while position < len(text):  # to the end of this statement
            token = _TOKEN.match(text, position)
            if token is None:
                return lines
            position = token.end()
            piece = token[0]
            line += piece.count("\n")
            if piece in ("[", "{"):
                depth += 1
            elif piece in ("]", "}"):
                depth -= 1
            elif piece == "\n" and depth <= 0:
                break
    return lines


def json_key_lines(text: str) -> dict[str, int]:
    """Map dotted keys of nested objects to line numbers, counted from 1."""
    lines: dict[str, int] = {}
    path: list[str] = []
    last_string, line = "", 1
    opened: list[bool] = []  # for each open bracket, whether it put a name on the path
    pending: str | None = None
    for token in _JSON_TOKEN.finditer(text):
        piece = token[0]
        if piece[0] == '"':
            last_string = piece[1:-1]
        elif piece == ":":
            pending = last_string
            lines.setdefault(".".join([*path, pending]), line)
        elif piece in "{[":
            opened.append(pending is not None)
            if pending is not None:
                path.append(pending)
                pending = None
        elif piece in "]}":
            if opened and opened.pop():
                path.pop()
            pending = None
        elif piece == ",":
            pending = None
        line += piece.count("\n")
    return lines


def nearest_line(lines: dict[str, int], key: str) -> int | None:
    """Return the line of `key`, or of the closest part of it that has a line of its own."""
    while key:
        if key in lines:
            return lines[key]
        cut = max(key.rfind("."), key.rfind("["))
        key = key[:cut] if cut > 0 else ""
    return None

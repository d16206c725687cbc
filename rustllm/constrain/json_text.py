"""How JSON is spelled (RFC 8259), as expressions.

Only one of the many spellings is used where readers differ: no ``\\u`` of a surrogate, and numbers
short enough for a 64-bit integer or float to hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rustllm.constrain.code_points import EVERY, Ranges, but_not, of, union, utf8
from rustllm.constrain.grammar import Alt, ByteRange, Call, Node, Repeat, Seq, text

__all__ = [
    "ANY_STRING",
    "CHARACTER",
    "INTEGER",
    "NUMBER",
    "VALUE_RULE",
    "array",
    "literal",
    "obj",
    "optional",
    "quoted",
    "spelled",
    "string_but_not",
    "value_rule",
]

_CONTROL: Ranges = ((0, 0x1F),)
_PLAIN = but_not(EVERY, union((*_CONTROL, *of('"', "\\"))))
_SHORT = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", '"': '"', "\\": "\\"}


def spelled(ranges: Ranges) -> Node:
    """Return one character of the set as it stands in a JSON string, escaped where it must be."""
    parts: list[Node] = []
    plain = but_not(ranges, union((*_CONTROL, *of('"', "\\"))))
    if plain:
        parts.append(utf8(plain))
    for low, high in ranges:
        for code in range(low, min(high, ord("\\")) + 1):
            char = chr(code)
            if char in _SHORT:
                parts.append(text("\\" + _SHORT[char]))
            elif code < 0x20:
                parts.append(text(f"\\u{code:04x}"))
    return parts[0] if len(parts) == 1 else Alt(tuple(parts))


def _one_of(characters: str) -> Node:
    return utf8(union((ord(c), ord(c)) for c in characters))


_HEX = _one_of("0123456789abcdefABCDEF")
CHARACTER: Node = Alt(
    (
        utf8(_PLAIN),
        Seq((text("\\"), _one_of('"\\/bfnrt'))),
        Seq((text("\\u"), _one_of("0123456789abcefABCEF"), _HEX, _HEX, _HEX)),
        Seq((text("\\u"), _one_of("dD"), _one_of("01234567"), _HEX, _HEX)),
    )
)
_DIGIT = ByteRange(0x30, 0x39)
INTEGER: Node = Seq(
    (
        Repeat(text("-"), 0, 1),
        Alt((text("0"), Seq((ByteRange(0x31, 0x39), Repeat(_DIGIT, 0, 17))))),
    )
)
NUMBER: Node = Seq(
    (
        INTEGER,
        Repeat(Seq((text("."), Repeat(_DIGIT, 1, 17))), 0, 1),
        Repeat(
            Seq((_one_of("eE"), Repeat(_one_of("+-"), 0, 1), Repeat(_DIGIT, 1, 2))),
            0,
            1,
        ),
    )
)


def quoted(inner: Node) -> Node:
    """Return `inner` between quotes."""
    return Seq((text('"'), inner, text('"')))


ANY_STRING: Node = quoted(Repeat(CHARACTER, 0, None))


def optional(node: Node) -> Node:
    """Return `node` or nothing."""
    return Repeat(node, 0, 1)


def literal(value: Any) -> Node:
    """Return exactly this value."""
    return text(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def array(
    first: Sequence[Node], rest: Node | None, least: int, most: int | None, space: Node
) -> Node:
    """Return an array: the `first` elements, then `rest` again and again; `least` to `most`."""
    comma = Seq((space, text(","), space))
    if most is not None:
        first = first[:most]
    if rest is None:
        most = len(first) if most is None else min(most, len(first))
    tail: Node = Seq(())
    if rest is not None:
        low = max(0, least - len(first))
        high = None if most is None else most - len(first)
        if first:
            tail = Repeat(Seq((comma, rest)), low, high)
        elif high is None or high > 0:
            more = Repeat(Seq((comma, rest)), max(0, low - 1), None if high is None else high - 1)
            tail = Seq((rest, more))
            if low == 0:
                tail = optional(tail)
    # An element may be left out with all that follow it, from number `least` on.
    for index in range(len(first) - 1, -1, -1):
        part = Seq((comma, first[index], tail)) if index else Seq((first[index], tail))
        tail = part if index < least else optional(part)
    if rest is None and least > len(first):
        tail = Alt(())
    return Seq((text("["), space, tail, space, text("]")))


def obj(
    members: Sequence[tuple[Node, Node, bool]], more: tuple[Node, Node] | None, space: Node
) -> Node:
    """Return an object: members in order as (key, value, whether it must be there), then `more`."""
    comma = Seq((space, text(","), space))

    def pair(key: Node, value: Node) -> Node:
        return Seq((key, space, text(":"), space, value))

    # What follows the members so far, after a member and where none came yet.
    after: Node = Seq(())
    alone: Node = Seq(())
    if more is not None:
        other = pair(*more)
        after = Repeat(Seq((comma, other)), 0, None)
        alone = optional(Seq((other, after)))
    for key, value, required in reversed(members):
        this = pair(key, value)
        with_it, first_with_it = Seq((comma, this, after)), Seq((this, after))
        if required:
            after, alone = with_it, first_with_it
        else:
            after, alone = Alt((with_it, after)), Alt((first_with_it, alone))
    return Seq((text("{"), space, alone, space, text("}")))


VALUE_RULE = "any value"


def value_rule(space: Node) -> Node:
    """Return any JSON value, which the rule :data:`VALUE_RULE` has to stand for."""
    inner = Call(VALUE_RULE)
    return Alt(
        (
            obj((), (ANY_STRING, inner), space),
            array((), inner, 0, None, space),
            ANY_STRING,
            NUMBER,
            text("true"),
            text("false"),
            text("null"),
        )
    )


def string_but_not(names: Sequence[str]) -> Node:
    """Return any string but these, each character in its one spelling."""
    tree: dict[str, Any] = {}
    for name in names:
        node = tree
        for char in name:
            node = node.setdefault(char, {})
        node[""] = True
    any_more = Repeat(spelled(EVERY), 0, None)

    def rest(node: Mapping[str, Any]) -> Node:
        known = union((ord(c), ord(c)) for c in node if c)
        parts: list[Node] = [Seq((spelled(but_not(EVERY, known)), any_more))]
        parts += [Seq((spelled(of(c)), rest(below))) for c, below in node.items() if c]
        if "" not in node:
            parts.append(Seq(()))
        return Alt(tuple(parts))

    return quoted(rest(tree))

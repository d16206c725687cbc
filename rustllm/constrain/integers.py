"""Integers between two bounds, as an expression."""

from __future__ import annotations

from rustllm.constrain.grammar import Alt, ByteRange, Node, Repeat, Seq, text

__all__ = ["integers"]

_DIGIT = ByteRange(0x30, 0x39)


def integers(low: int, high: int) -> Node:
    """Return the decimal spelling of an integer from `low` to `high`, without leading zeros."""
    parts: list[Node] = []
    if low < 0:
        parts.append(Seq((text("-"), _positive(max(1, -high), -low))))
    if high >= 0:
        if low <= 0:
            parts.append(text("0"))
        if high > 0:
            parts.append(_positive(max(1, low), high))
    return Alt(tuple(parts))


def _positive(low: int, high: int) -> Node:
    parts = []
    for length in range(len(str(low)), len(str(high)) + 1):
        first, last = max(low, 10 ** (length - 1)), min(high, 10**length - 1)
        parts.append(_same_length(str(first), str(last)))
    return Alt(tuple(parts))


def _same_length(low: str, high: str) -> Node:
    """Numbers of equally many digits: the first digit decides how free the others are."""
    rest = len(low) - 1
    a, b = ord(low[0]), ord(high[0])
    if not rest:
        return ByteRange(a, b)
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return Seq((ByteRange(a, b), Repeat(_DIGIT, rest, rest)))
    if a == b:
        return Seq((ByteRange(a, a), _same_length(low[1:], high[1:])))
    parts = [Seq((ByteRange(a, a), _same_length(low[1:], "9" * rest)))]
    if a + 1 < b:
        parts.append(Seq((ByteRange(a + 1, b - 1), Repeat(_DIGIT, rest, rest))))
    parts.append(Seq((ByteRange(b, b), _same_length("0" * rest, high[1:]))))
    return Alt(tuple(parts))

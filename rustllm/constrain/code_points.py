"""Sets of code points as sorted ranges, and their spelling in UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeAlias

from rustllm.constrain.grammar import Alt, ByteRange, Node, Seq

__all__ = ["EVERY", "Ranges", "but_not", "negated", "of", "union", "utf8"]

Ranges: TypeAlias = tuple[tuple[int, int], ...]

# Surrogates are no characters: no text holds them.
EVERY: Ranges = ((0, 0xD7FF), (0xE000, 0x10FFFF))


def of(*characters: str) -> Ranges:
    """Return the set of these characters; of two, such as ``"az"``, the range between them."""
    return union((ord(c[0]), ord(c[-1])) for c in characters)


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the ranges sorted, and joined where they touch."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def negated(ranges: Ranges) -> Ranges:
    """Return all other code points, surrogates among them."""
    gaps, at = [], 0
    for low, high in ranges:
        if at < low:
            gaps.append((at, low - 1))
        at = high + 1
    if at <= 0x10FFFF:
        gaps.append((at, 0x10FFFF))
    return tuple(gaps)


def but_not(ranges: Ranges, others: Ranges) -> Ranges:
    """Return the code points of `ranges` that are not in `others`."""
    return negated(union((*negated(ranges), *others)))


@cache
def utf8(ranges: Ranges) -> Node:
    """Return the expression for one character of the set, in UTF-8."""
    parts = []
    for low, high in but_not(ranges, ((0xD800, 0xDFFF),)):
        parts += [
            Seq(tuple(ByteRange(a, b) for a, b in sequence)) for sequence in _split(low, high)
        ]
    return parts[0] if len(parts) == 1 else Alt(tuple(parts))


def _split(low: int, high: int) -> Iterator[list[tuple[int, int]]]:
    """Cut a range of code points into products of byte ranges."""
    for top in (0x7F, 0x7FF, 0xFFFF):
        if low <= top < high:
            yield from _split(low, top)
            yield from _split(top + 1, high)
            return
    for bits in (6, 12, 18):
        mask = (1 << bits) - 1
        if high > 0x7F and low & ~mask != high & ~mask:
            if low & mask:
                yield from _split(low, low | mask)
                yield from _split((low | mask) + 1, high)
                return
            if high & mask != mask:
                yield from _split(low, (high & ~mask) - 1)
                yield from _split(high & ~mask, high)
                return
    yield list(zip(chr(low).encode(), chr(high).encode()))

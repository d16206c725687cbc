"""The character map that SentencePiece compiles into a model: a double-array trie and its targets.

Two readings exist. SentencePiece replaces the longest key wherever it stands. ``tokenizers`` looks
at one grapheme at a time and takes the *shortest* key that the grapheme starts with, dropping the
rest; ids depend on it, so that is kept for files of that format.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import cached_property, lru_cache

from rustllm._core.unicode import category
from rustllm.errors import FileFormatError
from rustllm.tokenizers.traced_text import TracedText

__all__ = ["PrecompiledMap"]

_LONGEST_GRAPHEME = 5  # bytes
_LONGEST_KEY = 64  # bytes
_MOST_NODES = 1 << 21
_SHORT = 1 << 14  # characters up to which looking through all keys does not pay
_MOST_GRAPHEMES = 1 << 16


class PrecompiledMap:
    """A compiled character map.

    Parameters
    ----------
    blob : bytes
        Size of the trie in bytes, the trie, and the targets, each ended by a zero byte.

    Notes
    -----
    Immutable but for a table of characters already looked up, which only grows.
    """

    def __init__(self, blob: bytes) -> None:
        if not blob:
            self._units: list[int] = []
            self._targets = b""
        else:
            size = int.from_bytes(blob[:4], "little")
            if len(blob) < 8 or size % 4 or not 4 <= size <= len(blob) - 4:
                raise FileFormatError("the character map is cut short", key="precompiled_charsmap")
            self._units = memoryview(blob)[4 : 4 + size].cast("I").tolist()
            self._targets = blob[4 + size :]
        self._table = _Table(self)
        self._alone = _OfCodes(self._table)
        self._keeps_ascii = all(
            self.transform(char) in (None, char) for char in map(chr, range(0x20, 0x7F))
        )

    @classmethod
    def from_base64(cls, text: str) -> PrecompiledMap:
        """Read the map as ``tokenizer.json`` writes it."""
        try:
            return cls(base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise FileFormatError(
                f"the character map is no base64: {error}", key="precompiled_charsmap"
            ) from None

    def prefixes(self, key: bytes) -> list[tuple[int, int]]:
        """Length and target of each key of the map that `key` starts with, shortest first."""
        units = self._units
        n = len(units)
        found: list[tuple[int, int]] = []
        if not n:
            return found
        at = _offset(units[0])
        for i, byte in enumerate(key):
            at ^= byte
            if at >= n or units[at] & 0x800000FF != byte:
                break
            unit = units[at]
            at ^= _offset(unit)
            if unit >> 8 & 1:
                if at >= n:
                    break
                found.append((i + 1, units[at] & 0x7FFFFFFF))
        return found

    def target(self, start: int) -> str:
        """The text that stands at `start` of the targets."""
        end = self._targets.find(b"\0", start)
        data = self._targets[start : len(self._targets) if end < 0 else end]
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise FileFormatError(
                "a target of the character map is not UTF-8", key="precompiled_charsmap"
            ) from None

    # -- as tokenizers does it --------------------------------------------------------------------

    def transform(self, chunk: str) -> str | None:
        """Target of the shortest key that `chunk` starts with."""
        found = self.prefixes(chunk.encode("utf-8", "surrogatepass"))
        return self.target(found[0][1]) if found else None

    def replace_grapheme(self, grapheme: str) -> str:
        """What one grapheme becomes."""
        if len(grapheme.encode("utf-8", "surrogatepass")) <= _LONGEST_GRAPHEME:
            whole = self.transform(grapheme)
            if whole is not None:
                return whole
        new = [self.transform(char) for char in grapheme]
        return "".join([char if to is None else to for char, to in zip(grapheme, new, strict=True)])

    def normalize(self, text: TracedText) -> None:
        """Replace graphemes and characters."""
        if text.spans is None and self._keeps_ascii:
            text.text = self._replace_runs(text.text)
            return
        changes: list[tuple[str, int]] = []
        for grapheme in graphemes(text.text):
            if len(grapheme.encode("utf-8", "surrogatepass")) <= _LONGEST_GRAPHEME:
                whole = self.transform(grapheme)
                if whole is not None:
                    _replace(changes, len(grapheme), whole)
                    continue
            for char in grapheme:
                new = self.transform(char)
                if new is None:
                    changes.append((char, 0))
                else:
                    _replace(changes, 1, new)
        text.rewrite(changes)

    def _replace_runs(self, text: str) -> str:
        """Replace graphemes, where printable ASCII characters stay what they are."""
        parts = []
        last = 0
        table = self._table
        for found in _NOT_PRINTABLE.finditer(text):
            start, end = found.span()
            # a mark belongs to the letter before it, a letter to a sign put in front of it
            if start > last and _is_extend(text[start]):
                start -= 1
            if _LEADS.match(text[end - 1]):
                end += 1
            parts.append(text[last:start])
            run = text[start:end]
            if _joining().search(run) is None:  # every character is a grapheme of its own
                parts.append(run.translate(self._alone))
            else:
                parts.append(_unusual().sub(lambda found: table[found[0]], run))
            last = end
        parts.append(text[last:])
        return "".join(parts)

    # -- as SentencePiece does it -----------------------------------------------------------------

    @cached_property
    def _keys(self) -> tuple[dict[int, str], frozenset[str]]:
        """Keys of one character and their targets; the characters that others continue with."""
        children: dict[int, list[tuple[int, int]]] = {}
        units = self._units
        for at, unit in enumerate(units):
            if unit >> 31 == 0 and unit & 0xFF:  # its own label says where its parent points
                children.setdefault(at ^ (unit & 0xFF), []).append((unit & 0xFF, at))
        single: dict[int, str] = {}
        behind: set[str] = set()
        todo = [(b"", _offset(units[0]))] if units else []
        n_seen = 0
        while todo:
            prefix, base = todo.pop()
            for label, at in children.get(base, ()):
                n_seen += 1  # ends are shared, so there may be more keys than units
                if len(prefix) >= _LONGEST_KEY or n_seen > _MOST_NODES:
                    raise FileFormatError(
                        "the character map is too large, or goes in circles",
                        key="precompiled_charsmap",
                    )
                key = prefix + bytes([label])
                below = at ^ _offset(units[at])
                if units[at] >> 8 & 1 and below < len(units):
                    try:
                        text = key.decode("utf-8")
                    except UnicodeDecodeError:
                        text = ""
                    if len(text) == 1:
                        single[ord(text)] = self.target(units[below] & 0x7FFFFFFF)
                    else:
                        behind.update(text[1:])
                todo.append((key, below))
        return single, frozenset(behind)

    # Looking through the keys takes most of a second, once.
    @cached_property
    def _fast(self) -> tuple[dict[int, str], re.Pattern[str] | None]:
        """Targets of single characters; what finds the places that need the longest match."""
        single, behind = self._keys
        if not behind:
            return single, None
        # one character and all that may go with it
        inside = _class_of(sorted(map(ord, behind)))
        return single, re.compile(f"[^{inside}]?[{inside}]+")

    def replace_longest(self, text: str) -> str:
        """Replace the longest key at each place."""
        if text.isascii() and self._keeps_ascii and text.isprintable():
            return text
        if len(text) < _SHORT and "_fast" not in self.__dict__:
            return self._replace_longest(text)
        single, together = self._fast
        if together is None:
            return text.translate(single)
        parts = []
        last = 0
        for found in together.finditer(text):
            parts.append(text[last : found.start()].translate(single))
            parts.append(self._replace_longest(found[0]))
            last = found.end()
        parts.append(text[last:].translate(single))
        return "".join(parts)

    def _replace_longest(self, text: str) -> str:
        return "".join([new for new, _ in self.steps(text)])

    def steps(self, text: str) -> list[tuple[str, int]]:
        """What each longest key of `text` becomes, and of how many characters it is."""
        data = text.encode("utf-8", "surrogatepass")
        out = []
        at = 0
        n = len(data)
        while at < n:
            found = self.prefixes(data[at : at + 256])
            if found:
                length, start = found[-1]
                taken = sum(byte & 0xC0 != 0x80 for byte in data[at : at + length])
                out.append((self.target(start), taken))
                at += length
                continue
            end = at + 1
            while end < n and data[end] & 0xC0 == 0x80:
                end += 1
            out.append((data[at:end].decode("utf-8", "replace"), 1))
            at = end
        return out


class _Table(dict[str, str]):
    """What each grapheme becomes, looked up once."""

    def __init__(self, owner: PrecompiledMap) -> None:
        self._owner = owner

    def __missing__(self, grapheme: str) -> str:
        new = self._owner.replace_grapheme(grapheme)
        if len(grapheme) <= _LONGEST_GRAPHEME:
            if len(self) >= _MOST_GRAPHEMES:
                self.clear()
            self[grapheme] = new
        return new


class _OfCodes(dict[int, str]):
    """The same for single characters by their number, which is what `str.translate` looks up."""

    def __init__(self, table: _Table) -> None:
        self._of = table

    def __missing__(self, code: int) -> str:
        new = self._of[chr(code)]
        if len(self) >= _MOST_GRAPHEMES:
            self.clear()
        self[code] = new
        return new


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 0x200) >> 6)


def _replace(changes: list[tuple[str, int]], n_old: int, new: str) -> None:
    """Note that `n_old` characters become `new`."""
    changes += ((char, int(i >= n_old)) for i, char in enumerate(new))
    if len(new) < n_old and changes:
        char, change = changes[-1]
        changes[-1] = (char, change - (n_old - len(new)))


@lru_cache(1 << 14)
def _is_extend(char: str) -> bool:
    return (
        category(char) in ("Mn", "Me", "Mc")
        or char in "\u200c\u200d\u0e33\u0eb3\uff9e\uff9f"
        or "\U0001f3fb" <= char <= "\U0001f3ff"
    )


_PREPEND = "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2"


_LEADS = re.compile(f"[{_PREPEND}]")
_NOT_PRINTABLE = re.compile("[^ -~]+")


def _is_break(char: str) -> bool:
    """Whether a grapheme ends before and behind `char`."""
    kind = category(char)
    return kind in ("Cc", "Zl", "Zp") or (kind == "Cf" and char not in "\u200c\u200d")


def _class_of(codes: list[int]) -> str:
    """Inside of a character class."""
    ranges = []
    start = previous = codes[0]
    for code in [*codes[1:], 0x110001]:
        if code != previous + 1:
            ranges.append(f"\\U{start:08x}-\\U{previous:08x}")
            start = code
        previous = code
    return "".join(ranges)


@lru_cache(1)
def _joining() -> re.Pattern[str]:
    """Finds characters that may share a grapheme with another; all above U+FFFF may."""
    extend = _class_of([code for code in range(0x80, 0x10000) if _is_extend(chr(code))])
    return re.compile(f"[\r{extend}{_PREPEND}\U00010000-\U0010ffff]")


@lru_cache(1)
def _unusual() -> re.Pattern[str]:
    """Finds graphemes that are not one printable ASCII character."""
    codes = [*range(0x20000), *range(0xE0000, 0xE0200)]
    extend = _class_of([code for code in codes if code > 0x7F and _is_extend(chr(code))])
    prepend = [code for code in codes if _LEADS.match(chr(code))]
    breaks = [code for code in codes if code not in prepend and _is_break(chr(code))]
    stop = _class_of(breaks)
    first = _class_of(prepend)
    return re.compile(
        rf"\r\n|[ -~][{extend}]+|[{first}]+[^{stop}{first}]?[{extend}]*"
        rf"|[^ -~{stop}{first}][{extend}]*|[^ -~]"
    )


def graphemes(text: str) -> list[str]:
    """Cut `text` into graphemes, as far as those of up to five bytes are concerned.

    Examples
    --------
    >>> [len(grapheme) for grapheme in graphemes("ae\\u0301\\r\\nb")]
    [1, 2, 2, 1]
    """
    out: list[str] = []
    last = 0
    for found in _unusual().finditer(text):
        out += text[last : found.start()]
        out.append(found[0])
        last = found.end()
    return [*out, *text[last:]]

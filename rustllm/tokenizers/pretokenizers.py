"""Pre-tokenizers of ``tokenizer.json``: how text is cut before the model sees it.

Each is a function from pieces to pieces, `TracedText` objects both.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from rustllm.errors import FileFormatError
from rustllm.tokenizers.characters import is_numeric, is_punctuation, is_space, is_word
from rustllm.tokenizers.components import Fields, build_component
from rustllm.tokenizers.normalizers import byte_level
from rustllm.tokenizers.patterns import Finder, pattern_finder, splitter_finder
from rustllm.tokenizers.traced_text import Span, TracedText

__all__ = ["PreTokenizer", "build_pre_tokenizer"]

PreTokenizer = Callable[[list[TracedText]], list[TracedText]]
_BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")


def build_pre_tokenizer(value: Any) -> PreTokenizer | None:
    """Build the pre-tokenizer that `value`, parsed JSON, describes; None for null."""
    return None if value is None else build_component(value, "pre_tokenizer", _BUILDERS)


def _sequence(fields: Fields) -> PreTokenizer:
    parts = [
        build_component(part, "pre_tokenizer", _BUILDERS)
        for part in fields.take("pretokenizers", list)
    ]

    def cut(pieces: list[TracedText]) -> list[TracedText]:
        for part in parts:
            pieces = part(pieces)
        return pieces

    return cut


def cut_spans(length: int, found: list[Span], behavior: str, invert: bool) -> list[Span]:
    """Spans of the pieces of a text of `length` characters, given what a pattern found in it.

    Examples
    --------
    >>> cut_spans(5, [(1, 2), (3, 4)], "MergedWithNext", False)
    [(0, 1), (1, 3), (3, 5)]
    """
    parts: list[tuple[int, int, bool]] = []
    last = 0
    for start, end in found:
        if start > last:
            parts.append((last, start, invert))
        if end > start:
            parts.append((start, end, not invert))
        last = max(last, end)
    if last < length:
        parts.append((last, length, invert))
    if behavior == "Removed":
        return [(start, end) for start, end, matched in parts if not matched]
    if behavior == "Isolated":
        return [(start, end) for start, end, _ in parts]
    spans: list[Span] = []
    previous = False
    if behavior == "MergedWithNext":
        for start, end, matched in reversed(parts):
            if matched and not previous and spans:
                spans[-1] = (start, spans[-1][1])
            else:
                spans.append((start, end))
            previous = matched
        return spans[::-1]
    for start, end, matched in parts:
        join = matched == previous if behavior == "Contiguous" else matched and not previous
        if join and spans:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
        previous = matched
    return spans


def _cutter(find: Finder, behavior: str, invert: bool = False) -> PreTokenizer:
    def cut(pieces: list[TracedText]) -> list[TracedText]:
        return [
            piece.slice(start, end)
            for piece in pieces
            for start, end in cut_spans(len(piece.text), find(piece.text), behavior, invert)
        ]

    return cut


def _characters(wanted: Callable[[str], bool]) -> Finder:
    return lambda text: [(i, i + 1) for i, char in enumerate(text) if wanted(char)]


def _behavior(fields: Fields, default: str | None = None) -> str:
    behavior: str = fields.take("behavior", str, *(() if default is None else (default,)))
    if behavior not in _BEHAVIORS:
        raise FileFormatError(f"{fields.what}: behavior {behavior!r}", key="behavior")
    return behavior


def _split(fields: Fields) -> PreTokenizer:
    find = pattern_finder(fields.take("pattern", (str, dict)))
    return _cutter(find, _behavior(fields), fields.take("invert", bool, False))


def _byte_level(fields: Fields) -> PreTokenizer:
    add_prefix_space: bool = fields.take("add_prefix_space", bool, True)
    use_regex: bool = fields.take("use_regex", bool, True)
    fields.take("trim_offsets", bool, True)  # of use to the post-processor only
    cut = _cutter(splitter_finder("gpt2"), "Isolated")

    def apply(pieces: list[TracedText]) -> list[TracedText]:
        if add_prefix_space:
            for piece in pieces:
                if not piece.text.startswith(" "):
                    piece.prepend(" ")
        if use_regex:
            pieces = cut(pieces)
        for piece in pieces:
            byte_level(piece)
        return pieces

    return apply


def _metaspace(fields: Fields) -> PreTokenizer:
    mark = fields.char("replacement", "▁")
    old: bool | None = fields.take("add_prefix_space", bool, None)
    scheme: str = fields.take("prepend_scheme", str, "never" if old is False else "always")
    split: bool = fields.take("split", bool, True)
    fields.take("str_rep", str, None)
    if scheme not in ("always", "never", "first"):
        raise FileFormatError(f"Metaspace: prepend_scheme {scheme!r}", key="prepend_scheme")

    def cut(pieces: list[TracedText]) -> list[TracedText]:
        out: list[TracedText] = []
        for piece in pieces:
            piece.text = piece.text.replace(" ", mark)
            wanted = scheme == "always" or (scheme == "first" and piece.at_start)
            if wanted and not piece.text.startswith(mark):
                piece.prepend(mark)
            if not split:
                out.append(piece)
                continue
            starts = [0, *(i for i, char in enumerate(piece.text) if char == mark and i)]
            if piece.text:
                out += [piece.slice(*span) for span in pairwise([*starts, len(piece.text)])]
        return out

    return cut


def _whitespace(fields: Fields) -> PreTokenizer:
    """Runs of word characters, and runs of what is neither word character nor space."""

    def find(text: str) -> list[Span]:
        spans: list[Span] = []
        kind = 0
        for i, char in enumerate(text):
            new = 0 if is_space(char) else 1 if is_word(char) else 2
            if new and new == kind:
                spans[-1] = (spans[-1][0], i + 1)
            elif new:
                spans.append((i, i + 1))
            kind = new
        return spans

    return _cutter(find, "Removed", invert=True)


def _bert(fields: Fields) -> PreTokenizer:
    spaces = _cutter(_characters(is_space), "Removed")
    punctuation = _cutter(_characters(is_punctuation), "Isolated")
    return lambda pieces: punctuation(spaces(pieces))


def _punctuation(fields: Fields) -> PreTokenizer:
    return _cutter(_characters(is_punctuation), _behavior(fields, "Isolated"))


def _digits(fields: Fields) -> PreTokenizer:
    each: bool = fields.take("individual_digits", bool, False)
    return _cutter(_characters(is_numeric), "Isolated" if each else "Contiguous")


def _delimiter(fields: Fields) -> PreTokenizer:
    delimiter = fields.char("delimiter")
    return _cutter(_characters(delimiter.__eq__), "Removed")


def _fixed_length(fields: Fields) -> PreTokenizer:
    length: int = fields.take("length", int)
    if length < 1:
        raise FileFormatError(f"FixedLength: length {length}", key="length")

    def cut(pieces: list[TracedText]) -> list[TracedText]:
        return [
            piece.slice(start, min(start + length, len(piece.text)))
            for piece in pieces
            for start in range(0, len(piece.text), length)
        ]

    return cut


_BUILDERS: dict[str, Callable[[Fields], PreTokenizer]] = {
    "BertPreTokenizer": _bert,
    "ByteLevel": _byte_level,
    "CharDelimiterSplit": _delimiter,
    "Digits": _digits,
    "FixedLength": _fixed_length,
    "Metaspace": _metaspace,
    "Punctuation": _punctuation,
    "Sequence": _sequence,
    "Split": _split,
    "Whitespace": _whitespace,
    "WhitespaceSplit": lambda fields: _cutter(_characters(is_space), "Removed"),
}

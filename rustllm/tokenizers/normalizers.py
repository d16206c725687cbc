"""Normalizers of ``tokenizer.json``: what happens to the text before it is cut.

Each is a function that changes a `TracedText`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rustllm.tokenizers.byte_alphabet import BYTE_TO_CHAR
from rustllm.tokenizers.characters import (
    is_chinese,
    is_control,
    is_mark,
    is_nonspacing_mark,
    is_space,
)
from rustllm.tokenizers.components import Fields, build_component
from rustllm.tokenizers.normal_forms import Form, is_normal, is_starter, normal_form
from rustllm.tokenizers.older_categories import LOWER
from rustllm.tokenizers.patterns import pattern_finder
from rustllm.tokenizers.traced_text import TracedText

__all__ = ["Normalizer", "bert_normalizer", "build_normalizer"]

Normalizer = Callable[[TracedText], None]

# Capitals that interpreters may not know yet.
_LATER_UPPER = frozenset(map(chr, LOWER))


def build_normalizer(value: Any) -> Normalizer | None:
    """Build the normalizer that `value`, parsed JSON, describes; None for null."""
    return None if value is None else build_component(value, "normalizer", _BUILDERS)


def _sequence(fields: Fields) -> Normalizer:
    parts = [
        build_component(part, "normalizer", _BUILDERS) for part in fields.take("normalizers", list)
    ]

    def normalize(text: TracedText) -> None:
        for part in parts:
            part(text)

    return normalize


def unicode_form(form: Form) -> Normalizer:
    """Normal form of Unicode."""

    def normalize(text: TracedText) -> None:
        if is_normal(form, text.text):
            return
        if text.spans is None:
            text.text = normal_form(form, text.text)
        else:
            text.rewrite(_form_changes(text.text, form))

    return normalize


def _form_changes(text: str, form: Form) -> list[tuple[str, int]]:
    """How each character of the normal form comes from those of `text`.

    Characters up to the next starter that nothing before it composes with are taken together.
    """
    changes: list[tuple[str, int]] = []
    start = 0
    starters = [is_starter(char) for char in text]
    for end in range(1, len(text) + 1):
        if end < len(text):
            if not starters[end]:
                continue
            # marks between two starters keep them apart
            if starters[end - 1]:
                alone = normal_form(form, text[start:end]) + normal_form(form, text[end])
                if normal_form(form, text[start : end + 1]) != alone:
                    continue
        old = text[start:end]
        new = normal_form(form, old)
        if len(new) >= len(old):
            # every old character gives one or more new ones
            counts = [len(normal_form(form, char)) for char in old]
            if sum(counts) == len(new):
                flags = [int(i > 0) for n in counts for i in range(n)]
            else:
                flags = [0] * len(old) + [1] * (len(new) - len(old))
            changes += zip(new, flags, strict=True)
        else:
            changes.append((new[0], len(new) - len(old)))
            changes += [(char, 0) for char in new[1:]]
        start = end
    return changes


def _form(form: Form) -> Callable[[Fields], Normalizer]:
    return lambda fields: unicode_form(form)


def lower_character(char: str) -> str:
    """Lower case of one character, without regard to what stands around it."""
    return LOWER.get(ord(char)) or char.lower()


def lowercase(text: TracedText) -> None:
    """Lower case, character by character."""
    if text.spans is None and "Σ" not in text.text:
        text.text = text.text.lower()
        if not text.text.isascii() and not _LATER_UPPER.isdisjoint(text.text):
            text.text = text.text.translate(LOWER)
    else:
        text.map_characters(lower_character)


def strip_marks(text: TracedText) -> None:
    """Drop combining marks."""
    if not text.text.isascii():
        text.keep(lambda char: not is_mark(char))


def _strip(fields: Fields) -> Normalizer:
    left: bool = fields.take("strip_left", bool, True)
    right: bool = fields.take("strip_right", bool, True)

    def normalize(text: TracedText) -> None:
        start, end = 0, len(text.text)
        while left and start < end and is_space(text.text[start]):
            start += 1
        while right and start < end and is_space(text.text[end - 1]):
            end -= 1
        if text.spans is not None:
            text.spans = text.spans[start:end]
        text.text = text.text[start:end]

    return normalize


def _prepend(fields: Fields) -> Normalizer:
    prefix: str = fields.take("prepend", str)
    return lambda text: text.prepend(prefix)


def _replace(fields: Fields) -> Normalizer:
    pattern: Any = fields.take("pattern", (str, dict))
    find = pattern_finder(pattern)
    content: str = fields.take("content", str)
    plain = pattern.get("String") if isinstance(pattern, dict) else pattern

    def normalize(text: TracedText) -> None:
        if text.spans is None and plain:
            text.text = text.text.replace(plain, content)
        else:
            text.replace([span for span in find(text.text) if span[0] < span[1]], content)

    return normalize


_NMT_DROPPED = {*range(0x1, 0x9), 0xB, *range(0xE, 0x20), 0x7F, 0x8F, 0x9F}
_NMT_SPACES = {0x9, 0xA, 0xC, 0xD, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581}
_NMT_SPACES |= {0xFEFF, 0xFFFD}


def nmt(text: TracedText) -> None:
    """The clean-up of NMT systems: control characters go, odd spaces become spaces."""
    text.keep(lambda char: ord(char) not in _NMT_DROPPED)
    text.map_characters(lambda char: " " if ord(char) in _NMT_SPACES else char)


def bert_normalizer(
    clean_text: bool, handle_chinese_chars: bool, strip_accents: bool | None, lower: bool
) -> Normalizer:
    """BERT's: clean-up, Chinese characters set apart, accents stripped, lower case."""
    strip = lower if strip_accents is None else strip_accents
    decompose = unicode_form("NFD")

    def normalize(text: TracedText) -> None:
        if clean_text:
            text.keep(lambda char: char not in "\0\ufffd" and not is_control(char))
            text.map_characters(lambda char: " " if is_space(char) else char)
        if handle_chinese_chars and any(map(is_chinese, set(text.text))):
            changes: list[tuple[str, int]] = []
            for char in text.text:
                if is_chinese(char):
                    changes += ((" ", 0), (char, 1), (" ", 1))
                else:
                    changes.append((char, 0))
            text.rewrite(changes)
        if strip and not text.text.isascii():
            decompose(text)
            text.keep(lambda char: not is_nonspacing_mark(char))
        if lower:
            lowercase(text)

    return normalize


def _bert(fields: Fields) -> Normalizer:
    return bert_normalizer(
        fields.take("clean_text", bool, True),
        fields.take("handle_chinese_chars", bool, True),
        fields.take("strip_accents", bool, None),
        fields.take("lowercase", bool, True),
    )


def byte_level(text: TracedText) -> None:
    """Write the text in the byte alphabet."""
    if text.spans is None:
        text.text = text.text.encode("utf-8", "surrogatepass").decode("latin-1")
        text.text = text.text.translate(BYTE_TO_CHAR)
    else:
        text.map_characters(
            lambda char: "".join([BYTE_TO_CHAR[b] for b in char.encode("utf-8", "surrogatepass")])
        )


def _precompiled(fields: Fields) -> Normalizer:
    from rustllm.tokenizers.precompiled import PrecompiledMap

    return PrecompiledMap.from_base64(fields.take("precompiled_charsmap", str)).normalize


_BUILDERS: dict[str, Callable[[Fields], Normalizer]] = {
    "BertNormalizer": _bert,
    "ByteLevel": lambda fields: byte_level,
    "Lowercase": lambda fields: lowercase,
    "NFC": _form("NFC"),
    "NFD": _form("NFD"),
    "NFKC": _form("NFKC"),
    "NFKD": _form("NFKD"),
    "Nmt": lambda fields: nmt,
    "Precompiled": _precompiled,
    "Prepend": _prepend,
    "Replace": _replace,
    "Sequence": _sequence,
    "Strip": _strip,
    "StripAccents": lambda fields: strip_marks,
}

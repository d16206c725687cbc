"""Words and their counts, as a normalizer and a pre-tokenizer of ``tokenizer.json`` cut text.

Text is counted in stretches that end where words end for certain; each distinct stretch is then
normalized and cut once, many of them joined where the normalizer allows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

from rustllm.tokenizers.characters import is_punctuation, is_space
from rustllm.tokenizers.normalizers import build_normalizer
from rustllm.tokenizers.pretokenizers import build_pre_tokenizer
from rustllm.tokenizers.traced_text import TracedText

__all__ = ["count_words", "stretch_pattern", "words_of_stretches"]

Json = dict[str, Any] | None

# Normalizers that change a character by itself, or with the marks behind it.
_LOCAL = {"Nmt", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"}
# Those that make tabs and line ends spaces, and those that may drop what stands between two spaces.
_BLANKING = {"Nmt", "BertNormalizer"}
_DROPPING = {"StripAccents", "BertNormalizer"}
_WHITESPACE = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_CUTTING = {*_WHITESPACE, "Metaspace", "Punctuation", "Digits"}
# What may be put between joined stretches: no normalizer changes it, no pattern matches it.
_JOINTS = "\u2042\u2e3b\u203d\u2e18\ua8f8\u104c"
_JOINED = 1000


def _parts(content: Json, key: str) -> list[dict[str, Any]]:
    if content is None:
        return []
    parts = content.get(key, [content]) if content.get("type") == "Sequence" else [content]
    return list(parts)


def _is_local(part: dict[str, Any]) -> bool:
    spaces = ({"Regex": " {2,}"}, {"String": "  "})
    return part.get("type") in _LOCAL or (
        part.get("type") == "Replace" and part.get("pattern") in spaces
    )


def stretch_pattern(normalizer: Json, pre_tokenizer: Json) -> str | None:
    """Where text may be cut before it is normalized: a pattern of `TextCounts`."""
    normal = _parts(normalizer, "normalizers")
    cuts = _parts(pre_tokenizer, "pretokenizers")
    kinds = {part.get("type") for part in normal}
    if not (
        cuts
        and all(_is_local(part) for part in normal)
        and all(part.get("type") in _CUTTING for part in cuts)
        and cuts[0].get("split", True)
    ):
        return None
    if cuts[0]["type"] in _WHITESPACE:
        return "<whitespace>"
    if cuts[0]["type"] != "Metaspace" or kinds & _DROPPING:
        return None
    return "<whitespace>" if kinds & _BLANKING else "<spaces>"


def words_of_stretches(
    items: list[tuple[bytes, int]],
    normalizer: Json,
    pre_tokenizer: Json,
    report: Callable[[int, int], object] | None = None,
) -> dict[str, int]:
    """Counts of the words in counted stretches.

    Parameters
    ----------
    items : list of (bytes, int)
        Stretches, of UTF-8, and their counts.
    normalizer, pre_tokenizer : dict or None
        As in ``tokenizer.json``.
    report : callable, optional
        Called with the stretches done and all.

    Returns
    -------
    dict of str to int
        In the order of the words' characters.
    """
    normalize = build_normalizer(normalizer)
    cut = build_pre_tokenizer(pre_tokenizer)
    quick = _quick_words(pre_tokenizer)
    joint = None
    if all(_is_local(part) for part in _parts(normalizer, "normalizers")):
        joint = _joint(items, normalize)
    words: dict[str, int] = {}
    for start in range(0, len(items), _JOINED):
        some = items[start : start + _JOINED]
        texts = [data.decode("utf-8") for data, _ in some]
        if normalize is not None:
            if joint is None:
                texts = [_normalized(text, normalize) for text in texts]
            else:
                texts = _normalized(joint.join(texts), normalize).split(joint)
        for text, found, (_, count) in zip(texts, quick(texts), some, strict=True):
            if found is None:
                piece = TracedText.of(text, traced=False)
                found = [part.text for part in (cut([piece]) if cut is not None else [piece])]
            for word in found:
                if word:
                    words[word] = words.get(word, 0) + count
        if report is not None:
            report(start + len(some), len(items))
    return dict(sorted(words.items()))


def _normalized(text: str, normalize: Callable[[TracedText], None]) -> str:
    piece = TracedText.of(text, traced=False)
    normalize(piece)
    return piece.text


def _joint(
    items: list[tuple[bytes, int]], normalize: Callable[[TracedText], None] | None
) -> str | None:
    """A character that is in no stretch and that the normalizer leaves alone."""
    for joint in _JOINTS:
        if normalize is not None and _normalized(f"a{joint}a", normalize) != f"a{joint}a":
            continue
        data = joint.encode()
        if not any(data in stretch for stretch, _ in items):
            return joint
    return None


def _quick_words(pre_tokenizer: Json) -> Callable[[list[str]], Iterable[list[str] | None]]:
    """The words of normalized stretches where they are found without the pre-tokenizer, or None."""
    parts = _parts(pre_tokenizer, "pretokenizers")
    kinds = [part.get("type") for part in parts]
    if kinds == ["Metaspace"] and parts[0].get("prepend_scheme", "always") == "always":
        mark: str = parts[0].get("replacement", "▁")

        def marked(text: str) -> list[str] | None:
            start = 1 if text[:1] in (" ", mark) else 0
            if not text or " " in text[start:] or mark in text[start:]:
                return None
            return [mark + text[start:]]

        return lambda texts: map(marked, texts)
    if kinds == ["BertPreTokenizer"]:
        return _bert_words
    return lambda texts: repeat(None, len(texts))


def _bert_words(texts: list[str]) -> Iterable[list[str]]:
    """Runs of what is neither blank nor punctuation, and single marks of punctuation."""
    # a class of the few characters that occur is quick to make and to search
    chars = sorted(set().union(*texts))
    marks = "".join([char for char in chars if is_punctuation(char)])
    blanks = "".join([char for char in chars if is_space(char)])
    marks, blanks = re.escape(marks or "!"), re.escape(blanks or " ")
    return map(re.compile(f"[^{blanks}{marks}]+|[{marks}]").findall, texts)


def count_words(texts: Iterable[str], normalizer: Json, pre_tokenizer: Json) -> dict[str, int]:
    """Count the words of `texts`, each of them taken whole.

    The slow way, which holds for every normalizer and pre-tokenizer, and by the book.
    """
    normalize = build_normalizer(normalizer)
    cut = build_pre_tokenizer(pre_tokenizer)
    words: dict[str, int] = {}
    for text in texts:
        piece = TracedText.of(text, traced=False)
        if normalize is not None:
            normalize(piece)
        for part in cut([piece]) if cut is not None else [piece]:
            if part.text:
                words[part.text] = words.get(part.text, 0) + 1
    return dict(sorted(words.items()))

"""Where the ids of a SentencePiece model come from: characters of the text as it was given.

A token reaches from the first character behind its text to where the next token starts, as in
SentencePiece's own library; so what was dropped between two tokens belongs to the first. A token
that holds only a part of what a character became covers the whole character.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm.errors import UnsupportedError
from rustllm.tokenizers.sentencepiece_model import BYTE, UNKNOWN

if TYPE_CHECKING:
    from rustllm.tokenizers.sentencepiece import SentencePieceTokenizer
    from rustllm.types import OffsetArray

    Array = np.ndarray[Any, Any]

__all__ = ["offsets_of"]


def offsets_of(tokenizer: SentencePieceTokenizer, text: str, ids: list[int]) -> OffsetArray:
    """First character and one past the last of each of `ids`, which are those of `text`.

    Returns
    -------
    ndarray of int64, shape [n_tokens, 2]

    Raises
    ------
    UnsupportedError
        A character that is no piece may have been part of one: the ids do not say.

    Notes
    -----
    O(n) in the characters of the text.
    """
    normal, starts, ends = _traced(tokenizer, text)
    offsets = np.zeros((len(ids), 2), np.int64)
    for row, (first, last) in enumerate(_spans(tokenizer, normal, ids)):
        offsets[row] = starts[first], (ends[last - 1] if last > first else starts[first])
    return offsets


def _traced(tokenizer: SentencePieceTokenizer, text: str) -> tuple[str, Array, Array]:
    """The normalized text, and where the characters of each of its characters start and end."""
    model = tokenizer._model
    parts: list[str] = []
    froms: list[tuple[int, int]] = []
    last = 0
    own = tokenizer._own
    for found in own.finditer(text) if own is not None else ():
        _replaced(tokenizer, text, last, found.start(), parts, froms)
        parts.append(found[0])
        froms += ((i, i + 1) for i in range(found.start(), found.end()))
        last = found.end()
    _replaced(tokenizer, text, last, len(text), parts, froms)
    normal = "".join(parts)
    spans = np.array(froms, np.int64).reshape(-1, 2)
    end = len(text)
    if model.remove_extra_whitespaces:
        bare = normal.strip(" ")
        head = len(normal) - len(normal.lstrip(" "))
        if head + len(bare) < len(normal):
            end = int(spans[head + len(bare), 0]) if bare else end
        keep = np.zeros(len(normal), bool)
        for found in re.finditer("[^ ]+ ?", bare):
            keep[head + found.start() : head + found.end()] = True
        spans = spans[keep]
        normal = "".join([char for char, kept in zip(normal, keep.tolist()) if kept])
    if normal and model.add_dummy_prefix:
        normal = f" {normal}"
        before = spans[0, 0]
        spans = np.concatenate([np.array([[before, before]], np.int64), spans])
    starts = np.append(spans[:, 0], end)
    # What was dropped belongs to the character before; parts of one character cover all of it.
    same = starts[1:] == starts[:-1]
    ends = np.where(same, spans[:, 1], starts[1:])
    return normal.replace(" ", "▁"), starts, ends


def _replaced(
    tokenizer: SentencePieceTokenizer,
    text: str,
    start: int,
    end: int,
    parts: list[str],
    froms: list[tuple[int, int]],
) -> None:
    """Append what the character map makes of a stretch of the text."""
    if tokenizer._charsmap is None:
        parts.append(text[start:end])
        froms += ((i, i + 1) for i in range(start, end))
        return
    at = start
    for new, taken in tokenizer._charsmap.steps(text[start:end]):
        parts.append(new)
        froms += ((at, at + taken),) * len(new)
        at += taken


def _spans(tokenizer: SentencePieceTokenizer, normal: str, ids: list[int]) -> list[tuple[int, int]]:
    """First and last character of each id in the normalized text."""
    pieces = tokenizer._model.pieces
    spans: list[tuple[int, int]] = []
    at = n_bytes = row = 0
    while row < len(ids):
        text, _, kind = pieces[ids[row]]
        if kind == BYTE:
            width = len(normal[at].encode("utf-8", "surrogatepass"))
            spans.append((at, at + 1))
            n_bytes += 1
            if n_bytes == width:
                at += 1
                n_bytes = 0
        elif kind == UNKNOWN:
            last = _end_of_unknown(tokenizer, normal, ids, row, at)
            spans.append((at, last))
            at = last
        else:
            spans.append((at, at + len(text)))
            at += len(text)
        row += 1
    return spans


def _end_of_unknown(
    tokenizer: SentencePieceTokenizer, normal: str, ids: list[int], row: int, at: int
) -> int:
    """Where a run of characters that are no pieces ends: where the tokens behind it fit."""
    pieces = tokenizer._model.pieces
    behind = row + 1
    while behind < len(ids) and pieces[ids[behind]][2] not in (UNKNOWN, BYTE):
        behind += 1
    rest = "".join([pieces[id][0] for id in ids[row + 1 : behind]])
    last = at + 1
    while last < len(normal) and normal[last] not in tokenizer._ids:
        last += 1
    if behind == len(ids):
        return len(normal) - len(rest)
    fits = [end for end in range(at + 1, last + 1) if normal.startswith(rest, end)]
    # The next unknown character has to stand right behind.
    fits = [end for end in fits if normal[end + len(rest)] not in tokenizer._ids]
    if len(fits) != 1:
        raise UnsupportedError(
            f"where an unknown token ends cannot be told from the ids of {tokenizer.name}",
            position=at,
        )
    return fits[0]

"""A text as its tokens lie over it: id, bytes and characters of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rustllm.errors import UnsupportedError
from rustllm.traits import Tokenizer

__all__ = ["Segment", "segments_of"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One token of a text.

    Attributes
    ----------
    id : int
    data : bytes
        What the id stands for.
    start, end : int or None
        Characters of the text that it covers; a token of a few bytes of a character covers the
        whole character. None when the tokenizer cannot say.
    special : bool
    """

    id: int
    data: bytes
    start: int | None
    end: int | None
    special: bool

    @property
    def text(self) -> str | None:
        """The text that the bytes spell; None if they are no whole characters."""
        try:
            return self.data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return None


def segments_of(tokenizer: Tokenizer[Any], text: str, *, special: bool = False) -> list[Segment]:
    """Cut `text` into its tokens.

    Parameters
    ----------
    tokenizer : Tokenizer
    text : str
    special : bool
        Special tokens that the text spells become their ids; otherwise they are text.

    Returns
    -------
    list of Segment
        In the order of the text. Time is linear in the text beyond what encoding takes.

    Examples
    --------
    >>> from rustllm.testing import ByteTokenizer
    >>> [(s.id, s.start, s.end) for s in segments_of(ByteTokenizer(), "aé")]
    [(97, 0, 1), (195, 1, 2), (169, 1, 2)]
    """
    if special:
        ids = tokenizer.encode(text, allowed_special="all")
    else:
        ids = tokenizer.encode_ordinary(text)
    pieces = [tokenizer.id_to_bytes(id) for id in ids]
    marked = set(tokenizer.special_tokens.values())
    spans = _spans_of_bytes(pieces, text) or _spans_told(tokenizer, text, ids)
    return [
        Segment(id, piece, *span, id in marked)
        for id, piece, span in zip(ids, pieces, spans, strict=True)
    ]


def _spans_of_bytes(pieces: list[bytes], text: str) -> list[tuple[int, int]] | None:
    """Spans of pieces that spell the text, maybe behind a space that was put in front."""
    data = text.encode("utf-8", "surrogatepass")
    whole = b"".join(pieces)
    if whole == data:
        added = 0
    elif whole == b" " + data:
        added = 1
    else:
        return None
    spans = []
    at = -added  # characters whose first byte has been passed, less the space in front
    for piece in pieces:
        first = at if piece[:1] and not 0x80 <= piece[0] < 0xC0 else at - 1
        at += sum(not 0x80 <= byte < 0xC0 for byte in piece)
        spans.append((max(first, 0), max(at, 0)))
    return spans


def _spans_told(
    tokenizer: Tokenizer[Any], text: str, ids: list[int]
) -> list[tuple[int, int]] | list[tuple[None, None]]:
    """Spans as the tokenizer itself gives them, if it gives these ids."""
    try:
        found, offsets = tokenizer.encode_with_offsets(text)
    except UnsupportedError:
        return [(None, None)] * len(ids)
    if found.tolist() != ids:
        return [(None, None)] * len(ids)
    return [(start, end) for start, end in offsets.tolist()]

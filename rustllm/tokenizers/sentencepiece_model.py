"""Read the protocol buffer of a SentencePiece ``.model``: pieces, scores, types and settings.

A reader of just that message, with every length checked before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from rustllm.errors import FileFormatError, TruncatedFileError

__all__ = [
    "BYTE",
    "CONTROL",
    "NORMAL",
    "UNKNOWN",
    "UNUSED",
    "USER_DEFINED",
    "SentencePieceModel",
    "read_sentencepiece_model",
]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE, WORD, CHAR = 1, 2, 3, 4


@dataclass
class SentencePieceModel:
    """What a ``.model`` file holds, as far as encoding and decoding go.

    Attributes
    ----------
    pieces : list of (str, float, int)
        Text, score and type of each id.
    kind : int
        1 Unigram, 2 BPE, 3 words, 4 characters.
    charsmap : bytes
        Compiled character map of the normalizer, empty for none.
    """

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    kind: int = UNIGRAM
    byte_fallback: bool = False
    whitespace_is_suffix: bool = False
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    unk_surface: str = " \u2047 "
    normalizer: str = ""
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True


def read_sentencepiece_model(data: bytes) -> SentencePieceModel:
    """Parse the bytes of a ``.model`` file.

    Raises
    ------
    FileFormatError
        They are no such message, or a field of it has the wrong type.
    TruncatedFileError
        A field runs past the end.
    """
    model = SentencePieceModel()
    for number, value, offset in _fields(data, 0, len(data)):
        if number == 1:
            model.pieces.append(_piece(data, *_span(value, offset)))
        elif number == 2:
            _trainer(model, data, *_span(value, offset))
        elif number == 3:
            _normalizer(model, data, *_span(value, offset))
    if not model.pieces:
        raise FileFormatError("this is no SentencePiece model: it has no pieces", offset=0)
    return model


Value = int | bytes | tuple[int, int]


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, Value, int]]:
    """Number and value of each field: an integer, four or eight bytes, or a span of `data`."""
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at, end)
            yield number, value, start
            continue
        if wire == 2:
            size, at = _varint(data, at, end)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise FileFormatError(f"wire type {wire} is not of this format", offset=start)
        if number == 0:
            raise FileFormatError("a field with the number 0", offset=start)
        if size > end - at:
            raise TruncatedFileError(f"field {number} runs past the end", offset=start)
        yield number, (at, at + size) if wire == 2 else data[at : at + size], start
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end:
            raise TruncatedFileError("a number runs past the end", offset=at)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise FileFormatError("a number of more than ten bytes", offset=at)


def _span(value: Value, offset: int) -> tuple[int, int]:
    if not isinstance(value, tuple):
        raise FileFormatError("a message is expected here", offset=offset)
    return value


def _int(value: Value, offset: int) -> int:
    if not isinstance(value, int):
        raise FileFormatError("a number is expected here", offset=offset)
    return value - (1 << 64) if value >> 63 else value


def _text(data: bytes, value: Value, offset: int) -> str:
    start, end = _span(value, offset)
    try:
        return data[start:end].decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"a text is not UTF-8: {error.reason}", offset=offset) from None


def _piece(data: bytes, at: int, end: int) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for number, value, offset in _fields(data, at, end):
        if number == 1:
            text = _text(data, value, offset)
        elif number == 2:
            if not isinstance(value, bytes) or len(value) != 4:
                raise FileFormatError("a score is no float", offset=offset)
            (score,) = struct.unpack("<f", value)
        elif number == 3:
            kind = _int(value, offset)
            if not NORMAL <= kind <= BYTE:
                raise FileFormatError(f"a piece of type {kind}", offset=offset)
    if score != score:
        raise FileFormatError(f"the score of {text!r} is not a number", offset=at)
    return text, score, kind


def _trainer(model: SentencePieceModel, data: bytes, at: int, end: int) -> None:
    for number, value, offset in _fields(data, at, end):
        if number == 3:
            model.kind = _int(value, offset)
        elif number == 24:
            model.whitespace_is_suffix = bool(_int(value, offset))
        elif number == 35:
            model.byte_fallback = bool(_int(value, offset))
        elif number == 40:
            model.unk_id = _int(value, offset)
        elif number == 41:
            model.bos_id = _int(value, offset)
        elif number == 42:
            model.eos_id = _int(value, offset)
        elif number == 43:
            model.pad_id = _int(value, offset)
        elif number == 44:
            model.unk_surface = _text(data, value, offset)


def _normalizer(model: SentencePieceModel, data: bytes, at: int, end: int) -> None:
    for number, value, offset in _fields(data, at, end):
        if number == 1:
            model.normalizer = _text(data, value, offset)
        elif number == 2:
            start, stop = _span(value, offset)
            model.charsmap = data[start:stop]
        elif number == 3:
            model.add_dummy_prefix = bool(_int(value, offset))
        elif number == 4:
            model.remove_extra_whitespaces = bool(_int(value, offset))
        elif number == 5:
            model.escape_whitespaces = bool(_int(value, offset))

"""Tokenizers read from a SentencePiece ``.model``, BPE or Unigram, with its own library's ids."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from rustllm._core.unigram import UnigramEncoder
from rustllm.errors import (
    DisallowedSpecialTokenError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    UnknownTokenError,
    UnsupportedError,
)
from rustllm.tokenizers.precompiled import PrecompiledMap
from rustllm.tokenizers.sentencepiece_model import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    SentencePieceModel,
    read_sentencepiece_model,
)
from rustllm.traits import Token, Tokenizer

if TYPE_CHECKING:
    from rustllm.types import OffsetArray, PathLikeStr, TokenArray

__all__ = ["SentencePieceTokenizer", "load_sentencepiece"]

Specials = Literal["all"] | Collection[str]
_NONE: frozenset[str] = frozenset()
_MARK = "▁"
_UNKNOWN_PENALTY = 10.0


def load_sentencepiece(path: PathLikeStr) -> SentencePieceTokenizer:
    """Open a SentencePiece ``.model``.

    Raises
    ------
    FileMissingError, FileAccessError
        The file cannot be read.
    FileFormatError
        It is no such model, or damaged.
    UnsupportedError
        It is a model of words or characters, or marks spaces behind words.
    """
    place = Path(path)
    try:
        source = place.read_bytes()
    except FileNotFoundError as error:
        raise FileMissingError("no such file", path=str(place)) from error
    except OSError as error:
        raise FileAccessError(str(error), path=str(place), errno=error.errno) from error
    try:
        return SentencePieceTokenizer(source, place.stem)
    except FileFormatError as error:
        error.fields.setdefault("path", os.fspath(place))
        raise


class SentencePieceTokenizer(Tokenizer[Token]):
    """A SentencePiece model.

    Parameters
    ----------
    source : bytes
        The ``.model`` file.
    name : str

    Notes
    -----
    Immutable: any number of threads may use one, and it can be pickled. Control pieces are special
    tokens; text gives them only where a call allows it. The space that the model puts in front of a
    text goes in front of the first stretch between special tokens.
    """

    def __init__(self, source: bytes, name: str = "sentencepiece") -> None:
        model = read_sentencepiece_model(source)
        if model.kind not in (BPE, UNIGRAM):
            raise UnsupportedError(f"a SentencePiece model of type {model.kind}", key="model_type")
        if model.whitespace_is_suffix:
            raise UnsupportedError("spaces marked behind words", key="treat_whitespace_as_suffix")
        if not model.escape_whitespaces:
            raise UnsupportedError("spaces that are not marked", key="escape_whitespaces")
        self._source = source
        self._name = name
        self._model = model
        self._charsmap = PrecompiledMap(model.charsmap) if model.charsmap else None
        self._ids = {text: id for id, (text, _, _) in reversed(list(enumerate(model.pieces)))}
        if len(self._ids) != len(model.pieces):
            raise FileFormatError("two pieces have the same text")
        self._special = {
            text: id for id, (text, _, kind) in enumerate(model.pieces) if kind == CONTROL
        }
        own = [text for text, _, kind in model.pieces if kind == USER_DEFINED and text]
        self._own = _any_of(own) if own else None
        self._bpe: Any = None
        self._unigram: UnigramEncoder | None = None
        if model.kind == BPE:
            self._bpe = _bpe_encoder(model)
        else:
            self._unigram = _unigram_encoder(model)

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePieceTokenizer, (self._source, self._name)

    @property
    def name(self) -> str:
        return self._name

    @property
    def n_vocab(self) -> int:
        return len(self._model.pieces)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return MappingProxyType(self._special)

    def save(self, path: PathLikeStr) -> None:
        """Write the ``.model`` that this was read from."""
        from rustllm.serialize.atomic import write_whole

        write_whole(path, self._source)

    # -- text to ids ----------------------------------------------------------------------------

    def normalize(self, text: str, first: bool = True) -> str:
        """The text as the model sees it, with U+2581 for spaces; `first` at the start of a text."""
        model = self._model
        if self._charsmap is not None:
            text = self._replace(text)
        if model.remove_extra_whitespaces:
            text = re.sub(" {2,}", " ", text).strip(" ")
        if not text:
            return ""
        if model.add_dummy_prefix and first:
            text = f" {text}"
        return text.replace(" ", _MARK)

    def _replace(self, text: str) -> str:
        """Apply the character map, but not to the user's own pieces."""
        assert self._charsmap is not None
        if self._own is None:
            return self._charsmap.replace_longest(text)
        parts: list[str] = []
        last = 0
        for found in self._own.finditer(text):
            parts += (self._charsmap.replace_longest(text[last : found.start()]), found[0])
            last = found.end()
        return "".join([*parts, self._charsmap.replace_longest(text[last:])])

    def _stretch(self, text: str, first: bool) -> TokenArray:
        import numpy as np

        text = self.normalize(text, first)
        if self._unigram is not None:
            return self._unigram.encode_piece(text)
        if self._own is None:
            return cast("TokenArray", self._bpe.encode(text))
        parts: list[TokenArray] = []
        last = 0
        for found in self._own.finditer(text):
            if found.start() > last:
                parts.append(self._bpe.encode(text[last : found.start()]))
            parts.append(np.array([self._ids[found[0]]], np.uint32))
            last = found.end()
        if last < len(text) or not parts:
            parts.append(self._bpe.encode(text[last:]))
        return np.concatenate(parts)

    def _encode_ordinary_to_numpy(self, text: str) -> TokenArray:
        return self._stretch(text, True)

    def encode_to_numpy(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> TokenArray:
        import numpy as np

        special = self._special.keys()
        taken = set(special) if allowed_special == "all" else special & set(allowed_special)
        refused = special - taken if disallowed_special == "all" else set(disallowed_special)
        if refused and (found := _any_of(refused).search(text)) is not None:
            raise DisallowedSpecialTokenError(
                f"the text spells the special token {found[0]!r}",
                token=found[0],
                position=found.start(),
                hint="pass it in allowed_special, or disallowed_special=() to read it as text",
            )
        parts: list[TokenArray] = []
        last = 0
        for found in _any_of(taken).finditer(text) if taken else ():
            if found.start() > last:
                parts.append(self._stretch(text[last : found.start()], last == 0))
            parts.append(np.array([self._special[found[0]]], np.uint32))
            last = found.end()
        if last < len(text) or not parts:
            parts.append(self._stretch(text[last:], last == 0))
        return np.concatenate(parts)

    def encode_with_offsets(self, text: str) -> tuple[TokenArray, OffsetArray]:
        from rustllm.tokenizers.sentencepiece_offsets import offsets_of

        ids = self._encode_ordinary_to_numpy(text)
        return ids, offsets_of(self, text, ids.tolist())

    # -- ids to text ----------------------------------------------------------------------------

    def id_to_bytes(self, id: int) -> bytes:
        if not 0 <= id < len(self._model.pieces):
            raise UnknownTokenError(f"id {id} is not in the vocabulary", token=id)
        text, _, kind = self._model.pieces[id]
        if kind == BYTE:
            return bytes([_byte_of(text)])
        if kind == NORMAL:
            text = text.replace(_MARK, " ")
        return text.encode("utf-8")

    def bytes_to_id(self, data: bytes) -> int:
        text = data.decode("utf-8", "replace")
        for spelling in (text.replace(" ", _MARK), text):
            id = self._ids.get(spelling)
            if id is not None and self.id_to_bytes(id) == data:
                return id
        if len(data) == 1:
            id = self._ids.get(f"<0x{data[0]:02X}>")
            if id is not None:
                return id
        raise UnknownTokenError(f"no token is {data!r}", token=data)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes that `ids` spell, control pieces and the space in front left out."""
        model = self._model
        strips = model.add_dummy_prefix or model.remove_extra_whitespaces
        out = bytearray()
        at_start = True
        for id in ids:
            data = self.id_to_bytes(int(id))
            kind = model.pieces[id][2]
            if kind == CONTROL:
                continue
            if kind == UNKNOWN:
                data = model.unk_surface.encode()
            elif at_start and strips and kind in (NORMAL, USER_DEFINED) and data[:1] == b" ":
                data = data[1:]
                at_start = model.remove_extra_whitespaces and not data
                out += data
                continue
            at_start = False
            out += data
        return bytes(out)


def _any_of(texts: Collection[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))))


def _byte_of(text: str) -> int:
    if not re.fullmatch("<0x[0-9A-F]{2}>", text):
        raise FileFormatError(f"the byte piece {text!r} does not read <0x0A>", key=text)
    return int(text[3:5], 16)


def _byte_ids(model: SentencePieceModel) -> list[int] | None:
    ids = {_byte_of(text): id for id, (text, _, kind) in enumerate(model.pieces) if kind == BYTE}
    if not model.byte_fallback:
        return None
    if len(ids) != 256:
        raise FileFormatError(f"byte fallback with {len(ids)} byte pieces", key="byte_fallback")
    return [ids[byte] for byte in range(256)]


def _bpe_encoder(model: SentencePieceModel) -> Any:
    import numpy as np

    from rustllm.tokenizers.sentencepiece_bpe import sentencepiece_encoder

    if any(kind == UNUSED for _, _, kind in model.pieces):
        raise UnsupportedError("BPE with unused pieces is not implemented", key="UNUSED")
    texts = [text.encode("utf-8") for text, _, _ in model.pieces]
    lengths = np.array([len(text) for text in texts], np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)[:-1]])
    encoder, _, _ = sentencepiece_encoder(
        b"".join(texts),
        offsets,
        lengths,
        np.array([score for _, score, _ in model.pieces], np.float32),
        np.array([kind for _, _, kind in model.pieces], np.int32),
    )
    _byte_ids(model)
    return encoder


def _unigram_encoder(model: SentencePieceModel) -> UnigramEncoder:
    scores = [score for _, score, kind in model.pieces if kind == NORMAL]
    least, most = min(scores, default=0.0), max(scores, default=0.0)
    entries = []
    for id, (text, score, kind) in enumerate(model.pieces):
        data = text.encode("utf-8")
        if kind == NORMAL and data:
            entries.append((data, id, score))
        elif kind == USER_DEFINED and data:
            entries.append((data, id, _single(len(data) * most) - 0.1))
    unknown = next((id for id, (_, _, kind) in enumerate(model.pieces) if kind == UNKNOWN), -1)
    if unknown < 0:
        raise FileFormatError("the model has no unknown piece")
    return UnigramEncoder(
        entries, unknown, _single(least - _UNKNOWN_PENALTY), _byte_ids(model), True
    )


def _single(value: float) -> float:
    """Rounded to single precision."""
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return cast(float, rounded)

"""A ``tokenizer.json`` as it is defined: added tokens, normalizer, pre-tokenizer, model, decoder.

The definition that the fast paths are tested against, and what gives offsets, words and masks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from rustllm.errors import FileFormatError, UnknownTokenError, UnsupportedError
from rustllm.tokenizers.added_tokens import AddedToken, AddedTokens, read_added_tokens
from rustllm.tokenizers.components import Fields, build_component
from rustllm.tokenizers.decoders import build_decoder
from rustllm.tokenizers.normalizers import build_normalizer
from rustllm.tokenizers.postprocessors import TokenRow, build_post_processor
from rustllm.tokenizers.pretokenizers import build_pre_tokenizer
from rustllm.tokenizers.subword_model import SubwordModel
from rustllm.tokenizers.traced_text import TracedText

__all__ = ["Pipeline", "build_model", "parse_json"]

_CACHED_PIECES = 1 << 16
_MAX_CACHED_LENGTH = 256


def build_model(value: Any) -> SubwordModel:
    """Build the model that `value`, parsed JSON, describes."""
    if isinstance(value, Mapping) and "type" not in value:
        # files of the first versions do not say; tokenizers tries them in this order
        if "merges" in value:
            value = {"type": "BPE", **value}
        elif isinstance(value.get("vocab"), list):
            value = {"type": "Unigram", **value}
        elif "continuing_subword_prefix" in value:
            value = {"type": "WordPiece", **value}
    return build_component(value, "model", _MODELS)


def _bpe(fields: Fields) -> SubwordModel:
    from rustllm.tokenizers.bpe_model import read_bpe

    return read_bpe(fields)


def _wordpiece(fields: Fields) -> SubwordModel:
    from rustllm.tokenizers.wordpiece import read_wordpiece

    return read_wordpiece(fields)


def _unigram(fields: Fields) -> SubwordModel:
    from rustllm.tokenizers.unigram import read_unigram

    return read_unigram(fields)


def _wordlevel(fields: Fields) -> SubwordModel:
    from rustllm.tokenizers.wordlevel import read_wordlevel

    return read_wordlevel(fields)


_MODELS: dict[str, Callable[[Fields], SubwordModel]] = {
    "BPE": _bpe,
    "Unigram": _unigram,
    "WordLevel": _wordlevel,
    "WordPiece": _wordpiece,
}


def parse_json(source: bytes | str) -> Any:
    """Parse a file, reading numbers as ``tokenizers`` does; ValueError or RecursionError.

    Its parser takes up to 19 digits as an integer and scales that, which can miss the nearest
    double by one. Scores of Unigram pieces are sums of such numbers, and ties between them decide.

    Examples
    --------
    >>> parse_json("[0.1, -2.5e-3, 7]")
    [0.1, -0.0025, 7]
    """
    return json.loads(source, parse_float=_scaled_float)


def _scaled_float(text: str) -> float:
    mantissa, _, power = text.lower().partition("e")
    whole, _, decimals = mantissa.lstrip("-").partition(".")
    digits = whole + decimals
    exponent = int(power or 0) - len(decimals)
    if len(digits) > 19 or not -308 <= exponent <= 308:
        return float(text)
    value = float(int(digits))
    value = value * 10.0**exponent if exponent >= 0 else value / 10.0**-exponent
    return -value if text.startswith("-") else value


class Pipeline:
    """All components of one ``tokenizer.json``.

    Parameters
    ----------
    content : dict
        The parsed file.

    Raises
    ------
    UnsupportedError
        It has a component, or a setting of one, that is not implemented.
    FileFormatError
        It breaks the rules of the format.

    Notes
    -----
    Immutable but for a bounded cache of pieces, which threads share as they share any dict.
    """

    def __init__(self, content: Any) -> None:
        fields = Fields(content, "tokenizer")
        version: str = fields.take("version", str, "1.0")
        if version != "1.0":
            raise UnsupportedError(f"version {version!r} of tokenizer.json", key="version")
        # settings of a call, not of a tokenizer: kept for as_hf() to tell
        self.truncation: Any = fields.take("truncation", dict, None)
        self.padding: Any = fields.take("padding", dict, None)
        self.content = content
        tokens = read_added_tokens(fields.take("added_tokens", list, None))
        self.normalizer = build_normalizer(fields.take("normalizer", dict, None))
        self.pre_tokenizer = build_pre_tokenizer(fields.take("pre_tokenizer", dict, None))
        self.post_processor = build_post_processor(fields.take("post_processor", dict, None))
        self.decoder = build_decoder(fields.take("decoder", dict, None))
        self.model = build_model(fields.take("model", dict))
        fields.done()
        self.added = AddedTokens(resolve_ids(tokens, self.model.vocab), self.normalizer)
        self.special_ids = frozenset(self.added.special.values())
        self._cache: dict[str, list[int]] = {}

    # -- text to ids ----------------------------------------------------------------------------

    def ids(self, text: str, refused: Set[str] = frozenset()) -> list[int]:
        """Encode `text`; special tokens in `refused` are read as text."""
        ids: list[int] = []
        for part in self.added.cut(TracedText.of(text, traced=False), refused):
            if isinstance(part, TracedText):
                ids += self._part_ids(part)
            else:
                ids.append(part[0].id)
        return ids

    def stretch_ids(self, part: TracedText) -> list[int]:
        """Encode a stretch between added tokens that is not normalized yet."""
        if self.normalizer is not None:
            self.normalizer(part)
        return self._part_ids(part)

    def _part_ids(self, part: TracedText) -> list[int]:
        ids: list[int] = []
        for piece in self._pieces(part):
            ids += self._piece_ids(piece.text)
        return ids

    def _pieces(self, part: TracedText) -> list[TracedText]:
        pieces = [part]
        if self.pre_tokenizer is not None:
            pieces = self.pre_tokenizer(pieces)
        return [piece for piece in pieces if piece.text]

    def _piece_ids(self, piece: str) -> list[int]:
        ids = self._cache.get(piece)
        if ids is None:
            ids = self.model.ids(piece)
            if len(piece) <= _MAX_CACHED_LENGTH:
                if len(self._cache) >= _CACHED_PIECES:
                    self._cache.clear()
                self._cache[piece] = ids
        return ids

    def row(self, text: str, refused: Set[str] = frozenset(), sequence: int = 0) -> TokenRow:
        """Encode `text` with tokens, offsets and words."""
        row = TokenRow()
        model = self.model
        word = 0
        for part in self.added.cut(TracedText.of(text), refused):
            if not isinstance(part, TracedText):
                token, span, covered = part
                row.ids.append(token.id)
                row.tokens.append(covered)
                row.offsets.append(span)
                row.words.append(word)
                word += 1
                continue
            for piece in self._pieces(part):
                spans = piece.spans or []
                for id, start, end in model.tokenize(piece.text):
                    row.ids.append(id)
                    row.tokens.append(model.token_text(id, piece.text[start:end]))
                    if end > start:
                        row.offsets.append((spans[start][0], spans[end - 1][1]))
                    else:
                        row.offsets.append((0, 0))
                    row.words.append(word)
                word += 1
        n = len(row.ids)
        row.type_ids = [sequence] * n
        row.special = [0] * n
        row.sequences = [sequence] * n
        return row

    # -- ids to text ----------------------------------------------------------------------------

    def id_to_token(self, id: int) -> str | None:
        """Text of token `id`; None when it is not in use."""
        added = self.added.by_id.get(id)
        return added.content if added is not None else self.model.tokens.get(id)

    def token_to_id(self, token: str) -> int | None:
        """Id of the token whose text is `token`."""
        id = self.model.vocab.get(token)
        if id is None:
            id = next((t.id for t in self.added.tokens if t.content == token), None)
        return id

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Decode `ids`.

        Raises
        ------
        UnknownTokenError
            An id is not in use.
        """
        tokens = []
        for id in ids:
            if skip_special_tokens and id in self.special_ids:
                continue
            token = self.id_to_token(int(id))
            if token is None:
                raise UnknownTokenError(f"id {id} is not in the vocabulary", token=id)
            tokens.append(token)
        if self.decoder is None:
            return " ".join(tokens)
        return "".join(self.decoder(tokens))


def resolve_ids(tokens: list[AddedToken], vocab: Mapping[str, int]) -> list[AddedToken]:
    """Give each token the id that ``tokenizers`` gives it, and drop repetitions.

    That is its id in the model's vocabulary if it is there, and otherwise the next free one,
    whatever the file says; in the files that ``tokenizers`` writes both are the same.
    """
    found: dict[str, AddedToken] = {}
    ids: dict[int, str] = {}
    size = len(vocab)
    highest = -1
    for token in tokens:
        if not token.content:
            id = token.id
        elif token.content in vocab:
            id = vocab[token.content]
        elif token.content in found:
            continue
        else:
            id = max(highest + 1, size)
        if token.content:
            highest = max(highest, id)
        if id != token.id:
            token = AddedToken(
                id,
                token.content,
                token.special,
                token.single_word,
                token.lstrip,
                token.rstrip,
                token.normalized,
            )
        if ids.setdefault(id, token.content) != token.content:
            raise FileFormatError(
                f"the added tokens {ids[id]!r} and {token.content!r} have the same id {id}",
                key=token.content,
            )
        found.setdefault(token.content, token)
    return list(found.values())

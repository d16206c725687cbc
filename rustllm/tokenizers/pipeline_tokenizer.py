"""Tokenizers read from a ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from rustllm._core.encoder import Encoder
from rustllm._core.specials import SpecialMatcher
from rustllm.errors import (
    ArgumentError,
    DisallowedSpecialTokenError,
    UnknownTokenError,
)
from rustllm.tokenizers.bpe import BpeTokenizer
from rustllm.tokenizers.byte_alphabet import CHAR_TO_BYTE
from rustllm.tokenizers.normal_forms import is_normal
from rustllm.tokenizers.pipeline import Pipeline, parse_json
from rustllm.tokenizers.traced_text import TracedText
from rustllm.traits import Token, Tokenizer

if TYPE_CHECKING:
    from rustllm.tokenizers.fast_bpe import FastBpe
    from rustllm.tokenizers.hf_api import HfTokenizer
    from rustllm.types import OffsetArray, PathLikeStr, TokenArray

__all__ = ["JsonBpeTokenizer", "PipelineTokenizer"]

Specials = Literal["all"] | Collection[str]
_NONE: frozenset[str] = frozenset()


class WordEncoder(Protocol):
    """A compiled encoder that may decline a text."""

    def encode(self, text: str, stop: SpecialMatcher | None = None) -> TokenArray | None:
        """Ids of `text`; None if it holds a token of `stop`, or is not for this encoder."""


class _FromJson:
    """What both kinds share: the file they came from, and all that can be asked of it."""

    _source: bytes
    _pipeline: Pipeline | None

    @property
    def pipeline(self) -> Pipeline:
        """The components, as the file defines them."""
        if self._pipeline is None:
            self._pipeline = Pipeline(parse_json(self._source))
        return self._pipeline

    def as_hf(self) -> HfTokenizer:
        """An object that answers like ``tokenizers.Tokenizer``."""
        from rustllm.tokenizers.hf_api import HfTokenizer

        return HfTokenizer(self.pipeline)

    def save(self, path: PathLikeStr) -> None:
        """Write the ``tokenizer.json`` that this was read from."""
        from rustllm.serialize.atomic import write_whole

        write_whole(path, self._source)

    def encode_with_offsets(self, text: str) -> tuple[TokenArray, OffsetArray]:
        """Encode `text`, special tokens as text, with the characters each id comes from."""
        import numpy as np

        pipeline = self.pipeline
        row = pipeline.row(text, frozenset(pipeline.added.special))
        offsets = np.array(row.offsets, dtype=np.int64).reshape(-1, 2)
        return np.array(row.ids, dtype=np.uint32), offsets


class JsonBpeTokenizer(_FromJson, BpeTokenizer):
    """A BPE tokenizer from a ``tokenizer.json`` that the compiled encoder runs as it is.

    Everything that `BpeTokenizer` does, and `as_hf`, `pipeline` and `save`.
    """

    def __init__(self, encoder: Any, *, source: bytes, n_stripped: int = 0, **rest: Any) -> None:
        super().__init__(encoder, **rest)
        self._source = source
        self._pipeline = None
        self._n_stripped = n_stripped

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_bytes, (self._source, self._name)

    def decode(self, tokens: Iterable[int], errors: str = "replace") -> str:
        """Decode `tokens` as the file's own decoder does."""
        return _decode(self, list(tokens), errors, self._n_stripped)


class PipelineTokenizer(_FromJson, Tokenizer[Token]):
    """A tokenizer from a ``tokenizer.json``: any of its models and components.

    Parameters
    ----------
    source : bytes
        The file.
    name : str

    Notes
    -----
    Immutable but for caches that threads share; it can be pickled.
    """

    def __init__(
        self,
        source: bytes,
        pipeline: Pipeline,
        fast: FastBpe | None,
        name: str = "tokenizer.json",
        n_stripped: int = 0,
        words: WordEncoder | None = None,
    ) -> None:
        self._source = source
        self._pipeline = pipeline
        self._fast = fast
        self._words = words
        self._name = name
        self._n_stripped = n_stripped
        added = pipeline.added
        self._special = added.special
        ids = [token.id for token in added.tokens]
        self._n_vocab = max(max(ids, default=-1), max(pipeline.model.tokens, default=-1)) + 1
        self._by_mark = _uses_marks(pipeline)
        self._ids_by_bytes: dict[bytes, int] | None = None
        # finds any added token at all: where there is none, a text is one stretch
        texts = {token.content.encode("utf-8", "surrogatepass"): 0 for token in added.tokens}
        texts.pop(b"", None)
        self._any_added = SpecialMatcher(texts) if texts else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_bytes, (self._source, self._name)

    @property
    def name(self) -> str:
        return self._name

    @property
    def n_vocab(self) -> int:
        return self._n_vocab

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return MappingProxyType(self._special)

    # -- text to ids ----------------------------------------------------------------------------

    def _refused(
        self, text: str, allowed: Literal["all"] | AbstractSet[str], disallowed: Specials
    ) -> frozenset[str]:
        """Special tokens to read as text; an error if the text spells a disallowed one."""
        if allowed == "all" and disallowed == "all":
            return _NONE
        special = self._special.keys()
        taken = special if allowed == "all" else special & set(allowed)
        if disallowed == "all":
            forbidden: AbstractSet[str] = special - taken
        elif isinstance(disallowed, str):
            raise ArgumentError("disallowed_special is 'all' or a collection of strings")
        else:
            forbidden = frozenset(disallowed)
        if forbidden:
            found = min(
                ((at, token) for token in forbidden if (at := text.find(token)) >= 0),
                default=None,
            )
            if found is not None:
                raise DisallowedSpecialTokenError(
                    f"the text spells the special token {found[1]!r}",
                    token=found[1],
                    position=found[0],
                    hint="pass it in allowed_special, or disallowed_special=() to read it as text",
                )
        return frozenset(special - taken)

    def _ids(self, text: str, refused: frozenset[str]) -> Any:
        """Ids of `text`, a list or an array."""
        fast = self._fast
        if fast is None:
            return self._word_ids(text, refused)
        form = fast.form
        if form is None or is_normal(form, text):
            stretch = text
            if fast.prefix != "never" and text[:1] not in ("", " ", "▁" if self._by_mark else " "):
                stretch = f" {text}"
            result = fast.encoder.encode(stretch, None, self._any_added)
            if type(result) is not tuple:
                return result
        import numpy as np

        parts: list[Any] = []
        encoder = self._bare_encoder
        for part in self.pipeline.added.cut(TracedText.of(text, traced=False), refused):
            if isinstance(part, TracedText):
                stretch = part.text
                if (
                    fast.prefix == "always" or (fast.prefix == "first" and part.at_start)
                ) and not stretch.startswith((" ", "▁") if self._by_mark else " "):
                    stretch = f" {stretch}"
                parts.append(encoder.encode(stretch))
            else:
                parts.append(np.array([part[0].id], np.uint32))
        return np.concatenate(parts) if parts else np.empty(0, np.uint32)

    @cached_property
    def _bare_encoder(self) -> Any:
        """The encoder for text that is normalized already: it puts no space in front itself."""
        assert self._fast is not None
        encoder = self._fast.encoder
        if not encoder.parts["prefix"]:
            return encoder
        parts = {**encoder.parts, "prefix": 0}
        return Encoder(encoder.tables()[0], parts.pop("offsets"), **parts)

    def _word_ids(self, text: str, refused: frozenset[str]) -> Any:
        """Ids by the compiled encoder of a model that is not BPE, if there is one."""
        words = self._words
        pipeline = self.pipeline
        if words is None:
            return pipeline.ids(text, refused)
        ids = words.encode(text, self._any_added)
        if ids is not None:
            return ids
        import numpy as np

        parts: list[Any] = []
        for part in pipeline.added.cut_early(text, refused):
            if isinstance(part, TracedText):
                ids = words.encode(part.text)
                if ids is None:
                    ids = np.array(pipeline.stretch_ids(part), np.uint32)
                parts.append(ids)
            else:
                parts.append(np.array([part[0].id], np.uint32))
        return np.concatenate(parts) if parts else np.empty(0, np.uint32)

    def _encode_ordinary_to_numpy(self, text: str) -> TokenArray:
        return _as_array(self._ids(text, frozenset(self._special)))

    def encode_to_numpy(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> TokenArray:
        return _as_array(self._ids(text, self._refused(text, allowed_special, disallowed_special)))

    def encode(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> list[int]:
        ids = self._ids(text, self._refused(text, allowed_special, disallowed_special))
        return ids if type(ids) is list else cast("list[int]", ids.tolist())

    # -- ids to text ----------------------------------------------------------------------------

    def id_to_bytes(self, id: int) -> bytes:
        pipeline = self.pipeline
        added = pipeline.added.by_id.get(id)
        if added is not None:
            return added.content.encode("utf-8", "surrogatepass")
        token = pipeline.model.tokens.get(id)
        if token is None:
            raise UnknownTokenError(f"id {id} is not in the vocabulary", token=id)
        if self._by_mark:
            if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                return bytes.fromhex(token[3:5])
            token = token.replace("▁", " ")
        elif self._fast is not None:
            try:
                return bytes([CHAR_TO_BYTE[char] for char in token])
            except KeyError:
                pass
        return token.encode("utf-8", "surrogatepass")

    def bytes_to_id(self, data: bytes) -> int:
        table = self._ids_by_bytes
        if table is None:
            ids = {*self.pipeline.model.tokens, *self.pipeline.added.by_id}
            table = {self.id_to_bytes(id): id for id in sorted(ids, reverse=True)}
            self._ids_by_bytes = table
        id = table.get(data)
        if id is None:
            raise UnknownTokenError(f"no token is {data!r}", token=data)
        return id

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Decode `ids` as the file's own decoder does."""
        return _decode(self, list(ids), errors, self._n_stripped if self._fast else -1)


def _uses_marks(pipeline: Pipeline) -> bool:
    return "▁" in pipeline.model.vocab


def _as_array(ids: Any) -> TokenArray:
    if type(ids) is not list:
        return cast("TokenArray", ids)
    import numpy as np

    return np.array(ids, dtype=np.uint32)


def _decode(
    tokenizer: JsonBpeTokenizer | PipelineTokenizer, ids: list[int], errors: str, n_stripped: int
) -> str:
    """Decode by bytes where that gives what the decoder gives, else by the decoder.

    `n_stripped` spaces go from the beginning; -1 if the decoder does something else altogether.
    """
    if n_stripped >= 0:
        data = tokenizer.decode_bytes(ids)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            # a run of byte tokens that is no character gives one replacement for each byte
            if errors != "replace" or not n_stripped:
                text = data.decode("utf-8", errors)
            else:
                return tokenizer.pipeline.decode(ids)
        for _ in range(n_stripped):
            text = text.removeprefix(" ")
        return text
    return tokenizer.pipeline.decode(ids)


def _load_bytes(source: bytes, name: str) -> Tokenizer[Any]:
    from rustllm.tokenizers.tokenizer_json import from_bytes

    return from_bytes(source, name)

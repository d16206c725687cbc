"""Which Unigram tokenizers of ``tokenizer.json`` the compiled encoder gives exactly.

Those whose words are marked with U+2581. The normalizer is the pipeline's own; what comes after it
is done to the whole text at once, which leaves the encoder to cut at the marks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rustllm._core.specials import SpecialMatcher
from rustllm.tokenizers.pipeline import Pipeline
from rustllm.tokenizers.traced_text import TracedText
from rustllm.tokenizers.unigram import UnigramModel

if TYPE_CHECKING:
    from rustllm.types import TokenArray

__all__ = ["FastUnigram", "fast_unigram"]

_MARK = "▁"
# Python splits at these, the reference does not.
_SEPARATORS = ("\x1c", "\x1d", "\x1e", "\x1f")


class FastUnigram:
    """Encodes a whole text, or declines it.

    Notes
    -----
    Immutable; any number of threads may use one.
    """

    def __init__(
        self, pipeline: Pipeline, model: UnigramModel, by_word: bool, prepend: bool, split: bool
    ) -> None:
        self._normalizer = pipeline.normalizer
        self._model = model
        self._by_word = by_word
        self._prepend = prepend
        self._split = split

    def encode(self, text: str, stop: SpecialMatcher | None = None) -> TokenArray | None:
        """Ids of `text`; None if it holds a token of `stop`, or is not for this encoder."""
        if stop is not None and stop.find_all(text.encode("utf-8", "surrogatepass")):
            return None
        model = self._model
        encoder = model.encoder
        if encoder is None or (model.byte_fallback and model.unk_text in text):
            return None
        part = TracedText.of(text, traced=False)
        if self._normalizer is not None:
            self._normalizer(part)
        text = part.text
        if self._by_word:
            if any(char in text for char in _SEPARATORS):
                return None
            words = text.split()
            if _MARK in text:
                text = "".join(
                    [word if word.startswith(_MARK) else f"{_MARK}{word}" for word in words]
                )
            else:
                text = f"{_MARK}{_MARK.join(words)}" if words else ""
        else:
            text = text.replace(" ", _MARK)
            if self._prepend and text and not text.startswith(_MARK):
                text = f"{_MARK}{text}"
        try:
            return encoder.encode_pieces(text) if self._split else encoder.encode_piece(text)
        except KeyError:
            return None  # the pipeline raises the error


def fast_unigram(pipeline: Pipeline) -> FastUnigram | None:
    """Compiled encoder for `pipeline`, or None if only the pipeline itself is exact."""
    model = pipeline.model
    if not isinstance(model, UnigramModel) or model.encoder is None:
        return None
    cuts: Any = pipeline.content.get("pre_tokenizer")
    if cuts is None:
        return None
    parts = cuts["pretokenizers"] if cuts["type"] == "Sequence" else [cuts]
    kinds = [part["type"] for part in parts]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        return None
    last = parts[-1]
    old = last.get("add_prefix_space")
    scheme = last.get("prepend_scheme", "never" if old is False else "always")
    split = last.get("split", True)
    if last.get("replacement", _MARK) != _MARK or scheme == "first":
        return None
    by_word = len(parts) == 2
    if by_word and not (split and scheme == "always"):
        return None
    return FastUnigram(pipeline, model, by_word, scheme == "always", split)

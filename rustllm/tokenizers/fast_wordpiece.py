"""Which WordPiece tokenizers of ``tokenizer.json`` the compiled encoder gives exactly.

Those whose normalizer and pre-tokenizer look at one character at a time: what each character
becomes is asked of the components themselves, so the two cannot disagree.
"""

from __future__ import annotations

from typing import Any

from rustllm._core.wordpiece import WordPieceEncoder
from rustllm.tokenizers.normal_forms import is_starter
from rustllm.tokenizers.pipeline import Pipeline
from rustllm.tokenizers.traced_text import TracedText
from rustllm.tokenizers.wordpiece import WordPieceModel

__all__ = ["fast_wordpiece"]

_BY_CHARACTER = {"BertNormalizer", "Lowercase", "NFD", "NFKD", "StripAccents"}
_CUTS_BY_CHARACTER = {"BertPreTokenizer", "WhitespaceSplit"}
_MOST_CHARACTERS = 1024


def fast_wordpiece(pipeline: Pipeline) -> WordPieceEncoder | None:
    """Compiled encoder for `pipeline`, or None if only the pipeline itself is exact."""
    model = pipeline.model
    if not isinstance(model, WordPieceModel) or not 0 <= model.longest_word <= _MOST_CHARACTERS:
        return None
    content = pipeline.content
    cut = content.get("pre_tokenizer")
    if cut is None or cut["type"] not in _CUTS_BY_CHARACTER:
        return None
    if not _kinds(content.get("normalizer")) <= _BY_CHARACTER:
        return None
    unk_id = model.vocab.get(model.unk_token)
    if unk_id is None:
        return None
    prefix = model.prefix
    starting = []
    continuing = []
    for text, id in model.vocab.items():
        starting.append((text.encode("utf-8", "surrogatepass"), id))
        if text.startswith(prefix):
            continuing.append((text[len(prefix) :].encode("utf-8", "surrogatepass"), id))

    def describe(char: str) -> tuple[bytes, bool, bool] | None:
        alone = TracedText.of(char, traced=False)
        if pipeline.normalizer is not None:
            pipeline.normalizer(alone)
        output = alone.text
        if output != char and not all(map(is_starter, output)):
            return None  # marks are put in order, so neighbours count
        assert pipeline.pre_tokenizer is not None
        between = TracedText.of(f"a{output}a", traced=False)
        pieces = [piece.text for piece in pipeline.pre_tokenizer([between]) if piece.text]
        whole = "".join(pieces)[1:-1].encode("utf-8", "surrogatepass")
        if len(pieces) == 1:
            return whole, False, False
        if pieces[0] != "a" or pieces[-1] != "a" or len(pieces) > 3:
            return None
        return whole, True, True

    return WordPieceEncoder(starting, continuing, unk_id, model.longest_word, describe)


def _kinds(normalizer: Any) -> set[str]:
    if normalizer is None:
        return set()
    if normalizer["type"] == "Sequence":
        return {kind for part in normalizer["normalizers"] for kind in _kinds(part)}
    return {normalizer["type"]}

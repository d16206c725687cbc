"""Which BPE tokenizers of ``tokenizer.json`` the compiled encoder gives exactly, and how.

Two kinds of public models: byte-level BPE behind a built-in splitter, and SentencePiece's BPE,
whose pieces hold U+2581 for the space. Anything beyond that is left to the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rustllm._core.encoder import Encoder
from rustllm._core.split import EXPRESSIONS, pattern_id
from rustllm.tokenizers.added_tokens import AddedToken
from rustllm.tokenizers.bpe_model import BpeModel
from rustllm.tokenizers.byte_alphabet import CHAR_TO_BYTE
from rustllm.tokenizers.patterns import known_pattern
from rustllm.tokenizers.pipeline import Pipeline

__all__ = ["FastBpe", "fast_bpe"]

_NO_ID = 0x7FFFFFFF
_MAX_IDS = 0x1FFFFF
_MARK = "▁"
_TO_LATIN_1 = {ord(char): byte for char, byte in CHAR_TO_BYTE.items()}
# UTF-8 has no other bytes.
_BYTES_OF_TEXT = {
    char for char, byte in CHAR_TO_BYTE.items() if byte not in (0xC0, 0xC1) and byte < 0xF5
}
_SPLIT = {"behavior": "Isolated", "invert": False}
_SPLIT_INVERTED = {"behavior": "Removed", "invert": True}

Prefix = Literal["never", "always", "first", "prepend"]


@dataclass(frozen=True)
class FastBpe:
    """A compiled encoder, and what is to be done to a text before.

    Attributes
    ----------
    encoder : Encoder
    form : "NFC", "NFKC", "NFD", "NFKD" or None
        Normal form of Unicode that the encoder expects.
    prefix : str
        Whether a space goes before each stretch between added tokens: "never"; "prepend", always;
        "always", if it does not start with one; "first", the same at the start of the text only.
    """

    encoder: Encoder
    form: Any
    prefix: Prefix

    @property
    def is_direct(self) -> bool:
        """Whether the encoder takes the text as it is."""
        return self.form is None and self.prefix == "never"


def fast_bpe(pipeline: Pipeline) -> FastBpe | None:
    """Compiled encoder for `pipeline`, or None if only the pipeline itself is exact."""
    model = pipeline.model
    if not isinstance(model, BpeModel) or model.prefix or model.suffix:
        return None
    tokens = pipeline.added.tokens
    n = max(max(model.vocab.values(), default=-1), max((token.id for token in tokens), default=-1))
    if n >= _MAX_IDS or len(model.vocab) != len(model.tokens):
        return None
    content = pipeline.content
    level = _byte_level(content.get("pre_tokenizer"))
    if level is not None:
        form = _form(content.get("normalizer"))
        if form is None:
            return None
        encoder = _byte_level_encoder(model, n + 1, tokens, level[0])
        if encoder is None:
            return None
        return FastBpe(encoder, form or None, "always" if level[1] else "never")
    marks = _marks(content.get("normalizer"), content.get("pre_tokenizer"))
    if marks is not None:
        encoder = _sentencepiece_encoder(model, n + 1, tokens, *marks)
        if encoder is not None:
            return FastBpe(encoder, None, "never" if marks[0] == "prepend" else marks[0])
    return None


# -- what the components of a file come to ------------------------------------------------------


def _parts(value: Any, key: str) -> list[dict[str, Any]]:
    """The components of a sequence, flat."""
    if value is None:
        return []
    if value["type"] != "Sequence":
        return [value]
    return [inner for part in value[key] for inner in _parts(part, key)]


def _form(normalizer: Any) -> str | None:
    """Normal form that the normalizer comes to, "" for none; None if it is anything else."""
    parts = _parts(normalizer, "normalizers")
    if not parts:
        return ""
    kind: str = parts[0]["type"]
    return kind if len(parts) == 1 and kind in ("NFC", "NFD", "NFKC", "NFKD") else None


def _split_expression(part: dict[str, Any]) -> str | None:
    if part["type"] == "Digits" and part.get("individual_digits"):
        return r"\p{N}"
    if part["type"] != "Split" or "Regex" not in part["pattern"]:
        return None
    way = {"behavior": part["behavior"], "invert": part.get("invert", False)}
    expression: str = part["pattern"]["Regex"]
    if way == _SPLIT:
        return expression
    # what does not match is dropped, which is nothing if the expression matches everything
    return expression if way == _SPLIT_INVERTED and known_pattern(expression) else None


def _byte_level(pre_tokenizer: Any) -> tuple[int, bool] | None:
    """Number of the splitter, and whether a space goes in front; None for anything else."""
    parts = _parts(pre_tokenizer, "pretokenizers")
    if not parts or parts[-1]["type"] != "ByteLevel":
        return None
    last = parts[-1]
    expressions = [_split_expression(part) for part in parts[:-1]]
    if None in expressions:
        return None
    space: bool = last.get("add_prefix_space", True)
    if last.get("use_regex", True):
        if space and expressions:
            return None
        expressions.append(EXPRESSIONS["gpt2"][0])
    elif not expressions:
        return (-1, space)
    elif space:
        return None
    if len(expressions) == 1:
        name = known_pattern(expressions[0] or "")
        return None if name is None else (pattern_id(name), space)
    names = [known_pattern(e or "") or e for e in expressions]
    for name, wanted in EXPRESSIONS.items():
        if len(wanted) > 1 and names == [known_pattern(e) or e for e in wanted]:
            return (pattern_id(name), space)
    return None


def _marks(normalizer: Any, pre_tokenizer: Any) -> tuple[Any, bool] | None:
    """Where a space goes in front, and whether pieces end before every space."""
    before = _parts(normalizer, "normalizers")
    cuts = _parts(pre_tokenizer, "pretokenizers")
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _MARK}
    if replace in before:
        # Cutting at spaces does nothing once there are none.
        cuts = [
            cut
            for cut in cuts
            if not (cut["type"] == "Split" and cut["pattern"] == {"String": " "})
        ]
        if cuts:
            return None
        if before == [replace]:
            return "never", False
        if before == [{"type": "Prepend", "prepend": _MARK}, replace]:
            return "prepend", False
        return None
    if before or len(cuts) != 1 or cuts[0]["type"] != "Metaspace":
        return None
    cut = cuts[0]
    if cut.get("replacement", _MARK) != _MARK:
        return None
    old = cut.get("add_prefix_space")
    return cut.get("prepend_scheme", "never" if old is False else "always"), cut.get("split", True)


# -- encoders -----------------------------------------------------------------------------------


def _join(texts: list[bytes]) -> tuple[bytes, Any]:
    offsets = np.zeros(len(texts) + 1, np.uint32)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return b"".join(texts), offsets


def _merge_array(triples: list[tuple[int, int, int]]) -> Any:
    """Merges by rank; one that is named twice keeps its last place."""
    unique: dict[tuple[int, int], int] = {}
    for left, right, made in triples:
        unique.pop((left, right), None)
        unique[left, right] = made
    if len(unique) == len(triples):
        return np.array(triples, np.uint32).reshape(-1, 3)
    return np.array([(*pair, made) for pair, made in unique.items()], np.uint32).reshape(-1, 3)


def _byte_level_encoder(
    model: BpeModel, n: int, tokens: list[AddedToken], pattern: int
) -> Encoder | None:
    if not model.vocab.keys() >= _BYTES_OF_TEXT:
        return None  # a byte without a token vanishes or is unknown
    texts = [b""] * n
    listed = bytearray(n)
    for text, id in model.vocab.items():
        try:
            texts[id] = text.translate(_TO_LATIN_1).encode("latin-1")
            listed[id] = 1
        except UnicodeEncodeError:
            texts[id] = text.encode("utf-8", "surrogatepass")
    for token in tokens:
        texts[token.id] = token.content.encode("utf-8", "surrogatepass")
        listed[token.id] = token.content in model.vocab and listed[token.id]
    blob, offsets = _join(texts)
    return Encoder(
        blob,
        offsets,
        merges=_merge_array(model.triples),
        listed=bytes(listed),
        pattern=pattern,
        whole=model.ignore_merges,
    )


def _sentencepiece_encoder(
    model: BpeModel, n: int, tokens: list[AddedToken], prefix: str, split: bool
) -> Encoder | None:
    if model.ignore_merges:
        return None
    unk_id = None
    if model.unk_token is not None:
        unk_id = model.vocab.get(model.unk_token)
    falls_back = model.byte_fallback and None not in model.byte_ids
    if unk_id is None and not falls_back:
        return None
    texts = [b""] * n
    listed = bytearray(n)
    for text, id in model.vocab.items():
        if " " in text:
            return None
        texts[id] = text.replace(_MARK, " ").encode("utf-8", "surrogatepass")
        listed[id] = 1
    triples = model.triples
    if split:
        # No piece has a mark behind its first character: what would make one is never merged.
        inner = {id for text, id in model.vocab.items() if _MARK in text[1:]}
        triples = [triple for triple in triples if triple[2] not in inner]
        for id in inner:
            listed[id] = 0
    fallback = None
    if falls_back:
        fallback = np.array(model.byte_ids, np.uint32)
        for byte, byte_id in enumerate(model.byte_ids):
            assert byte_id is not None
            texts[byte_id] = bytes([byte])
            listed[byte_id] = 0
    elif model.byte_fallback:
        return None
    for token in tokens:
        texts[token.id] = token.content.encode("utf-8", "surrogatepass")
        listed[token.id] = 0
    blob, offsets = _join(texts)
    return Encoder(
        blob,
        offsets,
        merges=_merge_array(triples),
        listed=bytes(listed),
        by_char=True,
        fallback=fallback,
        unknown=None if falls_back else unk_id,
        fuse_unknown=model.fuse_unk and not falls_back,
        spaces=True,
        prefix=2 if prefix == "prepend" else 0,
    )

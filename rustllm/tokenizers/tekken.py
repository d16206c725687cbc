"""Read ``tekken.json``, Mistral's format: ranks of byte strings, behind special tokens."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from rustllm.errors import ArgumentError, FileFormatError
from rustllm.tokenizers.bpe import BpeTokenizer
from rustllm.tokenizers.components import Fields
from rustllm.tokenizers.patterns import known_pattern

__all__ = ["tokenizer_from_tekken"]

# What files that list no special tokens mean.
_OLD_SPECIAL = [
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "<pad>"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]"),
]
_MOST_IDS = 0x1FFFFF


def tokenizer_from_tekken(content: dict[str, Any], name: str = "tekken") -> BpeTokenizer:
    """Build the tokenizer of a parsed ``tekken.json``.

    The ids of special tokens come first; token `rank` has the id `rank` plus their number. Of the
    vocabulary only as much is used as the configured size leaves room for.

    Raises
    ------
    FileFormatError
        A field is missing or wrong, ranks are not in order, or a byte has no token.
    MissingDependencyError
        The splitting pattern is not built in, and the ``regex`` package is not installed.
    """
    import numpy as np

    from rustllm._core.encoder import Encoder
    from rustllm._core.split import pattern_id

    config = Fields(content.get("config"), "config")
    pattern: str = config.take("pattern", str)
    size: int = config.take("default_vocab_size", int)
    n_special: int = config.take("default_num_special_tokens", int)
    splitter = known_pattern(pattern)
    if not 0 <= n_special <= size <= _MOST_IDS:
        raise FileFormatError(f"{n_special} special tokens of {size}", key="default_vocab_size")
    special = _special_tokens(content, n_special)
    entries = content.get("vocab")
    if not isinstance(entries, list) or len(entries) < size - n_special:
        raise FileFormatError("the vocabulary is shorter than its configured size", key="vocab")
    tokens = [text.encode() for text in special]
    for rank, entry in enumerate(entries[: size - n_special]):
        try:
            data = base64.b64decode(entry["token_bytes"], validate=True)
            if entry["rank"] != rank or not data:
                raise ValueError("ranks must count up from 0, and tokens must not be empty")
        except (TypeError, KeyError, ValueError, binascii.Error) as error:
            raise FileFormatError(f"entry {rank} is bad: {error}", key="vocab") from None
        tokens.append(data)
    if not {bytes([byte]) for byte in range(256)} <= set(tokens[n_special:]):
        raise FileFormatError("a byte has no token", key="vocab")
    if len(set(tokens[n_special:])) != len(tokens) - n_special:
        raise FileFormatError("a token stands twice", key="vocab")
    offsets = np.zeros(len(tokens) + 1, np.uint32)
    np.cumsum([len(token) for token in tokens], out=offsets[1:])
    encoder: Any = Encoder(
        b"".join(tokens),
        offsets,
        order=np.arange(n_special, len(tokens), dtype=np.uint32),
        pattern=-1 if splitter is None else pattern_id(splitter),
        whole=True,
    )
    if splitter is None:
        from rustllm.tokenizers.expression_encoder import ExpressionEncoder

        try:
            encoder = ExpressionEncoder(encoder, pattern)
        except ArgumentError as error:
            raise FileFormatError(str(error), key="pattern") from None
    ids = {text: id for id, text in enumerate(special)}
    return BpeTokenizer(
        encoder, name=name, special_tokens=ids, bos_id=ids.get("<s>"), eos_id=ids.get("</s>")
    )


def _special_tokens(content: dict[str, Any], n_special: int) -> list[str]:
    listed = content.get("special_tokens")
    names: dict[int, str] = dict(enumerate(_OLD_SPECIAL))
    if listed is not None:
        try:
            names = {int(entry["rank"]): str(entry["token_str"]) for entry in listed}
        except (TypeError, KeyError, ValueError) as error:
            raise FileFormatError(f"bad special token: {error}", key="special_tokens") from None
    if any(not 0 <= rank < n_special for rank in names):
        raise FileFormatError("a special token outside its block", key="special_tokens")
    special = [names.get(rank) or f"<SPECIAL_{rank}>" for rank in range(n_special)]
    if len(set(special)) != n_special:
        raise FileFormatError("a special token stands twice", key="special_tokens")
    return special

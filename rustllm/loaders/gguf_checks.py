"""Rules for the tokenizer arrays of a GGUF file, as far as the file itself can tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rustllm.errors import FileFormatError
from rustllm.loaders.string_array import StringArray

__all__ = ["check_tokenizer"]

_PREFIX = "tokenizer.ggml."
_MAX_TEMPLATE = 1 << 20
_SPECIAL = (
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "padding",
    "cls",
    "mask",
    "separator",
    "seperator",
)
_INTEGERS = ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64")
_BYTE_TOKEN = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
_BYTE_TYPE = 6


def check_tokenizer(
    path: str, metadata: Mapping[str, Any], types: Mapping[str, str], strict: bool
) -> None:
    """Check types and lengths of ``tokenizer.*`` values against each other.

    Raises
    ------
    FileFormatError
        With the key at fault. `strict` also checks the text of every token and merge.
    """

    def fail(name: str, message: str) -> FileFormatError:
        return FileFormatError(message, path=path, key=name)

    def typed(name: str, *allowed: str) -> Any:
        value = metadata.get(name)
        if value is not None and types[name] not in allowed:
            raise fail(name, f"the value is of type {types[name]}, not {' or '.join(allowed)}")
        return value

    for key in metadata:
        if key.startswith("tokenizer.chat_template"):
            value = typed(key, "str", "[str]")
            if isinstance(value, str) and len(value) > _MAX_TEMPLATE:
                raise fail(key, f"a template of {len(value)} characters; at most {_MAX_TEMPLATE}")
    for name in ("model", "pre"):
        typed(_PREFIX + name, "str")

    tokens: StringArray | None = typed(_PREFIX + "tokens", "[str]")
    merges: StringArray | None = typed(_PREFIX + "merges", "[str]")
    scores = typed(_PREFIX + "scores", "[f32]")
    kinds = typed(_PREFIX + "token_type", "[i32]", "[u32]")
    if tokens is None:
        return
    if not len(tokens):
        raise fail(_PREFIX + "tokens", "the vocabulary is empty")
    for name, values in (("scores", scores), ("token_type", kinds)):
        if values is not None and len(values) != len(tokens):
            raise fail(_PREFIX + name, f"{len(values)} values for {len(tokens)} tokens")
    if scores is not None and not np.isfinite(scores).all():
        raise fail(_PREFIX + "scores", "a score is not finite")
    if kinds is not None:
        lowest = 1 if strict else 0  # 0 is "undefined" in llama.cpp
        if int(kinds.min()) < lowest or int(kinds.max()) > _BYTE_TYPE:
            raise fail(_PREFIX + "token_type", f"a token type outside {lowest} to {_BYTE_TYPE}")
        _check_byte_tokens(tokens, np.flatnonzero(kinds == _BYTE_TYPE), fail)
    for name in _SPECIAL:
        key = f"{_PREFIX}{name}_token_id"
        value = typed(key, *_INTEGERS)
        # 2^32 - 1 (-1 as u32) is how converters write "none".
        if value is not None and not 0 <= value < len(tokens) and value not in (-1, 0xFFFFFFFF):
            raise fail(key, f"token {value} is not in the vocabulary of {len(tokens)}")
    charsmap = typed(_PREFIX + "precompiled_charsmap", "[u8]", "[i8]")
    if charsmap is not None:
        _check_charsmap(charsmap, fail)
    if strict:
        tokens.check_utf8()
        if merges is not None:
            _check_merges(tokens, merges, fail)


def _check_byte_tokens(tokens: StringArray, ids: Any, fail: Any) -> None:
    """Every token of type "byte" is ``<0xNN>``, and each byte occurs once."""
    seen = set()
    for i in ids[:257]:  # one more than there can be
        text = tokens.bytes_at(int(i))
        if not _BYTE_TOKEN.fullmatch(text):
            raise fail(_PREFIX + "tokens", f"token {i} is of type byte, but not written <0xNN>")
        if text.upper() in seen:
            raise fail(_PREFIX + "tokens", f"byte token {text.decode()} occurs twice")
        seen.add(text.upper())


def _check_charsmap(charsmap: Any, fail: Any) -> None:
    """A trie's size in bytes (u32), the trie (u32 units), then text that ends in a NUL."""
    key = _PREFIX + "precompiled_charsmap"
    data = charsmap.view(np.uint8)
    if not len(data):
        return
    trie_bytes = int.from_bytes(data[:4].tobytes(), "little") if len(data) >= 4 else -1
    if trie_bytes < 0 or trie_bytes % 4 or trie_bytes > len(data) - 4:
        raise fail(key, "its trie is larger than the map")
    if len(data) == 4 + trie_bytes or data[-1] != 0:
        raise fail(key, "its replacements do not end in a NUL")


def _check_merges(tokens: StringArray, merges: StringArray, fail: Any) -> None:
    """Every merge is two non-empty parts that are tokens, and so is their concatenation."""
    known = set(tokens.as_bytes_list())
    for i, merge in enumerate(merges.as_bytes_list()):
        left, space, right = merge.partition(b" ")
        if not left or not right or not space or b" " in right:
            raise fail(_PREFIX + "merges", f"merge {i} is not two parts with a space between")
        if left not in known or right not in known or left + right not in known:
            raise fail(_PREFIX + "merges", f"merge {i} has a part that is not a token")

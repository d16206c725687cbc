"""The ``tokenizer.json`` of byte-level byte-pair encoding, whoever has the vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["byte_level", "byte_level_json", "splits_of"]


def byte_level(use_regex: bool) -> dict[str, Any]:
    """The component that turns bytes into letters, with or without GPT-2's expression."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def splits_of(expressions: Iterable[str]) -> list[dict[str, Any]]:
    """A component for each expression that cuts text."""
    return [
        {
            "type": "Split",
            "pattern": {"Regex": expression},
            "behavior": "Isolated",
            "invert": False,
        }
        for expression in expressions
    ]


def byte_level_json(
    *,
    pre_tokenizer: dict[str, Any],
    added: Mapping[str, int],
    special: Collection[str],
    vocab: Mapping[str, int],
    merges: list[list[str]],
    whole: bool,
) -> dict[str, Any]:
    """The content of the file.

    Parameters
    ----------
    pre_tokenizer : dict
    added : mapping
        Ids of added tokens by text, in the order in which they are written.
    special : collection of str
        Those of `added` that are special.
    vocab, merges
        In the byte alphabet.
    whole : bool
        A pretoken that is a token is not merged.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": id,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": text in special,
            }
            for text, id in added.items()
        ],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": byte_level(True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": whole,
            "vocab": vocab,
            "merges": merges,
        },
    }

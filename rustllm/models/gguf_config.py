"""Hyper-parameters from the metadata of a GGUF file, each with its type and bounds checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rustllm.errors import ModelError, UnsupportedError
from rustllm.loaders.gguf import GGUFFile
from rustllm.models.config import TransformerConfig

__all__ = ["config_from_gguf"]

# Architectures whose heads rotate in pairs (i, i + n/2) are told apart in their plan functions.
_SCALING = ("none", "linear")


class _Keys:
    """Reads ``{architecture}.*`` keys; a wrong type is an error that names the key."""

    def __init__(self, file: GGUFFile, architecture: str) -> None:
        self._file = file
        self._architecture = architecture

    def _error(self, key: str, problem: str) -> ModelError:
        return ModelError(
            problem,
            path=self._file.path,
            key=f"{self._architecture}.{key}",
            hint="the file is damaged or was converted wrongly",
        )

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._file.metadata.get(f"{self._architecture}.{key}", default)
        if value is None:
            raise self._error(key, "the key is missing")
        if isinstance(value, Sequence) or hasattr(value, "shape"):
            # Some converters write one number a layer; all of them must agree.
            numbers = set(_plain(value))
            if len(numbers) != 1:
                raise self._error(key, "layers of different sizes are not supported")
            value = numbers.pop()
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._error(key, f"expected a whole number, got {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._file.metadata.get(f"{self._architecture}.{key}", default)
        if value is None:
            raise self._error(key, "the key is missing")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._error(key, f"expected a number, got {value!r}")
        if not math.isfinite(value):
            raise self._error(key, f"expected a finite number, got {value!r}")
        return float(value)

    def text(self, key: str, default: str) -> str:
        value = self._file.metadata.get(f"{self._architecture}.{key}", default)
        if not isinstance(value, str):
            raise self._error(key, f"expected a string, got {value!r}")
        return value


def _plain(value: Any) -> list[Any]:
    return list(value.tolist()) if hasattr(value, "tolist") else list(value)


def config_from_gguf(file: GGUFFile) -> TransformerConfig:
    """Return the checked hyper-parameters of a model file.

    Raises
    ------
    ModelError
        A key (the attribute ``key``) is missing, of the wrong type, out of bounds, or contradicts
        another.
    UnsupportedError
        The position scaling is of a kind that is not implemented.
    """
    architecture = file.architecture
    if not architecture:
        raise ModelError(
            "the file does not say which architecture it has",
            path=file.path,
            key="general.architecture",
            hint="is it a model, or only a tokenizer or an adapter?",
        )
    keys = _Keys(file, architecture)
    n_embd = keys.integer("embedding_length")
    n_heads = keys.integer("attention.head_count")
    n_vocab = 0
    if "token_embd.weight" in file.tensors:
        n_vocab = file.tensors["token_embd.weight"].shape[0]
    default_head = n_embd // n_heads if n_heads else 0
    head_dim = keys.integer("attention.key_length", default_head)
    if keys.integer("attention.value_length", head_dim) != head_dim:
        raise UnsupportedError(
            "keys and values of different length are not supported",
            path=file.path,
            key=f"{architecture}.attention.value_length",
        )
    scaling = keys.text("rope.scaling.type", "linear")
    if scaling not in _SCALING:
        raise UnsupportedError(
            f"position scaling of type {scaling!r} is not supported",
            path=file.path,
            key=f"{architecture}.rope.scaling.type",
            hint=f"supported: {', '.join(_SCALING)}",
        )
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0))
    n_layers = keys.integer("block_count")
    scale = 0.0
    if architecture == "gemma3" and n_layers == 62 and n_heads:
        scale = 1.0 / math.sqrt(n_embd / n_heads)  # the 27B model divides by its own width
    config = TransformerConfig(
        architecture=architecture,
        n_vocab=n_vocab,
        n_ctx=keys.integer("context_length"),
        n_embd=n_embd,
        n_layers=n_layers,
        n_ff=keys.integer("feed_forward_length"),
        n_heads=n_heads,
        n_kv_heads=keys.integer("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        n_rot=keys.integer("rope.dimension_count", head_dim),
        norm_eps=keys.number("attention.layer_norm_rms_epsilon", 1e-5),
        rope_base=keys.number("rope.freq_base", 10000.0),
        rope_scale=1.0 / factor if scaling == "linear" and factor > 0 else 1.0,
        rope_base_local=keys.number("rope.freq_base_swa", 10000.0),
        rope_factors="rope_freqs.weight" in file.tensors,
        window=keys.integer("attention.sliding_window", 0),
        attention_scale=scale,
        tied="output.weight" not in file.tensors,
        attention_bias="blk.0.attn_q.bias" in file.tensors,
        name=str(file.metadata.get("general.name", "")),
    )
    try:
        config.validate()
    except ModelError as error:
        raise ModelError(
            error.message, path=file.path, key=error.key, hint="the file is damaged or unusual"
        ) from None
    return config

"""Hyper-parameters from the metadata of a GGUF file, each with its type and bounds checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rustllm.errors import ModelError, UnsupportedError
from rustllm.loaders.gguf import GGUFFile
from rustllm.models.checkpoint import Described
from rustllm.models.config import TransformerConfig
from rustllm.models.rope_scaling import FACTORS, yarn_factors, yarn_magnitude

__all__ = ["describe_gguf"]

# Architectures whose heads rotate in pairs (i, i + n/2) are told apart in their plan functions.
_SCALING = ("none", "linear", "yarn", "longrope")
_BIASES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
# What the metadata leave out, because it is the same for all models of an architecture.
_ACTIVATIONS = {
    "gemma2": "gelu_tanh",
    "gemma3": "gelu_tanh",
    "gpt2": "gelu_tanh",
    "gptneox": "gelu",
}
_LOCAL_OF = {"gemma2": 2, "gemma3": 6}  # of so many layers all but the last have a window
_WITHOUT_ROTATION = ("gpt2",)
# Models whose queries are scaled by their width a head instead of the head's own.
_BY_WIDTH = {("gemma2", 46), ("gemma3", 62)}


class _Keys:
    """Reads ``{architecture}.*`` keys; a wrong type is an error that names the key."""

    def __init__(self, file: GGUFFile, architecture: str) -> None:
        self._file = file
        self._architecture = architecture

    def error(self, key: str, problem: str) -> ModelError:
        return ModelError(
            problem,
            path=self._file.path,
            key=f"{self._architecture}.{key}",
            hint="the file is damaged or was converted wrongly",
        )

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._file.metadata.get(f"{self._architecture}.{key}", default)
        if value is None:
            raise self.error(key, "the key is missing")
        if isinstance(value, Sequence) or hasattr(value, "shape"):
            # Some converters write one number a layer; all of them must agree.
            numbers = set(_plain(value))
            if len(numbers) != 1:
                raise self.error(key, "layers of different sizes are not supported")
            value = numbers.pop()
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(key, f"expected a whole number, got {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._file.metadata.get(f"{self._architecture}.{key}", default)
        if value is None:
            raise self.error(key, "the key is missing")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, f"expected a number, got {value!r}")
        if not math.isfinite(value):
            raise self.error(key, f"expected a finite number, got {value!r}")
        return float(value)

    def text(self, key: str, default: str) -> str:
        value = self._file.metadata.get(f"{self._architecture}.{key}", default)
        if not isinstance(value, str):
            raise self.error(key, f"expected a string, got {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._file.metadata.get(f"{self._architecture}.{key}", default)
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, got {value!r}")
        return value

    def windows(self, window: int, n_layers: int) -> tuple[int, ...]:
        """The window of each layer, from the pattern in the file or the architecture's own."""
        key = "attention.sliding_window_pattern"
        told = self._file.metadata.get(f"{self._architecture}.{key}")
        if told is None or isinstance(told, int):
            period = told or _LOCAL_OF.get(self._architecture, 0)
            if not period or not window or not 0 <= n_layers <= 1024:
                return ()
            return tuple(window if (i + 1) % period else 0 for i in range(n_layers))
        slides = _plain(told)
        if len(slides) != n_layers or not all(isinstance(s, (bool, int)) for s in slides):
            raise self.error(key, f"expected {n_layers} truth values")
        return tuple(window if s else 0 for s in slides)


def _plain(value: Any) -> list[Any]:
    return list(value.tolist()) if hasattr(value, "tolist") else list(value)


def describe_gguf(file: GGUFFile) -> Described:
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
    n_layers = keys.integer("block_count")
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
    scale = keys.number("attention.scale", 0.0)
    if not scale and n_heads and (architecture, n_layers) in _BY_WIDTH:
        scale = 1.0 / math.sqrt(n_embd / n_heads)
    window = keys.integer("attention.sliding_window", 0)
    eps = keys.number("attention.layer_norm_epsilon", 1e-5)
    rotation, vectors = _rotation(keys, file, head_dim)
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
        norm_eps=keys.number("attention.layer_norm_rms_epsilon", eps),
        window=window,
        windows=keys.windows(window, n_layers),
        attention_scale=scale,
        attention_softcap=keys.number(
            "attn_logit_softcapping", 50.0 if architecture == "gemma2" else 0.0
        ),
        final_softcap=keys.number(
            "final_logit_softcapping", 30.0 if architecture == "gemma2" else 0.0
        ),
        tied="output.weight" not in file.tensors,
        biases=_biases(file),
        activation=_ACTIVATIONS.get(architecture, "silu"),
        parallel_residual=keys.flag("use_parallel_residual", architecture == "gptneox"),
        n_experts=keys.integer("expert_count", 0),
        n_experts_used=keys.integer("expert_used_count", 0),
        n_ff_expert=keys.integer("expert_feed_forward_length", 0),
        normalise_experts=keys.flag("expert_weights_norm", True),
        dense_layers=_dense_layers(file, n_layers) if keys.integer("expert_count", 0) else (),
        name=str(file.metadata.get("general.name", "")),
        **rotation,
    )
    try:
        config.validate()
    except ModelError as error:
        raise ModelError(
            error.message, path=file.path, key=error.key, hint="the file is damaged or unusual"
        ) from None
    return Described(config, vectors)


def _biases(file: GGUFFile) -> tuple[str, ...]:
    found = {part for part in _BIASES if f"blk.0.{part}.bias" in file.tensors}
    if "blk.0.attn_qkv.bias" in file.tensors:
        found |= {"attn_q", "attn_k", "attn_v"}
    return tuple(part for part in _BIASES if part in found)


def _dense_layers(file: GGUFFile, n_layers: int) -> tuple[int, ...]:
    """Layers that have a feed-forward layer where the others have experts."""
    return tuple(
        layer
        for layer in range(min(n_layers, 1024))
        if f"blk.{layer}.ffn_up.weight" in file.tensors
        and f"blk.{layer}.ffn_gate_inp.weight" not in file.tensors
    )


def _rotation(keys: _Keys, file: GGUFFile, head_dim: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of the configuration that tell how heads rotate, and the factors it implies."""
    scaling = keys.text("rope.scaling.type", "linear")
    if scaling not in _SCALING:
        raise UnsupportedError(
            f"position scaling of type {scaling!r} is not supported",
            path=file.path,
            key=f"{file.architecture}.rope.scaling.type",
            hint=f"supported: {', '.join(_SCALING)}",
        )
    n_rot = keys.integer("rope.dimension_count", head_dim)
    if file.architecture in _WITHOUT_ROTATION:
        n_rot = 0
    base = keys.number("rope.freq_base", 10000.0)
    fields: dict[str, Any] = {
        "n_rot": n_rot,
        "rope_base": base,
        "rope_base_local": keys.number("rope.freq_base_swa", 10000.0),
        "rope_factors": FACTORS in file.tensors,
        "rope_magnitude": keys.number("rope.scaling.attn_factor", 1.0),
    }
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0))
    original = keys.integer("rope.scaling.original_context_length", 0)
    if scaling == "linear" and factor > 0:
        fields["rope_scale"] = 1.0 / factor
    vectors: dict[str, Any] = {}
    if scaling == "yarn":
        original = original or keys.integer("context_length")
        if not (factor > 0 and base > 1 and 2 <= original <= 1 << 28 and 2 <= n_rot <= 1024):
            raise keys.error("rope.scaling.factor", "the scaling of positions cannot be")
        fields["rope_factors"] = True
        fields["rope_magnitude"] *= yarn_magnitude(factor)
        vectors[FACTORS] = yarn_factors(
            n_rot,
            base,
            factor,
            original,
            beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0),
        )
    if "rope_factors_long.weight" in file.tensors:
        fields["rope_original_ctx"] = original or keys.integer("context_length")
    return fields, vectors

"""Hyper-parameters and a tokenizer as metadata of a GGUF file, for `gguf_config` to read."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm.errors import UnsupportedError
from rustllm.loaders.gguf import GGUFFile
from rustllm.loaders.gguf_writer import Typed
from rustllm.models.gguf_config import describe_gguf
from rustllm.models.rope_scaling import yarn_magnitude

if TYPE_CHECKING:
    from rustllm.models.config import TransformerConfig
    from rustllm.models.hf_config import HFConfig
    from rustllm.models.source import ModelSource

__all__ = ["config_metadata", "tokenizer_metadata", "yarn_keys"]

_UNUSED = 5  # kind of a token that no text has
_LAYER_NORM = ("gpt2", "gptneox")
# Where a folder's layers lie differently, so that the two ways of writing differ and nothing else.
_NOT_IN_FILE = frozenset(("rope_halves", "name", "window", "windows"))


def config_metadata(
    config: TransformerConfig,
    shapes: Mapping[str, tuple[int, ...]],
    path: str,
    *,
    scaling: Mapping[str, Typed] | None = None,
    vectors: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write hyper-parameters as metadata.

    Parameters
    ----------
    config : TransformerConfig
    shapes : mapping of str to tuple of int
        Of the tensors that the file will have.
    path : str
        Where the configuration comes from, for messages.
    scaling : mapping of str to Typed, optional
        Keys that tell how positions are scaled, as :func:`yarn_keys` finds them.
    vectors : mapping of str to ndarray, optional
        What must follow from the metadata, where it is no tensor.

    Returns
    -------
    dict
        For :func:`rustllm.loaders.gguf_writer.write_gguf`.

    Raises
    ------
    UnsupportedError
        Read back, the metadata would mean another model: GGUF has no word for something in it.
    """
    c = config
    norm = "layer_norm_epsilon" if c.architecture in _LAYER_NORM else "layer_norm_rms_epsilon"
    keys: dict[str, Typed] = {
        "context_length": Typed("u32", c.n_ctx),
        "embedding_length": Typed("u32", c.n_embd),
        "block_count": Typed("u32", c.n_layers),
        "feed_forward_length": Typed("u32", c.n_ff),
        "attention.head_count": Typed("u32", c.n_heads),
        "attention.head_count_kv": Typed("u32", c.n_kv_heads),
        "attention.key_length": Typed("u32", c.head_dim),
        "attention.value_length": Typed("u32", c.head_dim),
        f"attention.{norm}": Typed("f32", c.norm_eps),
        "vocab_size": Typed("u32", c.n_vocab),
    }
    if c.n_rot:
        keys["rope.dimension_count"] = Typed("u32", c.n_rot)
        keys["rope.freq_base"] = Typed("f32", c.rope_base)
    if c.architecture == "gemma3":
        keys["rope.freq_base_swa"] = Typed("f32", c.rope_base_local)
    if c.rope_scale != 1.0:
        keys["rope.scaling.type"] = Typed("str", "linear")
        keys["rope.scaling.factor"] = Typed("f32", 1.0 / c.rope_scale)
    if c.rope_magnitude != 1.0:
        keys["rope.scaling.attn_factor"] = Typed("f32", c.rope_magnitude)
    if c.rope_original_ctx:
        keys["rope.scaling.original_context_length"] = Typed("u32", c.rope_original_ctx)
    keys.update(scaling or {})
    window = c.window or max(c.windows, default=0)
    if window:
        keys["attention.sliding_window"] = Typed("u32", window)
    if c.windows:
        slides = [c.window_of(layer) > 0 for layer in range(c.n_layers)]
        keys["attention.sliding_window_pattern"] = Typed("[bool]", slides)
    if not np.isclose(c.attention_scale, c.head_dim**-0.5, rtol=1e-7, atol=0):
        keys["attention.scale"] = Typed("f32", c.attention_scale)
    if c.architecture == "gemma2":
        keys["attn_logit_softcapping"] = Typed("f32", c.attention_softcap)
        keys["final_logit_softcapping"] = Typed("f32", c.final_softcap)
    if c.architecture == "gptneox":
        keys["use_parallel_residual"] = Typed("bool", c.parallel_residual)
    if c.n_experts:
        keys["expert_count"] = Typed("u32", c.n_experts)
        keys["expert_used_count"] = Typed("u32", c.n_experts_used)
        keys["expert_feed_forward_length"] = Typed("u32", c.n_ff_expert)
        keys["expert_weights_norm"] = Typed("bool", c.normalise_experts)
    metadata: dict[str, Any] = {
        "general.architecture": Typed("str", c.architecture),
        "general.name": Typed("str", c.name or c.architecture),
        **{f"{c.architecture}.{key}": value for key, value in keys.items()},
    }
    _check_same(config, metadata, shapes, path, vectors or {})
    return metadata


def yarn_keys(hf: HFConfig, config: TransformerConfig) -> dict[str, Typed]:
    """The keys of a folder's YaRN scaling; none where positions are scaled in another way."""
    told = hf.get("rope_parameters") or hf.get("rope_scaling")
    if not isinstance(told, dict) or told.get("rope_type", told.get("type")) != "yarn":
        return {}
    part = type(hf)(hf.path, {**hf.values, **told})
    factor = part.number("factor")
    original = part.integer("original_max_position_embeddings", config.n_ctx)
    magnitude = config.rope_magnitude / yarn_magnitude(factor)
    return {
        "rope.scaling.type": Typed("str", "yarn"),
        "rope.scaling.factor": Typed("f32", factor),
        "rope.scaling.original_context_length": Typed("u32", original),
        "rope.scaling.yarn_beta_fast": Typed("f32", part.number("beta_fast", 32.0)),
        "rope.scaling.yarn_beta_slow": Typed("f32", part.number("beta_slow", 1.0)),
        "rope.scaling.attn_factor": Typed("f32", magnitude),
    }


@dataclass
class _Shape:
    shape: tuple[int, ...]


class _Unwritten:
    """What `describe_gguf` looks at, of a file that is not there yet."""

    def __init__(
        self, metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: str
    ) -> None:
        self.path = path
        self.metadata = {key: _as_read(value) for key, value in metadata.items()}
        self.architecture = self.metadata["general.architecture"]
        self.tensors = {name: _Shape(shape) for name, shape in shapes.items()}


def _as_read(typed: Typed) -> Any:
    return float(np.float32(typed.value)) if typed.type == "f32" else typed.value


def _check_same(
    config: TransformerConfig,
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    path: str,
    vectors: Mapping[str, Any],
) -> None:
    file: Any = _Unwritten(metadata, shapes, path)
    described = describe_gguf(file)
    read = described.config
    for name, values in vectors.items():
        found = described.vectors.get(name)
        if name not in shapes and (
            found is None or not np.allclose(found, values, rtol=1e-6, atol=0)
        ):
            raise _no_word(config, name, values, found, path)
    for field in fields(config):
        mine, other = getattr(config, field.name), getattr(read, field.name)
        if field.name in _NOT_IN_FILE:
            continue
        if field.name == "biases":
            mine, other = set(mine), set(other)
        if isinstance(mine, float):
            same = bool(np.isclose(mine, other, rtol=1e-6, atol=0))
        else:
            same = mine == other
        if not same:
            raise _no_word(config, field.name, mine, other, path)
    for layer in range(config.n_layers):
        mine, other = config.window_of(layer), read.window_of(layer)
        if mine != other:
            raise _no_word(config, f"the window of layer {layer}", mine, other, path)


def _no_word(
    config: TransformerConfig, what: str, mine: object, other: object, path: str
) -> UnsupportedError:
    return UnsupportedError(
        f"GGUF files of {config.architecture} cannot say that {what} is {mine!r}; "
        f"it would be read as {other!r}",
        path=path,
        key=what,
    )


def tokenizer_metadata(source: ModelSource) -> dict[str, Any]:
    """Write the tokenizer of a model as metadata, one token for each row of the embedding.

    Raises
    ------
    UnsupportedError
        GGUF cannot hold it so that every text gives the same ids.
    """
    from rustllm.tokenizers.conversion import save_tokenizer

    tokenizer = source.tokenizer()
    with tempfile.TemporaryDirectory(prefix="rustllm-") as folder:
        path = Path(folder) / "tokenizer.gguf"
        save_tokenizer(tokenizer, path, "gguf")
        with GGUFFile(path) as file:
            keys = [key for key in file.metadata if key.startswith("tokenizer.")]
            metadata = {
                key: Typed(file.metadata_type(key), _copied(file.metadata[key])) for key in keys
            }
    _pad(metadata, source.config.n_vocab)
    ends = list(source.end_ids())
    eos = metadata.get("tokenizer.ggml.eos_token_id")
    if eos is not None and eos.value in ends:  # the tokenizer's own first
        ends.remove(eos.value)
        ends.insert(0, eos.value)
    for key, id in zip(("eos", "eot", "eom"), ends):
        metadata[f"tokenizer.ggml.{key}_token_id"] = Typed("u32", id)
    bos = source.bos_id()
    metadata["tokenizer.ggml.add_bos_token"] = Typed("bool", bos is not None)
    if bos is not None:
        metadata["tokenizer.ggml.bos_token_id"] = Typed("u32", bos)
    template = source.metadata.get("tokenizer.chat_template")
    if template is not None:
        metadata["tokenizer.chat_template"] = Typed("str", template)
    for kind in ("bos", "eos"):
        key = f"tokenizer.ggml.{kind}_token_id"
        if key in source.metadata:
            metadata.setdefault(key, Typed("u32", source.metadata[key]))
    return metadata


def _copied(value: Any) -> Any:
    """A value that does not need its file."""
    if isinstance(value, (str, bytes, int, float, bool)):
        return value
    return [item.item() if hasattr(item, "item") else item for item in value]


def _pad(metadata: dict[str, Any], n_vocab: int) -> None:
    """Names for rows of the embedding that no token has."""
    tokens = metadata["tokenizer.ggml.tokens"]
    missing = range(len(tokens.value), n_vocab)
    if not missing:
        return
    more: dict[str, list[Any]] = {
        "tokens": [f"[PAD{id}]" for id in missing],
        "token_type": [_UNUSED] * len(missing),
        "scores": [-1e4] * len(missing),
    }
    for name, values in more.items():
        key = f"tokenizer.ggml.{name}"
        if key in metadata:
            typed = metadata[key]
            metadata[key] = Typed(typed.type, [*typed.value, *values])

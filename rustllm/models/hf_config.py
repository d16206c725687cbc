"""Hyper-parameters from the ``config.json`` of a model folder, each with its type checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rustllm.errors import FileFormatError, ModelError, UnsupportedError
from rustllm.loaders.mapped import MappedFile
from rustllm.models.checkpoint import Described
from rustllm.models.config import TransformerConfig
from rustllm.models.rope_scaling import Rotation, read_rotation

__all__ = ["HFConfig", "gated_transformer", "read_json"]

_MAX_BYTES = 64 << 20
_MISSING = object()
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of at most 64 MiB.

    Raises
    ------
    FileMissingError, FileAccessError
        It cannot be read.
    FileFormatError
        It is no JSON object.
    """
    file = MappedFile(path, mmap=False)
    if file.size > _MAX_BYTES:
        raise FileFormatError(f"a file of {file.size} bytes; at most {_MAX_BYTES}", path=str(path))
    try:
        value = json.loads(file.buffer.tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"this is not JSON: {error}", path=str(path)) from None
    if not isinstance(value, dict):
        raise FileFormatError("this is no JSON object", path=str(path))
    return value


class HFConfig:
    """A ``config.json``; a key that is missing or of the wrong type is an error that names it.

    Parameters
    ----------
    path : Path
        The file.
    values : mapping
        Its content.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    @property
    def name(self) -> str:
        """What the folder is called, for people."""
        name = self.values.get("_name_or_path")
        return name if isinstance(name, str) and name else self.path.parent.resolve().name

    def error(self, key: str, problem: str) -> ModelError:
        """An error about a key of the file."""
        return ModelError(problem, path=str(self.path), key=key, hint="is the file damaged?")

    def unsupported(self, key: str, problem: str, hint: str | None = None) -> UnsupportedError:
        """An error about a key that asks for what is not implemented."""
        return UnsupportedError(problem, path=str(self.path), key=key, hint=hint)

    def get(self, key: str) -> Any:
        """The value, or None."""
        return self.values.get(key)

    def _read(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is _MISSING:
            raise self.error(key, "the key is missing")
        return value

    def integer(self, key: str, default: Any = _MISSING) -> int:
        """A whole number that is not negative."""
        value = self._read(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(key, f"expected a whole number, got {value!r}")
        return value

    def number(self, key: str, default: Any = _MISSING) -> float:
        """A finite number."""
        value = self._read(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, f"expected a number, got {value!r}")
        if not math.isfinite(value):
            raise self.error(key, f"expected a finite number, got {value!r}")
        return float(value)

    def inverse_root(self, key: str, default: float) -> float:
        """One over the square root of a positive number."""
        value = self.number(key, default)
        if not value > 0.0:
            raise self.error(key, f"expected a positive number, got {value}")
        return 1.0 / math.sqrt(value)

    def flag(self, key: str, default: Any = _MISSING) -> bool:
        """True or false."""
        value = self._read(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, got {value!r}")
        return value

    def divided(self, whole: str, parts: str) -> int:
        """One number over another, which must leave nothing over."""
        a, b = self.integer(whole), self.integer(parts)
        if b == 0 or a % b:
            raise self.error(parts, f"{whole} is {a}, which {b} does not divide")
        return a // b

    def expect(self, key: str, value: Any, default: Any) -> None:
        """Refuse a model in which `key` has another value than `value`."""
        found = self.values.get(key, default)
        if found is None:
            found = default
        if found != value:
            raise self.unsupported(key, f"{key} = {found!r} is not supported, only {value!r}")

    def activation(self, key: str, default: str) -> str:
        """Our name of an activation function."""
        name = self._read(key, default)
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            raise self.unsupported(
                key,
                f"the activation {name!r} is not supported",
                f"supported: {', '.join(_ACTIVATIONS)}",
            )
        return _ACTIVATIONS[name]

    def windows(self, window: int, slides: Callable[[int], bool]) -> tuple[int, ...]:
        """The window of each layer: as ``layer_types`` says, or else where `slides` does."""
        n_layers = self.integer("num_hidden_layers")
        kinds = self.values.get("layer_types")
        if kinds is None:
            return tuple(window if slides(layer) else 0 for layer in range(min(n_layers, 1024)))
        if not isinstance(kinds, list) or len(kinds) != n_layers:
            raise self.error("layer_types", f"expected a list of {n_layers}")
        known = {"full_attention": 0, "sliding_attention": window}
        for kind in kinds:
            if not isinstance(kind, str) or kind not in known:
                raise self.unsupported("layer_types", f"layers of type {kind!r} are not supported")
        return tuple(known[kind] for kind in kinds)

    def rotation(self, n_dims: int, section: str | None = None) -> Rotation:
        """How `n_dims` dimensions of a head rotate; `section` names a kind of layers."""
        return read_rotation(self, n_dims, section)


def gated_transformer(
    hf: HFConfig,
    architecture: str,
    *,
    tied: bool = False,
    activation: str | None = None,
    head_dim: int | None = None,
    n_ff: int | None = None,
    section: str | None = None,
    **rest: Any,
) -> Described:
    """Read the keys that Llama and its kin share; `rest` goes into the configuration as it is."""
    n_heads = hf.integer("num_attention_heads")
    if head_dim is None:
        head_dim = (
            hf.divided("hidden_size", "num_attention_heads")
            if hf.get("head_dim") is None
            else hf.integer("head_dim")
        )
    rotation = hf.rotation(head_dim, section)
    config = TransformerConfig(
        architecture,
        n_vocab=hf.integer("vocab_size"),
        n_ctx=max(hf.integer("max_position_embeddings"), rotation.n_ctx),
        n_embd=hf.integer("hidden_size"),
        n_layers=hf.integer("num_hidden_layers"),
        n_ff=hf.integer("intermediate_size") if n_ff is None else n_ff,
        n_heads=n_heads,
        n_kv_heads=hf.integer("num_key_value_heads", n_heads),
        head_dim=head_dim,
        norm_eps=hf.number("rms_norm_eps", 1e-6),
        tied=hf.flag("tie_word_embeddings", tied),
        activation=activation or hf.activation("hidden_act", "silu"),
        name=hf.name,
        **rotation.fields(),
        **rest,
    )
    return Described(config, rotation.vectors())

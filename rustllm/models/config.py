"""Hyper-parameters of a decoder-only transformer, checked before any weight is touched."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rustllm.errors import ModelError
from rustllm.traits.config import LanguageModelConfig

__all__ = ["TransformerConfig"]

_LIMITS = {
    "n_vocab": (1, 1 << 24),
    "n_ctx": (1, 1 << 28),
    "n_embd": (1, 1 << 17),
    "n_layers": (1, 1024),
    "n_ff": (1, 1 << 20),
    "n_heads": (1, 4096),
    "n_kv_heads": (1, 4096),
    "head_dim": (1, 1024),
    "n_rot": (0, 1024),
    "window": (0, 1 << 28),
}


@dataclass(frozen=True, slots=True)
class TransformerConfig(LanguageModelConfig):
    """What an architecture function needs to write its plan.

    Parameters
    ----------
    architecture : str
        GGUF's name: ``"llama"``, ``"gemma3"``...
    n_vocab, n_ctx, n_embd, n_layers, n_ff : int
        Vocabulary, trained context, hidden width, layers, feed-forward width.
    n_heads, n_kv_heads, head_dim : int
        Query heads, key and value heads, dimensions of one head.
    n_rot : int
        Dimensions of a head that rotate.
    norm_eps : float
    rope_base, rope_scale : float
        Frequency base, and the factor on positions (1 / scaling factor).
    rope_base_local : float
        Frequency base of layers with a window.
    rope_factors : bool
        Whether a tensor of frequency factors is present.
    window : int
        Positions a token sees in layers with a window, itself included; 0: none has one.
    attention_scale : float
        Factor on queries.
    tied : bool
        Whether the embedding table is the output matrix too.
    attention_bias : bool
        Whether queries, keys and values have a bias.
    name : str
        The model's own name, for people.

    Examples
    --------
    >>> from rustllm.models.config import TransformerConfig
    >>> config = TransformerConfig(
    ...     "llama", n_vocab=32, n_ctx=64, n_embd=16, n_layers=1, n_ff=32, n_heads=2, n_kv_heads=1,
    ...     head_dim=8, n_rot=8, norm_eps=1e-5, rope_base=10000.0)
    >>> config.validate()
    >>> round(config.attention_scale, 4)
    0.3536
    """

    architecture: str
    n_vocab: int
    n_ctx: int
    n_embd: int
    n_layers: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_rot: int
    norm_eps: float
    rope_base: float
    rope_scale: float = 1.0
    rope_base_local: float = 10000.0
    rope_factors: bool = False
    window: int = 0
    attention_scale: float = 0.0
    tied: bool = True
    attention_bias: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if self.attention_scale == 0.0 and self.head_dim > 0:
            object.__setattr__(self, "attention_scale", 1.0 / math.sqrt(self.head_dim))

    def validate(self) -> None:
        """Raise ModelError naming the hyper-parameter that cannot be."""
        for key, (least, most) in _LIMITS.items():
            size = getattr(self, key)
            if not least <= size <= most:
                raise ModelError(f"{key} is {size}, expected {least} to {most}", key=key)
        if self.n_heads % self.n_kv_heads:
            raise ModelError(
                f"{self.n_heads} heads cannot share {self.n_kv_heads} key and value heads",
                key="n_kv_heads",
            )
        if self.n_rot > self.head_dim or self.n_rot % 2:
            raise ModelError(
                f"{self.n_rot} of {self.head_dim} dimensions cannot rotate in pairs", key="n_rot"
            )
        for key, low, high in (
            ("norm_eps", 0.0, 1.0),
            ("rope_base", 0.0, math.inf),
            ("rope_base_local", 0.0, math.inf),
            ("rope_scale", 0.0, math.inf),
            ("attention_scale", 0.0, math.inf),
        ):
            value = getattr(self, key)
            if not (math.isfinite(value) and low < value < high):
                raise ModelError(f"{key} is {value}, expected a positive finite number", key=key)

"""Hyper-parameters of a decoder-only transformer, checked before any weight is touched."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rustllm.errors import ModelError
from rustllm.traits.config import LanguageModelConfig

__all__ = ["TransformerConfig"]

_ACTIVATIONS = ("silu", "gelu_tanh", "gelu")
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
    "rope_original_ctx": (0, 1 << 28),
    "n_experts": (0, 4096),
    "n_experts_used": (0, 64),
    "n_ff_expert": (0, 1 << 20),
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
        Frequency base of layers with a window, where an architecture has one of its own for them.
    rope_halves : bool
        Whether pairs (i, i + n_rot/2) rotate; otherwise (2i, 2i + 1), as in GGUF files of Llama.
    rope_factors : bool
        Whether frequencies are divided by the weight ``rope_freqs.weight``.
    rope_original_ctx : int
        Context up to which ``rope_factors_short.weight`` divides frequencies, and beyond which
        ``rope_factors_long.weight`` does; 0: there are no such weights.
    rope_magnitude : float
        Factor on cosine and sine.
    window : int
        Positions a token sees in layers with a window, itself included; 0: none has one.
    windows : tuple of int
        The same for each layer; empty: the architecture's own pattern of `window`.
    attention_scale : float
        Factor on queries; 0: the inverse root of `head_dim`.
    attention_softcap, final_softcap : float
        Scores and logits become ``cap * tanh(x / cap)``; 0: they stay.
    tied : bool
        Whether the embedding table is the output matrix too.
    biases : tuple of str
        Linear layers that have a bias, by their names in a block: ``"attn_q"``, ``"ffn_up"``...
    activation : str
        Of the feed-forward layer: ``"silu"``, ``"gelu_tanh"`` or ``"gelu"``.
    parallel_residual : bool
        Whether attention and feed-forward layer read the same input.
    n_experts, n_experts_used, n_ff_expert : int
        Experts of a layer, how many of them a token goes through, and their width.
    normalise_experts : bool
        Whether the weights of a token's experts are made to add up to 1.
    dense_layers : tuple of int
        Layers without experts in a model that has them.
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
    rope_halves: bool = False
    rope_factors: bool = False
    rope_original_ctx: int = 0
    rope_magnitude: float = 1.0
    window: int = 0
    windows: tuple[int, ...] = ()
    attention_scale: float = 0.0
    attention_softcap: float = 0.0
    final_softcap: float = 0.0
    tied: bool = True
    biases: tuple[str, ...] = ()
    activation: str = "silu"
    parallel_residual: bool = False
    n_experts: int = 0
    n_experts_used: int = 0
    n_ff_expert: int = 0
    normalise_experts: bool = True
    dense_layers: tuple[int, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        if self.attention_scale == 0.0 and self.head_dim > 0:
            object.__setattr__(self, "attention_scale", 1.0 / math.sqrt(self.head_dim))
        for key in ("windows", "biases", "dense_layers"):  # lists, where they come from a file
            object.__setattr__(self, key, tuple(getattr(self, key)))

    def window_of(self, layer: int) -> int:
        """Positions that a token sees in this layer; 0: all of them."""
        return self.windows[layer] if self.windows else self.window

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
            ("rope_magnitude", 0.0, math.inf),
            ("attention_scale", 0.0, math.inf),
        ):
            value = getattr(self, key)
            if not (math.isfinite(value) and low < value < high):
                raise ModelError(f"{key} is {value}, expected a positive finite number", key=key)
        for key in ("attention_softcap", "final_softcap"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= 0.0):
                raise ModelError(f"{key} is {value}, expected a finite number, or 0", key=key)
        least, most = _LIMITS["window"]
        if self.windows and (
            len(self.windows) != self.n_layers or not all(least <= w <= most for w in self.windows)
        ):
            raise ModelError(f"windows of {self.n_layers} layers: {self.windows}", key="windows")
        if self.activation not in _ACTIVATIONS:
            raise ModelError(
                f"activation {self.activation!r}, expected {', '.join(_ACTIVATIONS)}",
                key="activation",
            )
        if self.n_experts and not (
            1 <= self.n_experts_used <= self.n_experts and self.n_ff_expert >= 1
        ):
            raise ModelError(
                f"{self.n_experts_used} of {self.n_experts} experts, {self.n_ff_expert} wide",
                key="n_experts_used",
            )

"""A model as data: a flat list of operations over named buffers and weights.

An architecture is a function from a configuration to a :class:`Plan`; ``_core.engine`` runs the
plan without Python between operations. Buffers hold one row a token. Nothing here touches weights:
a plan names them, so that it can be printed, checked and tested without a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Norm", "Op", "Plan", "Rope"]


@dataclass(frozen=True, slots=True)
class Norm:
    """Normalisation of a row, or of each head of it.

    Parameters
    ----------
    weight : str
        Name of the scale, float32 `[width]`.
    eps : float
        Added to the variance.
    bias : str, optional
        Name of the shift, `[width]`.
    kind : {"rms", "layer"}
        Whether the mean is taken off first.
    """

    weight: str
    eps: float
    bias: str | None = None
    kind: str = "rms"

    def __str__(self) -> str:
        return f"{self.kind}({self.weight})"


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding: how many dimensions turn, how fast, and which pairs.

    Parameters
    ----------
    n_dims : int
        Dimensions of a head that rotate; even.
    base : float
        Frequency base.
    scale : float
        Positions are multiplied by it (linear scaling: 1 / factor).
    halves : bool
        Pairs (i, i + n_dims/2) instead of (2i, 2i + 1).
    factors : str, optional
        Name of a weight that divides each frequency, float32 `[n_dims / 2]`.
    magnitude : float
        Factor on cosine and sine.
    long_factors : str, optional
        Name of the weight that stands in for `factors` in states of more than `original_ctx`
        tokens of context.
    original_ctx : int
    """

    n_dims: int
    base: float
    scale: float = 1.0
    halves: bool = False
    factors: str | None = None
    magnitude: float = 1.0
    long_factors: str | None = None
    original_ctx: int = 0

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights it uses."""
        return tuple(name for name in (self.factors, self.long_factors) if name)


@dataclass(frozen=True, slots=True)
class Op:
    """One step: its kind, the buffers it reads and writes, the weights and constants it uses."""

    kind: str
    ins: tuple[str, ...]
    outs: tuple[str, ...]
    weights: tuple[str | None, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{', '.join(self.outs)} = {self.kind}({', '.join(self.ins)})"
        names = [w for w in self.weights if w]
        if names:
            text += f"  [{', '.join(names)}]"
        shown = {k: v for k, v in self.params.items() if v not in (None, 0, 0.0, 1.0, False, ())}
        if shown:
            text += "  " + " ".join(f"{k}={v}" for k, v in shown.items())
        return text


class Plan:
    """Operations of one forward pass, in order.

    Parameters
    ----------
    n_vocab, n_layers, n_kv_heads, head_dim : int
        What the caller needs to know to size logits and caches.

    Examples
    --------
    >>> from rustllm.models.plan import Norm, Plan
    >>> plan = Plan(n_vocab=8, n_layers=0, n_kv_heads=1, head_dim=16)
    >>> plan.embed("x", "token_embd.weight", width=32)
    >>> plan.gather("x", "last")
    >>> plan.prepare("last", "a", Norm("output_norm.weight", 1e-5))
    >>> plan.linear("a", {"logits": "token_embd.weight"}, {"logits": 8})
    >>> print(plan)
      0  x = embed(tokens)  [token_embd.weight]
      1  last = gather(x)
      2  a = prepare(last)  norm=rms(output_norm.weight)
      3  logits = linear(a)  [token_embd.weight]
    """

    def __init__(self, *, n_vocab: int, n_layers: int, n_kv_heads: int, head_dim: int) -> None:
        self.n_vocab = n_vocab
        self.n_layers = n_layers
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim
        self.ops: list[Op] = []
        self.widths: dict[str, int] = {}
        self.prepared: dict[str, int] = {}

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __len__(self) -> int:
        return len(self.ops)

    def __str__(self) -> str:
        return "\n".join(f"{i:3d}  {op}" for i, op in enumerate(self.ops))

    def _buffer(self, name: str, width: int) -> str:
        if self.widths.setdefault(name, width) != width:
            raise ValueError(f"buffer {name!r} is {self.widths[name]} wide, not {width}")
        return name

    def embed(
        self,
        out: str,
        weight: str,
        *,
        width: int,
        scale: float = 1.0,
        positions: str | None = None,
        n_positions: int = 0,
    ) -> None:
        """Rows of `weight` by token id, times `scale`, plus rows of `positions` by position."""
        self._buffer(out, width)
        params = {"scale": scale, "n_positions": n_positions if positions else 0}
        self.ops.append(Op("embed", ("tokens",), (out,), (weight, positions), params))

    def prepare(self, src: str, out: str, norm: Norm | None = None) -> None:
        """Normalise (or not) and lay a row out as input of linear layers."""
        self.prepared[out] = self.widths[src]
        self.ops.append(Op("prepare", (src,), (out,), (), {"norm": norm}))

    def linear(
        self,
        src: str,
        outs: dict[str, str],
        widths: dict[str, int],
        biases: dict[str, str | None] | None = None,
        *,
        fine: bool = False,
        activation: str | None = None,
        softcap: float = 0.0,
    ) -> None:
        """Products of one prepared row with several matrices, one output buffer each.

        With `fine` the row is held in two int8 parts instead of one, about fifteen bits: for a
        layer whose rounding errors nothing after it can even out. What comes out goes through
        `activation`, or becomes ``softcap * tanh(x / softcap)``.
        """
        for name in outs:
            self._buffer(name, widths[name])
        params: dict[str, Any] = {"fine": fine, "activation": activation, "softcap": softcap}
        if biases and any(biases.values()):
            params["biases"] = tuple(biases.get(name) for name in outs)
        self.ops.append(Op("linear", (src,), tuple(outs), tuple(outs.values()), params))

    def gated(
        self,
        src: str,
        out: str,
        gate: str,
        up: str,
        *,
        width: int,
        activation: str,
        biases: tuple[str | None, str | None] = (None, None),
    ) -> None:
        """``activation(gate x) * (up x)``, the first half of a gated feed-forward layer."""
        self._buffer(out, width)
        self._buffer(f"{out}.up", width)
        params: dict[str, Any] = {"activation": activation}
        if any(biases):
            params["biases"] = biases
        self.ops.append(Op("gated", (src,), (out, f"{out}.up"), (gate, up), params))

    def experts(
        self,
        src: str,
        scores: str,
        out: str,
        stacks: tuple[str, str, str],
        *,
        norm: Norm,
        n_experts: int,
        n_used: int,
        width: int,
        activation: str,
        normalise: bool,
    ) -> None:
        """A gated feed-forward layer of the `n_used` experts with the highest scores.

        `stacks` name the gates, the first and the second matrices, of which ``name[3]`` is the
        fourth expert's. Each token's outputs are weighted by the softmax of the scores, over the
        experts that are used where `normalise` is set, else over all, and added.
        """
        self._buffer(out, self.widths[src])
        self.ops.append(
            Op(
                "experts",
                (src, scores),
                (out,),
                stacks,
                {
                    "norm": norm,
                    "n_experts": n_experts,
                    "n_used": n_used,
                    "width": width,
                    "activation": activation,
                    "normalise": normalise,
                },
            )
        )

    def attention(
        self,
        query: str,
        key: str,
        value: str,
        out: str,
        *,
        layer: int,
        n_heads: int,
        scale: float,
        rope: Rope | None = None,
        window: int = 0,
        softcap: float = 0.0,
        query_norm: Norm | None = None,
        key_norm: Norm | None = None,
    ) -> None:
        """Store the keys and values of these tokens, attend to all up to each token."""
        self._buffer(out, n_heads * self.head_dim)
        self.ops.append(
            Op(
                "attention",
                (query, key, value),
                (out,),
                (),
                {
                    "layer": layer,
                    "n_heads": n_heads,
                    "scale": scale,
                    "rope": rope,
                    "window": window,
                    "softcap": softcap,
                    "query_norm": query_norm,
                    "key_norm": key_norm,
                },
            )
        )

    def add(self, to: str, src: str, norm: Norm | None = None) -> None:
        """Add a row, normalised first where `norm` is given, to another in place."""
        self.ops.append(Op("add", (to, src), (to,), (), {"norm": norm}))

    def gather(self, src: str, out: str) -> None:
        """Keep only the tokens whose logits were asked for."""
        self._buffer(out, self.widths[src])
        self.ops.append(Op("gather", (src,), (out,)))

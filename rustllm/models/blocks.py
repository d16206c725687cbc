"""The parts that architectures share: first and last steps, attention, feed-forward layers."""

from __future__ import annotations

from rustllm.models.config import TransformerConfig
from rustllm.models.plan import Norm, Plan, Rope

__all__ = [
    "attention",
    "begin",
    "expert_layer",
    "finish",
    "gated_layer",
    "norm",
    "plain_layer",
    "rope",
]


def norm(config: TransformerConfig, name: str, kind: str = "rms") -> Norm:
    """A normalisation by the weights of `name`; a layer norm has a shift too."""
    bias = f"{name}.bias" if kind == "layer" else None
    return Norm(f"{name}.weight", config.norm_eps, bias, kind)


def rope(config: TransformerConfig, *, halves: bool) -> Rope:
    """The rotation of a model that has one for all its layers."""
    c = config
    factors = "rope_freqs.weight" if c.rope_factors else None
    long_factors = None
    if c.rope_original_ctx:
        factors, long_factors = "rope_factors_short.weight", "rope_factors_long.weight"
    return Rope(
        c.n_rot,
        c.rope_base,
        scale=c.rope_scale,
        halves=halves,
        factors=factors,
        magnitude=c.rope_magnitude,
        long_factors=long_factors,
        original_ctx=c.rope_original_ctx,
    )


def begin(config: TransformerConfig, *, scale: float = 1.0, positions: bool = False) -> Plan:
    """A plan whose buffer ``x`` holds the embeddings."""
    c = config
    p = Plan(n_vocab=c.n_vocab, n_layers=c.n_layers, n_kv_heads=c.n_kv_heads, head_dim=c.head_dim)
    table = "position_embd.weight" if positions else None
    p.embed(
        "x",
        "token_embd.weight",
        width=c.n_embd,
        scale=scale,
        positions=table,
        n_positions=c.n_ctx,
    )
    return p


def attention(
    p: Plan,
    config: TransformerConfig,
    layer: int,
    *,
    rope: Rope | None,
    window: int = 0,
    kind: str = "rms",
    head_norms: bool = False,
    out: str = "y",
) -> None:
    """From ``x`` through norm, attention and its output matrix to the buffer `out`."""
    c = config
    blk = f"blk.{layer}."
    widths = {"q": c.n_heads * c.head_dim, "k": c.n_kv_heads * c.head_dim}
    widths["v"] = widths["k"]
    p.prepare("x", "x_in", norm(c, f"{blk}attn_norm", kind))
    p.linear(
        "x_in",
        {name: f"{blk}attn_{name}.weight" for name in widths},
        widths,
        {name: _bias(c, blk, f"attn_{name}") for name in widths},
    )
    p.attention(
        "q",
        "k",
        "v",
        "heads",
        layer=layer,
        n_heads=c.n_heads,
        scale=c.attention_scale,
        rope=rope,
        window=window,
        softcap=c.attention_softcap,
        query_norm=norm(c, f"{blk}attn_q_norm") if head_norms else None,
        key_norm=norm(c, f"{blk}attn_k_norm") if head_norms else None,
    )
    p.prepare("heads", "heads_in")
    _linear(p, c, blk, "heads_in", out, "attn_output", c.n_embd)


def gated_layer(
    p: Plan,
    config: TransformerConfig,
    layer: int,
    *,
    activation: str | None = None,
    out: str = "y",
) -> None:
    """From ``x`` through norm and a gated feed-forward layer to the buffer `out`."""
    c = config
    blk = f"blk.{layer}."
    p.prepare("x", "x_in", norm(c, f"{blk}ffn_norm"))
    p.gated(
        "x_in",
        "h",
        f"{blk}ffn_gate.weight",
        f"{blk}ffn_up.weight",
        width=c.n_ff,
        activation=activation or c.activation,
        biases=(_bias(c, blk, "ffn_gate"), _bias(c, blk, "ffn_up")),
    )
    p.prepare("h", "h_in")
    _linear(p, c, blk, "h_in", out, "ffn_down", c.n_embd)


def expert_layer(p: Plan, config: TransformerConfig, layer: int, *, out: str = "z") -> None:
    """From ``x`` through norm and the experts that a token is sent to, to the buffer `out`."""
    c = config
    blk = f"blk.{layer}."
    p.prepare("x", "x_in", norm(c, f"{blk}ffn_norm"))
    _linear(p, c, blk, "x_in", "scores", "ffn_gate_inp", c.n_experts)
    p.experts(
        "x",
        "scores",
        out,
        (f"{blk}ffn_gate_exps.weight", f"{blk}ffn_up_exps.weight", f"{blk}ffn_down_exps.weight"),
        norm=norm(c, f"{blk}ffn_norm"),
        n_experts=c.n_experts,
        n_used=c.n_experts_used,
        width=c.n_ff_expert,
        activation=c.activation,
        normalise=c.normalise_experts,
    )


def plain_layer(p: Plan, config: TransformerConfig, layer: int, *, out: str = "y") -> None:
    """From ``x`` through layer norm, a matrix, an activation and a matrix to the buffer `out`."""
    c = config
    blk = f"blk.{layer}."
    p.prepare("x", "x_in", norm(c, f"{blk}ffn_norm", "layer"))
    _linear(p, c, blk, "x_in", "h", "ffn_up", c.n_ff, c.activation)
    p.prepare("h", "h_in")
    _linear(p, c, blk, "h_in", out, "ffn_down", c.n_embd)


def finish(p: Plan, config: TransformerConfig, kind: str = "rms") -> Plan:
    """From ``x`` through the last norm and the output matrix to the logits."""
    c = config
    p.gather("x", "last")
    p.prepare("last", "last_in", norm(c, "output_norm", kind))
    p.linear(
        "last_in",
        {"logits": "token_embd.weight" if c.tied else "output.weight"},
        {"logits": c.n_vocab},
        fine=True,
        softcap=c.final_softcap,
    )
    return p


def _bias(c: TransformerConfig, blk: str, part: str) -> str | None:
    return f"{blk}{part}.bias" if part in c.biases else None


def _linear(
    p: Plan,
    c: TransformerConfig,
    blk: str,
    src: str,
    out: str,
    part: str,
    width: int,
    activation: str | None = None,
) -> None:
    p.linear(
        src,
        {out: f"{blk}{part}.weight"},
        {out: width},
        {out: _bias(c, blk, part)},
        activation=activation,
    )

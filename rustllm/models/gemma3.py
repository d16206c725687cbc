"""The Gemma 3 architecture (text)."""

from __future__ import annotations

import math

from rustllm.models.config import TransformerConfig
from rustllm.models.plan import Norm, Plan, Rope

__all__ = ["plan"]

_LOCAL_OF = 6  # of six layers the first five see a window only


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a Gemma 3 model.

    Norms before and after each part, normalised queries and keys, five local layers with their own
    frequency base to one global layer, GELU-gated feed-forward, scaled and tied embeddings.
    """
    c = config
    p = Plan(n_vocab=c.n_vocab, n_layers=c.n_layers, n_kv_heads=c.n_kv_heads, head_dim=c.head_dim)
    rope_global = Rope(c.n_rot, c.rope_base, scale=c.rope_scale, halves=True)
    rope_local = Rope(c.n_rot, c.rope_base_local, halves=True)
    heads = {"q": c.n_heads * c.head_dim, "k": c.n_kv_heads * c.head_dim}
    heads["v"] = heads["k"]

    def norm(name: str) -> Norm:
        return Norm(f"{name}.weight", c.norm_eps)

    p.embed("x", "token_embd.weight", width=c.n_embd, scale=math.sqrt(c.n_embd))
    for i in range(c.n_layers):
        blk = f"blk.{i}."
        local = c.window > 0 and i % _LOCAL_OF < _LOCAL_OF - 1
        p.prepare("x", "x_in", norm(f"{blk}attn_norm"))
        p.linear("x_in", {name: f"{blk}attn_{name}.weight" for name in heads}, heads)
        p.attention(
            "q", "k", "v", "heads",
            layer=i, n_heads=c.n_heads, scale=c.attention_scale,
            rope=rope_local if local else rope_global, window=c.window if local else 0,
            query_norm=norm(f"{blk}attn_q_norm"), key_norm=norm(f"{blk}attn_k_norm"),
        )  # fmt: skip
        p.prepare("heads", "heads_in")
        p.linear("heads_in", {"y": f"{blk}attn_output.weight"}, {"y": c.n_embd})
        p.add("x", "y", norm(f"{blk}post_attention_norm"))
        p.prepare("x", "x_in", norm(f"{blk}ffn_norm"))
        p.gated(
            "x_in", "h", f"{blk}ffn_gate.weight", f"{blk}ffn_up.weight",
            width=c.n_ff, activation="gelu_tanh",
        )  # fmt: skip
        p.prepare("h", "h_in")
        p.linear("h_in", {"y": f"{blk}ffn_down.weight"}, {"y": c.n_embd})
        p.add("x", "y", norm(f"{blk}post_ffw_norm"))
    p.gather("x", "last")
    p.prepare("last", "last_in", norm("output_norm"))
    p.linear(
        "last_in",
        {"logits": "token_embd.weight" if c.tied else "output.weight"},
        {"logits": c.n_vocab},
        fine=True,
    )
    return p

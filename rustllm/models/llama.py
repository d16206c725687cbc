"""The Llama architecture: Llama 2 and 3, Mistral, SmolLM and whatever is exported as one."""

from __future__ import annotations

from rustllm.models.config import TransformerConfig
from rustllm.models.plan import Norm, Plan, Rope

__all__ = ["plan"]


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a Llama model.

    Pre-norm blocks of grouped-query attention and a SiLU-gated feed-forward layer. In GGUF files
    the rows of queries and keys are ordered so that pairs (2i, 2i + 1) rotate.
    """
    c = config
    p = Plan(n_vocab=c.n_vocab, n_layers=c.n_layers, n_kv_heads=c.n_kv_heads, head_dim=c.head_dim)
    rope = Rope(
        c.n_rot,
        c.rope_base,
        scale=c.rope_scale,
        factors="rope_freqs.weight" if c.rope_factors else None,
    )
    heads = {"q": c.n_heads * c.head_dim, "k": c.n_kv_heads * c.head_dim}
    heads["v"] = heads["k"]
    p.embed("x", "token_embd.weight", width=c.n_embd)
    for i in range(c.n_layers):
        blk = f"blk.{i}."
        p.prepare("x", "x_in", Norm(f"{blk}attn_norm.weight", c.norm_eps))
        p.linear(
            "x_in",
            {name: f"{blk}attn_{name}.weight" for name in heads},
            heads,
            {name: f"{blk}attn_{name}.bias" for name in heads} if c.attention_bias else None,
        )
        p.attention(
            "q", "k", "v", "heads",
            layer=i, n_heads=c.n_heads, scale=c.attention_scale, rope=rope, window=c.window,
        )  # fmt: skip
        p.prepare("heads", "heads_in")
        p.linear("heads_in", {"y": f"{blk}attn_output.weight"}, {"y": c.n_embd})
        p.add("x", "y")
        p.prepare("x", "x_in", Norm(f"{blk}ffn_norm.weight", c.norm_eps))
        p.gated(
            "x_in", "h", f"{blk}ffn_gate.weight", f"{blk}ffn_up.weight",
            width=c.n_ff, activation="silu",
        )  # fmt: skip
        p.prepare("h", "h_in")
        p.linear("h_in", {"y": f"{blk}ffn_down.weight"}, {"y": c.n_embd})
        p.add("x", "y")
    p.gather("x", "last")
    p.prepare("last", "last_in", Norm("output_norm.weight", c.norm_eps))
    p.linear(
        "last_in",
        {"logits": "token_embd.weight" if c.tied else "output.weight"},
        {"logits": c.n_vocab},
        fine=True,
    )
    return p

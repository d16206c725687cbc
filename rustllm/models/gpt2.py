"""The GPT-2 architecture."""

from __future__ import annotations

from rustllm.models import blocks
from rustllm.models.checkpoint import Checkpoint, Described
from rustllm.models.config import TransformerConfig
from rustllm.models.hf_config import HFConfig
from rustllm.models.plan import Plan

__all__ = ["checkpoint", "plan"]


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a GPT-2 model.

    Learned positions, layer norms with a shift, a bias on every linear layer but the last, and a
    feed-forward layer without a gate.
    """
    c = config
    p = blocks.begin(c, positions=True)
    for i in range(c.n_layers):
        blocks.attention(p, c, i, rope=None, kind="layer")
        p.add("x", "y")
        blocks.plain_layer(p, c, i)
        p.add("x", "y")
    return blocks.finish(p, c, "layer")


def _describe(hf: HFConfig) -> Described:
    hf.expect("scale_attn_weights", True, True)
    hf.expect("scale_attn_by_inverse_layer_idx", False, False)
    hf.expect("add_cross_attention", False, False)
    n_embd = hf.integer("n_embd")
    n_heads = hf.integer("n_head")
    n_inner = hf.get("n_inner")
    config = TransformerConfig(
        "gpt2",
        n_vocab=hf.integer("vocab_size"),
        n_ctx=hf.integer("n_positions"),
        n_embd=n_embd,
        n_layers=hf.integer("n_layer"),
        n_ff=4 * n_embd if n_inner is None else hf.integer("n_inner"),
        n_heads=n_heads,
        n_kv_heads=n_heads,
        head_dim=hf.divided("n_embd", "n_head"),
        n_rot=0,
        norm_eps=hf.number("layer_norm_epsilon", 1e-5),
        rope_base=10000.0,
        tied=hf.flag("tie_word_embeddings", True),
        biases=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"),
        activation=hf.activation("activation_function", "gelu_new"),
        name=hf.name,
    )
    return Described(config)


checkpoint = Checkpoint(
    _describe,
    {
        "attn_norm": "ln_1",
        "attn_q": "attn.c_attn",
        "attn_k": "attn.c_attn",
        "attn_v": "attn.c_attn",
        "attn_output": "attn.c_proj",
        "ffn_norm": "ln_2",
        "ffn_up": "mlp.c_fc",
        "ffn_down": "mlp.c_proj",
    },
    base="transformer.",
    layer="h.{}.",
    embedding="wte",
    positions="wpe",
    norm="ln_f",
    transposed=True,
)

"""The GPT-NeoX architecture: Pythia and its kin."""

from __future__ import annotations

from rustllm.models import blocks
from rustllm.models.checkpoint import Checkpoint, Described
from rustllm.models.config import TransformerConfig
from rustllm.models.hf_config import HFConfig
from rustllm.models.plan import Plan

__all__ = ["checkpoint", "plan"]


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a GPT-NeoX model.

    Layer norms, biases, a part of each head that rotates, and a feed-forward layer without a gate
    that reads the same input as the attention, unless the model says otherwise.
    """
    c = config
    p = blocks.begin(c)
    rope = blocks.rope(c, halves=True) if c.n_rot else None
    for i in range(c.n_layers):
        blocks.attention(p, c, i, rope=rope, kind="layer")
        if not c.parallel_residual:
            p.add("x", "y")
        blocks.plain_layer(p, c, i, out="z")
        if c.parallel_residual:
            p.add("x", "y")
        p.add("x", "z")
    return blocks.finish(p, c, "layer")


def _describe(hf: HFConfig) -> Described:
    head_dim = hf.divided("hidden_size", "num_attention_heads")
    n_heads = hf.integer("num_attention_heads")
    share = hf.number("rotary_pct", 0.25)
    told = hf.get("rope_parameters")
    if not isinstance(told, dict) or "partial_rotary_factor" not in told:
        hf = HFConfig(hf.path, {**hf.values, "partial_rotary_factor": share})
    if hf.get("rope_theta") is None:
        hf = HFConfig(hf.path, {**hf.values, "rope_theta": hf.number("rotary_emb_base", 10000.0)})
    rotation = hf.rotation(head_dim)
    biases: tuple[str, ...] = ("ffn_up", "ffn_down")
    if hf.flag("attention_bias", True):
        biases += ("attn_q", "attn_k", "attn_v", "attn_output")
    config = TransformerConfig(
        "gptneox",
        n_vocab=hf.integer("vocab_size"),
        n_ctx=hf.integer("max_position_embeddings"),
        n_embd=hf.integer("hidden_size"),
        n_layers=hf.integer("num_hidden_layers"),
        n_ff=hf.integer("intermediate_size"),
        n_heads=n_heads,
        n_kv_heads=n_heads,
        head_dim=head_dim,
        norm_eps=hf.number("layer_norm_eps", 1e-5),
        tied=hf.flag("tie_word_embeddings", False),
        biases=biases,
        activation=hf.activation("hidden_act", "gelu"),
        parallel_residual=hf.flag("use_parallel_residual", True),
        name=hf.name,
        **rotation.fields(),
    )
    return Described(config, rotation.vectors())


checkpoint = Checkpoint(
    _describe,
    {
        "attn_norm": "input_layernorm",
        "attn_q": "attention.query_key_value",
        "attn_k": "attention.query_key_value",
        "attn_v": "attention.query_key_value",
        "attn_output": "attention.dense",
        "ffn_norm": "post_attention_layernorm",
        "ffn_up": "mlp.dense_h_to_4h",
        "ffn_down": "mlp.dense_4h_to_h",
    },
    base="gpt_neox.",
    embedding="embed_in",
    norm="final_layer_norm",
    head="embed_out",
    queries_by_head=True,
)

"""The Phi 3 architecture: Phi 3 mini and medium, Phi 3.5 mini, Phi 4."""

from __future__ import annotations

from rustllm.models import blocks
from rustllm.models.checkpoint import Checkpoint, Described
from rustllm.models.config import TransformerConfig
from rustllm.models.hf_config import HFConfig, gated_transformer
from rustllm.models.plan import Plan

__all__ = ["checkpoint", "plan"]


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a Phi 3 model.

    Llama's blocks; queries, keys and values lie in one matrix, and so do both halves of the gated
    layer. Models of long context have two sets of frequencies: which one applies depends on the
    context that a state is made with, not on how many tokens it holds, so that what was read
    earlier stays what it is.
    """
    c = config
    p = blocks.begin(c)
    rope = blocks.rope(c, halves=True)
    for i in range(c.n_layers):
        blocks.attention(p, c, i, rope=rope, window=c.window_of(i))
        p.add("x", "y")
        blocks.gated_layer(p, c, i)
        p.add("x", "y")
    return blocks.finish(p, c)


def _describe(hf: HFConfig) -> Described:
    window = 0 if hf.get("sliding_window") is None else hf.integer("sliding_window")
    return gated_transformer(hf, "phi3", window=window)


checkpoint = Checkpoint(
    _describe,
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.qkv_proj",
        "attn_k": "self_attn.qkv_proj",
        "attn_v": "self_attn.qkv_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_up_proj",
        "ffn_up": "mlp.gate_up_proj",
        "ffn_down": "mlp.down_proj",
    },
)

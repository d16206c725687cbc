"""The Qwen 3 architecture: Llama's, with normalised queries and keys."""

from __future__ import annotations

from rustllm.models import blocks, llama
from rustllm.models.checkpoint import Checkpoint, Described
from rustllm.models.config import TransformerConfig
from rustllm.models.hf_config import HFConfig, gated_transformer
from rustllm.models.plan import Plan
from rustllm.models.qwen2 import windows

__all__ = ["LAYERS", "biases", "checkpoint", "plan"]


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a Qwen 3 model.

    Each head of the queries and keys is normalised before it rotates.
    """
    c = config
    p = blocks.begin(c)
    rope = blocks.rope(c, halves=True)
    for i in range(c.n_layers):
        blocks.attention(p, c, i, rope=rope, window=c.window_of(i), head_norms=True)
        p.add("x", "y")
        blocks.gated_layer(p, c, i)
        p.add("x", "y")
    return blocks.finish(p, c)


def biases(hf: HFConfig) -> tuple[str, ...]:
    """The linear layers of the attention have a bias, or none has."""
    return ("attn_q", "attn_k", "attn_v", "attn_output") if hf.flag("attention_bias", False) else ()


def _describe(hf: HFConfig) -> Described:
    return gated_transformer(hf, "qwen3", biases=biases(hf), windows=windows(hf))


LAYERS = {
    **llama.checkpoint.layers,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
checkpoint = Checkpoint(_describe, LAYERS)

"""The Qwen 2 and 2.5 architecture: Llama's, with biases on queries, keys and values."""

from __future__ import annotations

from rustllm.models import blocks, llama
from rustllm.models.checkpoint import Checkpoint, Described
from rustllm.models.config import TransformerConfig
from rustllm.models.hf_config import HFConfig, gated_transformer
from rustllm.models.plan import Plan

__all__ = ["checkpoint", "plan", "windows"]


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a Qwen 2 model."""
    c = config
    p = blocks.begin(c)
    rope = blocks.rope(c, halves=True)
    for i in range(c.n_layers):
        blocks.attention(p, c, i, rope=rope, window=c.window_of(i))
        p.add("x", "y")
        blocks.gated_layer(p, c, i)
        p.add("x", "y")
    return blocks.finish(p, c)


def windows(hf: HFConfig) -> tuple[int, ...]:
    """The window of each layer: none below ``max_window_layers``, and none unless asked for."""
    if not hf.flag("use_sliding_window", False) or hf.get("sliding_window") is None:
        return ()
    first = hf.integer("max_window_layers", 28)
    return hf.windows(hf.integer("sliding_window"), lambda layer: layer >= first)


def _describe(hf: HFConfig) -> Described:
    biases = ("attn_q", "attn_k", "attn_v")
    return gated_transformer(hf, "qwen2", biases=biases, windows=windows(hf))


checkpoint = Checkpoint(_describe, llama.checkpoint.layers)

"""The Gemma 2 architecture."""

from __future__ import annotations

import math

from rustllm.models import blocks, gemma3
from rustllm.models.checkpoint import Checkpoint, Described
from rustllm.models.config import TransformerConfig
from rustllm.models.hf_config import HFConfig, gated_transformer
from rustllm.models.plan import Plan

__all__ = ["checkpoint", "plan"]


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a Gemma 2 model.

    Norms before and after each part, a window in every other layer, soft caps on attention scores
    and logits, GELU-gated feed-forward, scaled embeddings.
    """
    c = config
    p = blocks.begin(c, scale=math.sqrt(c.n_embd))
    rope = blocks.rope(c, halves=True)
    for i in range(c.n_layers):
        window = c.window_of(i)
        if not c.windows and i % 2:
            window = 0
        blocks.attention(p, c, i, rope=rope, window=window)
        p.add("x", "y", blocks.norm(c, f"blk.{i}.post_attention_norm"))
        blocks.gated_layer(p, c, i, activation="gelu_tanh")
        p.add("x", "y", blocks.norm(c, f"blk.{i}.post_ffw_norm"))
    return blocks.finish(p, c)


def _describe(hf: HFConfig) -> Described:
    hf.expect("use_bidirectional_attention", False, False)
    biases = ("attn_q", "attn_k", "attn_v", "attn_output")
    return gated_transformer(
        hf,
        "gemma2",
        tied=True,
        activation=gemma3.gelu(hf),
        head_dim=hf.integer("head_dim", 256),
        windows=hf.windows(hf.integer("sliding_window", 4096), lambda layer: layer % 2 == 0),
        attention_scale=hf.inverse_root("query_pre_attn_scalar", 256.0),
        attention_softcap=hf.number("attn_logit_softcapping", 0.0),
        final_softcap=hf.number("final_logit_softcapping", 0.0),
        biases=biases if hf.flag("attention_bias", False) else (),
    )


_LAYERS = {part: name for part, name in gemma3.LAYERS.items() if "_q_norm" not in part}
del _LAYERS["attn_k_norm"]
checkpoint = Checkpoint(_describe, _LAYERS, norms_less_one=True)

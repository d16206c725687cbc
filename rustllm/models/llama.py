"""The Llama architecture: Llama 2 and 3, Mistral, SmolLM and whatever is exported as one."""

from __future__ import annotations

from rustllm.models import blocks
from rustllm.models.checkpoint import Checkpoint, Described
from rustllm.models.config import TransformerConfig
from rustllm.models.hf_config import HFConfig, gated_transformer
from rustllm.models.plan import Plan

__all__ = ["checkpoint", "describe", "mistral", "plan"]


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a Llama model.

    Pre-norm blocks of grouped-query attention and a SiLU-gated feed-forward layer. In GGUF files
    the rows of queries and keys are ordered so that pairs (2i, 2i + 1) rotate; in the folders they
    were converted from, pairs (i, i + n/2) do.
    """
    c = config
    p = blocks.begin(c)
    rope = blocks.rope(c, halves=c.rope_halves)
    for i in range(c.n_layers):
        blocks.attention(p, c, i, rope=rope, window=c.window_of(i))
        p.add("x", "y")
        blocks.gated_layer(p, c, i)
        p.add("x", "y")
    return blocks.finish(p, c)


def describe(hf: HFConfig) -> Described:
    """Read the configuration of a Llama folder."""
    biases: tuple[str, ...] = ()
    if hf.flag("attention_bias", False):
        biases += ("attn_q", "attn_k", "attn_v", "attn_output")
    if hf.flag("mlp_bias", False):
        biases += ("ffn_gate", "ffn_up", "ffn_down")
    return gated_transformer(hf, "llama", biases=biases, rope_halves=True)


def _describe_mistral(hf: HFConfig) -> Described:
    window = 0 if hf.get("sliding_window") is None else hf.integer("sliding_window")
    return gated_transformer(hf, "llama", window=window, rope_halves=True)


_LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
checkpoint = Checkpoint(describe, _LAYERS)
mistral = Checkpoint(_describe_mistral, _LAYERS)

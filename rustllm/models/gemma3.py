"""The Gemma 3 architecture (text)."""

from __future__ import annotations

import math

from rustllm.models import blocks
from rustllm.models.checkpoint import Checkpoint, Described
from rustllm.models.config import TransformerConfig
from rustllm.models.hf_config import HFConfig, gated_transformer
from rustllm.models.plan import Plan, Rope

__all__ = ["LAYERS", "checkpoint", "gelu", "plan"]

_LOCAL_OF = 6  # of six layers the first five see a window only


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a Gemma 3 model.

    Norms before and after each part, normalised queries and keys, five local layers with their own
    frequency base to one global layer, GELU-gated feed-forward, scaled and tied embeddings.
    """
    c = config
    p = blocks.begin(c, scale=math.sqrt(c.n_embd))
    rope_global = blocks.rope(c, halves=True)
    rope_local = Rope(c.n_rot, c.rope_base_local, halves=True)
    for i in range(c.n_layers):
        window = c.window_of(i)
        if not c.windows and i % _LOCAL_OF == _LOCAL_OF - 1:
            window = 0
        blocks.attention(
            p, c, i, rope=rope_local if window else rope_global, window=window, head_norms=True
        )
        p.add("x", "y", blocks.norm(c, f"blk.{i}.post_attention_norm"))
        blocks.gated_layer(p, c, i, activation="gelu_tanh")
        p.add("x", "y", blocks.norm(c, f"blk.{i}.post_ffw_norm"))
    return blocks.finish(p, c)


def gelu(hf: HFConfig) -> str:
    """The activation, of which every Gemma has the same."""
    activation = hf.activation("hidden_activation", "gelu_pytorch_tanh")
    if activation != "gelu_tanh":
        raise hf.unsupported("hidden_activation", f"the activation {activation!r} is not supported")
    return activation


def _describe(hf: HFConfig) -> Described:
    hf.expect("use_bidirectional_attention", False, False)
    period = hf.integer("sliding_window_pattern", hf.integer("_sliding_window_pattern", _LOCAL_OF))
    head_dim = hf.integer("head_dim", 256)
    local_base = hf.number("rope_local_base_freq", 10000.0)
    if hf.get("rope_parameters") is not None:
        local = hf.rotation(head_dim, "sliding_attention")
        if local.factors is not None or local.scale != 1.0:
            raise hf.unsupported("rope_parameters", "scaled positions in layers with a window")
        local_base = local.base
    biases = ("attn_q", "attn_k", "attn_v", "attn_output")
    return gated_transformer(
        hf,
        "gemma3",
        tied=True,
        activation=gelu(hf),
        head_dim=head_dim,
        section="full_attention",
        rope_base_local=local_base,
        windows=hf.windows(
            hf.integer("sliding_window", 4096),
            lambda layer: period > 0 and (layer + 1) % period != 0,
        ),
        attention_scale=hf.inverse_root("query_pre_attn_scalar", 256.0),
        attention_softcap=hf.number("attn_logit_softcapping", 0.0),
        final_softcap=hf.number("final_logit_softcapping", 0.0),
        biases=biases if hf.flag("attention_bias", False) else (),
    )


LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}
checkpoint = Checkpoint(_describe, LAYERS, norms_less_one=True)

"""The Qwen 3 architecture with mixtures of experts."""

from __future__ import annotations

from rustllm.models import blocks, qwen3
from rustllm.models.checkpoint import Checkpoint, Described
from rustllm.models.config import TransformerConfig
from rustllm.models.hf_config import HFConfig, gated_transformer
from rustllm.models.plan import Plan
from rustllm.models.qwen2 import windows

__all__ = ["checkpoint", "plan"]


def plan(config: TransformerConfig) -> Plan:
    """Write the forward pass of a Qwen 3 model of experts.

    A router scores the experts of a layer for each token, which goes through the best few.
    """
    c = config
    p = blocks.begin(c)
    rope = blocks.rope(c, halves=True)
    for i in range(c.n_layers):
        blocks.attention(p, c, i, rope=rope, window=c.window_of(i), head_norms=True)
        p.add("x", "y")
        if i in c.dense_layers:
            blocks.gated_layer(p, c, i)
            p.add("x", "y")
        else:
            blocks.expert_layer(p, c, i)
            p.add("x", "z")
    return blocks.finish(p, c)


def _describe(hf: HFConfig) -> Described:
    step = hf.integer("decoder_sparse_step", 1)
    dense = hf.get("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(type(i) is int for i in dense):
        raise hf.error("mlp_only_layers", "expected a list of layers")
    n_experts = "num_experts" if hf.get("num_experts") is not None else "num_local_experts"
    n_layers = hf.integer("num_hidden_layers")
    return gated_transformer(
        hf,
        "qwen3moe",
        biases=qwen3.biases(hf),
        windows=windows(hf),
        n_experts=hf.integer(n_experts),
        n_experts_used=hf.integer("num_experts_per_tok"),
        n_ff_expert=hf.integer("moe_intermediate_size"),
        normalise_experts=hf.flag("norm_topk_prob", False),
        dense_layers=tuple(
            i for i in range(min(n_layers, 1024)) if i in dense or step == 0 or (i + 1) % step
        ),
    )


checkpoint = Checkpoint(
    _describe,
    {
        **qwen3.LAYERS,
        "ffn_gate_inp": "mlp.gate",
        "ffn_gate_exps": "mlp.experts.{}.gate_proj",
        "ffn_up_exps": "mlp.experts.{}.up_proj",
        "ffn_down_exps": "mlp.experts.{}.down_proj",
    },
)

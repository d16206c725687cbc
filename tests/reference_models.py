"""Small random models made with transformers, saved as folders and as GGUF files.

The GGUF side is written with the `gguf` package from a mapping of its own, so that a mistake in the
library's mapping cannot cancel out.
"""

import copy
import math
from contextlib import contextmanager

import gguf
import numpy as np
import torch
import transformers

N_IDS = 150
COMMON = {
    "vocab_size": 101,
    "hidden_size": 72,
    "intermediate_size": 104,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 500000.0, "factor": 2.0}


def long_rope(n):
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0 + 0.1 * i for i in range(n)],
        "long_factor": [1.5 + 0.7 * i for i in range(n)],
        "original_max_position_embeddings": 64,
    }


# Name of a case -> configuration class, what differs from COMMON.
CASES = {
    "llama": ("LlamaConfig", {}),
    "llama-tied": ("LlamaConfig", {"tie_word_embeddings": True, "head_dim": 20}),
    "llama-biases": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "llama3-rope": ("LlamaConfig", {"rope_parameters": LLAMA3_ROPE}),
    "llama-linear": ("LlamaConfig", {"rope_parameters": LINEAR_ROPE}),
    "llama-yarn": ("LlamaConfig", {"rope_parameters": YARN_ROPE}),
    "mistral": ("MistralConfig", {"sliding_window": 23, "head_dim": 16}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2-window": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 23, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        {"head_dim": 16, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 40}
        | {"norm_topk_prob": True},
    ),
    "qwen3-moe-mixed": (
        "Qwen3MoeConfig",
        {"head_dim": 16, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
        | {"norm_topk_prob": False, "mlp_only_layers": [1]},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "head_dim": 16,
            "sliding_window": 23,
            "num_hidden_layers": 7,
            "query_pre_attn_scalar": 20,
            "pad_token_id": 0,
        },
    ),
    "gemma2": (
        "Gemma2Config",
        {"head_dim": 16, "sliding_window": 23, "query_pre_attn_scalar": 20, "pad_token_id": 0}
        | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
    ),
    "phi3": ("Phi3Config", {"sliding_window": 23}),
    "phi3-long": (
        "Phi3Config",
        {"rope_parameters": long_rope(6), "original_max_position_embeddings": 64},
    ),
    "phi3-partial": (
        "Phi3Config",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "head_dim": 12}
        | {"partial_rotary_factor": 0.5},
    ),
    "gpt-neox": ("GPTNeoXConfig", {"rotary_pct": 0.5}),
    "gpt-neox-serial": (
        "GPTNeoXConfig",
        {"use_parallel_residual": False, "attention_bias": False, "rotary_pct": 1.0},
    ),
    "gpt2": (
        "GPT2Config",
        {"n_embd": 72, "n_layer": 3, "n_head": 6, "n_positions": 256},
    ),
}


@contextmanager
def quiet():
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def make(case, seed=0):
    """A model of the case with every weight random, so that each of them matters."""
    kind, changes = CASES[case]
    values = {**COMMON, **changes}
    if kind == "GPT2Config":
        values = {"vocab_size": 101, "bos_token_id": 1, "eos_token_id": 2, **changes}
    with quiet():
        config = getattr(transformers, kind)(**values)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name or ".ln_" in name:
                gemma = "gemma" in case
                value.copy_(0.2 * noise + (0 if gemma or name.endswith("bias") else 1))
            elif value.ndim == 1:
                value.copy_(0.2 * noise)
            elif "embed" in name or "wte" in name or "wpe" in name:
                value.copy_(noise * (0.3 if "gemma" in case else 1.0))
            else:
                fan_in = value.shape[0 if kind == "GPT2Config" else -1]
                value.copy_(noise / math.sqrt(fan_in))
    return model.float().eval()


def rounded(model, dtype):
    """Round the weights to another type and back; frequencies stay what they are."""
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(value.to(dtype))
    return model


def save(model, folder, dtype=torch.float32, shard=None):
    """Save as a folder of another type; returns the model with the weights of the folder."""
    rounded(model, dtype)
    with quiet():
        options = {} if shard is None else {"max_shard_size": shard}
        copy.deepcopy(model).to(dtype).save_pretrained(folder, **options)
    return model


def logits(model, ids):
    """Scores at every position, float32."""
    with torch.no_grad():
        out = model(torch.tensor(np.asarray(ids)[None]), use_cache=False)
    return out.logits[0].float().numpy()


# ---- GGUF --------------------------------------------------------------------------------------

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "gemma2": "gemma2",
    "phi3": "phi3",
    "gpt_neox": "gptneox",
}
BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}
GEMMA_BLOCK = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GPT2_BLOCK = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
NEOX_BLOCK = {
    "input_layernorm": "attn_norm",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
BLOCKS = {
    "gpt2": GPT2_BLOCK,
    "gemma2": {**BLOCK, **GEMMA_BLOCK},
    "gemma3_text": {**BLOCK, **GEMMA_BLOCK},
    "phi3": {**BLOCK, "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
    "gpt_neox": NEOX_BLOCK,
}
OUTSIDE = {
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "embed_out": "output",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
}


def gguf_tensors(model):
    """Names and float32 arrays as a GGUF file of this model holds them."""
    config = model.config
    kind = config.model_type
    tensors = {}
    tied = config.tie_word_embeddings
    for name, value in model.state_dict().items():
        stem, _, end = name.rpartition(".")
        array = value.float().numpy()
        if stem in OUTSIDE:
            if stem == "lm_head" and tied:
                continue
            if kind.startswith("gemma") and "norm" in stem:
                array = array + 1
            tensors[f"{OUTSIDE[stem]}.{end}"] = array
            continue
        parts = stem.split(".")
        layer, part = parts[2], ".".join(parts[3:])
        names = BLOCKS.get(kind, BLOCK)
        if kind == "gpt_neox" and "query_key_value" in part:
            # head after head of queries, keys and values becomes all queries, all keys, all values
            by_head = array.reshape(config.num_attention_heads, 3, -1, *array.shape[1:])
            array = by_head.swapaxes(0, 1).reshape(array.shape)
        if kind.startswith("gemma") and "norm" in part:
            array = array + 1
        if kind == "gpt2" and array.ndim == 2:
            array = array.T
        if kind in ("llama", "mistral") and part in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = config.num_attention_heads if "q_proj" in part else config.num_key_value_heads
            # pairs (i, i + d/2) become neighbours
            array = (
                array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
            )
        if part == "mlp.experts":
            tensors.update(_stacks(layer, end, array))
            continue
        tensors[f"blk.{layer}.{names[part]}.{end}"] = array
    return tensors


def _stacks(layer, name, array):
    """Stacks of experts: gate and up lie in one array in memory, row after row."""
    if name == "down_proj":
        return {f"blk.{layer}.ffn_down_exps.weight": array}
    half = array.shape[1] // 2
    return {
        f"blk.{layer}.ffn_gate_exps.weight": array[:, :half],
        f"blk.{layer}.ffn_up_exps.weight": array[:, half:],
    }


def write_gguf(model, path, dtype=np.float32):
    """Write a GGUF file with the gguf package; matrices in `dtype`."""
    config = model.config
    kind = config.model_type
    writer = gguf.GGUFWriter(path, ARCHITECTURES[kind])
    if kind == "gpt2":
        writer.add_context_length(config.n_positions)
        writer.add_embedding_length(config.n_embd)
        writer.add_block_count(config.n_layer)
        writer.add_feed_forward_length(4 * config.n_embd)
        writer.add_head_count(config.n_head)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        _write_keys(writer, config)
    factors = _factors(writer, config)
    for name, array in {**gguf_tensors(model), **factors}.items():
        plain = array.ndim == 1 or "position_embd" in name or "gate_inp" in name
        writer.add_tensor(name, np.ascontiguousarray(array, np.float32 if plain else dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_keys(writer, config):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(_kv_heads(config))
    if config.model_type == "gpt_neox":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_parallel_residual(config.use_parallel_residual)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    window = getattr(config, "sliding_window", None)
    if window:
        writer.add_sliding_window(window)
        kinds = getattr(config, "layer_types", None)
        if kinds and not config.model_type.startswith("gemma"):
            writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in kinds])
    if config.model_type.startswith("gemma"):
        scalar = config.query_pre_attn_scalar
        writer.add_float32(f"{writer.arch}.attention.scale", scalar**-0.5)
    if config.model_type == "qwen3_moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        writer.add_expert_weights_norm(config.norm_topk_prob)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _factors(writer, config):
    """Keys and tensors that tell how the model rotates."""
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        return {}
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope["rope_type"]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if kind == "longrope":
        stretch = config.max_position_embeddings / rope["original_max_position_embeddings"]
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(
            math.sqrt(1 + math.log(stretch) / math.log(rope["original_max_position_embeddings"]))
        )
        return {
            "rope_factors_long.weight": np.array(rope["long_factor"], np.float32),
            "rope_factors_short.weight": np.array(rope["short_factor"], np.float32),
        }
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(
            {"linear": gguf.RopeScalingType.LINEAR, "yarn": gguf.RopeScalingType.YARN}[kind]
        )
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "llama3":
        wave = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
        turns = rope["original_max_position_embeddings"] / wave
        smooth = (turns - rope["low_freq_factor"]) / (
            rope["high_freq_factor"] - rope["low_freq_factor"]
        )
        middle = 1 / ((1 - smooth) / rope["factor"] + smooth)
        factors = np.where(
            turns < rope["low_freq_factor"],
            rope["factor"],
            np.where(turns > rope["high_freq_factor"], 1.0, middle),
        )
        return {"rope_freqs.weight": factors.astype(np.float32)}
    return {}


def _kv_heads(config):
    if config.model_type == "gpt_neox":
        return config.num_attention_heads
    return config.num_key_value_heads

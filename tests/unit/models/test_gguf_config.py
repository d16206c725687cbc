"""Hyper-parameters out of a GGUF file's metadata: read, defaulted, or refused by the key's name."""

import math

import numpy as np
import pytest

from rustllm.errors import ModelError, UnsupportedError
from rustllm.loaders.gguf import GGUFFile
from rustllm.loaders.gguf_writer import Typed, write_gguf
from rustllm.models.gguf_config import describe_gguf
from rustllm.models.gguf_metadata import config_metadata

from .tiny import tiny_config

KEYS = {
    "context_length": 128,
    "embedding_length": 64,
    "block_count": 4,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.layer_norm_rms_epsilon": 1e-5,
}


def described(folder, architecture="llama", *, tensors=(), **changes):
    """What a file with `KEYS` and `changes` says; a dot in a name is written as two underscores."""
    keys = {**KEYS, **{name.replace("__", "."): value for name, value in changes.items()}}
    metadata = {f"{architecture}.{name}": v for name, v in keys.items() if v is not None}
    arrays = {name: np.zeros((83, 64), np.float32) for name in ("token_embd.weight", *tensors)}
    path = folder / "model.gguf"
    write_gguf(path, {"general.architecture": architecture, **metadata}, arrays)
    with GGUFFile(path) as file:
        return describe_gguf(file)


def test_what_is_left_out_has_its_default(tmp_path):
    config = described(tmp_path).config
    assert (config.n_vocab, config.n_kv_heads, config.head_dim, config.n_rot) == (83, 4, 16, 16)
    assert (config.window, config.windows, config.biases, config.tied) == (0, (), (), True)
    assert (config.rope_base, config.rope_scale, config.rope_factors) == (10000.0, 1.0, False)


def test_one_number_a_layer_counts_when_all_agree(tmp_path):
    same = described(tmp_path, attention__head_count_kv=[2, 2, 2, 2]).config
    assert same.n_kv_heads == 2
    with pytest.raises(ModelError, match="different sizes") as caught:
        described(tmp_path, attention__head_count_kv=[2, 2, 4, 4])
    assert caught.value.key == "llama.attention.head_count_kv"


def test_layers_with_a_window_are_told_by_a_period_or_one_by_one(tmp_path):
    def windows(**changes):
        options = {"block_count": 6, "attention__sliding_window": 32, **changes}
        return described(tmp_path, "gemma3", **options).config.windows

    assert windows() == (32, 32, 32, 32, 32, 0)
    assert windows(attention__sliding_window_pattern=2) == (32, 0, 32, 0, 32, 0)
    told = [True, False, False, True, True, False]
    assert windows(attention__sliding_window_pattern=told) == (32, 0, 0, 32, 32, 0)
    with pytest.raises(ModelError, match="6 truth values"):
        windows(attention__sliding_window_pattern=told[:5])


def test_the_scaling_of_positions(tmp_path):
    linear = described(tmp_path, rope__scaling__type="linear", rope__scaling__factor=4.0)
    assert linear.config.rope_scale == 0.25 and not linear.vectors
    yarn = described(
        tmp_path,
        rope__scaling__type="yarn",
        rope__scaling__factor=4.0,
        rope__scaling__original_context_length=32,
    )
    assert yarn.config.rope_factors and math.isclose(
        yarn.config.rope_magnitude, 0.1 * math.log(4.0) + 1.0, rel_tol=1e-6
    )
    (factors,) = yarn.vectors.values()
    assert factors.shape == (8,) and factors.min() >= 1 and factors.max() <= 4 + 1e-6
    with pytest.raises(ModelError, match="cannot be"):
        described(tmp_path, rope__scaling__type="yarn", rope__scaling__factor=0.0)
    with pytest.raises(UnsupportedError, match="'dynamic'"):
        described(tmp_path, rope__scaling__type="dynamic")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"block_count": None}, "missing"),
        ({"attention__layer_norm_rms_epsilon": "tiny"}, "expected a number"),
        ({"attention__layer_norm_rms_epsilon": math.inf}, "finite"),
        ({"embedding_length": 6.5}, "whole number"),
        ({"embedding_length": -64}, "whole number"),
        ({"context_length": True}, "whole number"),
        ({"rope__scaling__type": 3}, "expected a string"),
        ({"use_parallel_residual": 1}, "true or false"),
        ({"attention__head_count": 5, "attention__head_count_kv": 3}, "n_kv_heads"),
        ({"block_count": Typed("u64", 1 << 40)}, "n_layers"),
    ],
)
def test_a_key_that_cannot_be_is_named(tmp_path, changes, said):
    with pytest.raises(ModelError) as caught:
        described(tmp_path, **changes)
    assert said in f"{caught.value} {caught.value.key}"
    assert caught.value.path == str(tmp_path / "model.gguf")
    assert caught.value.key and caught.value.hint


def test_values_of_another_length_than_keys_are_not_supported(tmp_path):
    with pytest.raises(UnsupportedError, match="different length"):
        described(tmp_path, attention__key_length=16, attention__value_length=32)


def test_a_file_without_an_architecture_is_no_model(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, {"general.name": "nobody"}, {})
    with GGUFFile(path) as file, pytest.raises(ModelError, match="which architecture"):
        describe_gguf(file)


def test_biases_are_those_whose_tensors_are_there(tmp_path):
    found = described(tmp_path, tensors=["blk.0.attn_qkv.bias", "blk.0.ffn_up.bias"]).config
    assert found.biases == ("attn_q", "attn_k", "attn_v", "ffn_up")


def sized(name, **changes):
    """A configuration, and the shapes that tell what metadata do not."""
    config = tiny_config(name, **changes)
    shapes = {"token_embd.weight": (config.n_vocab, config.n_embd)}
    shapes |= {f"blk.0.{part}.bias": (config.n_embd,) for part in config.biases}
    if not config.tied:
        shapes["output.weight"] = shapes["token_embd.weight"]
    return config, shapes


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {}),
        ("llama", {"tied": False, "rope_scale": 0.25, "rope_magnitude": 1.5}),
        ("llama", {"biases": ("attn_q", "ffn_up"), "attention_scale": 0.5}),
        ("llama", {"window": 50}),
        (
            "gemma2",
            {"activation": "gelu_tanh", "attention_softcap": 9.0, "final_softcap": 8.0,
             "windows": (37, 0, 37, 0, 37, 0, 37)},
        ),
        (
            "gemma3",
            {"activation": "gelu_tanh", "rope_base_local": 500.0,
             "windows": (0, 37, 37, 0, 0, 0, 37)},
        ),
        ("gptneox", {"activation": "gelu", "parallel_residual": False, "window": 0}),
        (
            "qwen3moe",
            {"n_experts": 8, "n_experts_used": 2, "n_ff_expert": 32, "normalise_experts": False,
             "window": 0},
        ),
    ],
)  # fmt: skip
def test_metadata_that_are_written_say_the_same_again(tmp_path, name, changes):
    config, shapes = sized(name, **changes)
    path = tmp_path / "model.gguf"
    metadata = config_metadata(config, shapes, "config.json")
    write_gguf(path, metadata, {n: np.zeros(s, np.float32) for n, s in shapes.items()})
    with GGUFFile(path, strict=True) as file:
        read = describe_gguf(file).config
    for layer in range(config.n_layers):
        assert read.window_of(layer) == config.window_of(layer)
    for field in ("n_rot", "n_ff", "tied", "activation", "parallel_residual", "n_experts_used"):
        assert getattr(read, field) == getattr(config, field)
    for field in ("rope_scale", "rope_magnitude", "attention_scale", "attention_softcap"):
        assert getattr(read, field) == pytest.approx(getattr(config, field), rel=1e-6)
    assert set(read.biases) == set(config.biases)


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("llama", {"activation": "gelu"}, "activation"),
        ("llama", {"final_softcap": 8.0}, "final_softcap"),
        ("gemma2", {"activation": "gelu"}, "activation"),
    ],
)
def test_what_metadata_have_no_word_for_is_refused(name, changes, key):
    config, shapes = sized(name, **changes)
    with pytest.raises(UnsupportedError, match=f"cannot say that {key}") as caught:
        config_metadata(config, shapes, "config.json")
    assert caught.value.path == "config.json"

"""Model folders: what is read from them, and what is refused before any work."""

import json
import struct

import numpy as np
import pytest

import rustllm
from rustllm.errors import (
    ArgumentError,
    ContextLengthError,
    FileFormatError,
    FileMissingError,
    ModelError,
    OutOfRangeError,
    RustLLMError,
    TensorError,
    UnsupportedError,
)

CONFIG = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": [3, 7],
}


def llama_tensors(seed=1):
    rng = np.random.default_rng(seed)
    shapes = {"model.embed_tokens": (40, 32), "lm_head": (40, 32), "model.norm": (32,)}
    for i in range(2):
        for name, shape in {
            "input_layernorm": (32,),
            "self_attn.q_proj": (32, 32),
            "self_attn.k_proj": (16, 32),
            "self_attn.v_proj": (16, 32),
            "self_attn.o_proj": (32, 32),
            "post_attention_layernorm": (32,),
            "mlp.gate_proj": (48, 32),
            "mlp.up_proj": (48, 32),
            "mlp.down_proj": (32, 48),
        }.items():
            shapes[f"model.layers.{i}.{name}"] = shape
    return {
        f"{name}.weight": rng.standard_normal(shape).astype(np.float32) * 0.3
        for name, shape in shapes.items()
    }


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, array in tensors.items():
        kind = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int32": "I32"}
        end = at + array.nbytes
        header[name] = {
            "dtype": kind[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header).encode()
    data = b"".join(array.tobytes() for array in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_folder(path, tensors=None, **changes):
    values = {**CONFIG, **changes}
    values = {key: value for key, value in values.items() if value is not ...}
    (path / "config.json").write_text(json.dumps(values))
    write_safetensors(path / "model.safetensors", tensors or llama_tensors())
    return path


def test_a_folder_runs_and_knows_where_a_text_ends(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 39, 40]}')
    model = rustllm.load_model(write_folder(tmp_path), threads=1)
    assert model.config.n_ctx == 64
    assert model.end_ids == {5, 39}  # the last is no token of this model
    assert model.forward([1, 2, 3], model.new_state()).shape == (40,)
    with pytest.raises(RustLLMError, match="tokenizer"):
        _ = model.tokenizer


def test_what_states_are_kept_in_is_a_choice(tmp_path):
    model = rustllm.load_model(write_folder(tmp_path), threads=1, kv_dtype="int8")
    assert model.kv_dtype == model.new_state().kv_dtype == "int8"
    assert model.new_state(kv_dtype="bfloat16").kv_dtype == "bfloat16"
    with pytest.raises(ArgumentError, match="float8"):
        rustllm.load_model(tmp_path / "not even there", kv_dtype="float8")


def test_shards_are_one_model(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    write_folder(whole)
    write_folder(parts)
    (parts / "model.safetensors").unlink()
    tensors = llama_tensors()
    names = list(tensors)
    owner = {}
    for i in range(3):
        file = f"model-{i}.safetensors"
        write_safetensors(parts / file, {name: tensors[name] for name in names[i::3]})
        owner.update(dict.fromkeys(names[i::3], file))
    index = parts / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": owner}))
    a, b, c = (rustllm.load_model(path, threads=1) for path in (whole, parts, index))
    scores = [m.forward([1, 2], m.new_state()) for m in (a, b, c)]
    assert np.array_equal(scores[0], scores[1])
    assert np.array_equal(scores[0], scores[2])
    owner[names[0]] = "../whole/model.safetensors"
    index.write_text(json.dumps({"weight_map": owner}))
    with pytest.raises(FileFormatError, match="outside the folder"):
        rustllm.load_model(parts)


@pytest.mark.parametrize(
    ("changes", "error", "key"),
    [
        ({"model_type": "no-such"}, UnsupportedError, "model_type"),
        ({"model_type": ...}, ModelError, "model_type"),
        ({"hidden_size": ...}, ModelError, "hidden_size"),
        ({"hidden_size": "32"}, ModelError, "hidden_size"),
        ({"hidden_size": 32.0}, ModelError, "hidden_size"),
        ({"hidden_size": True}, ModelError, "hidden_size"),
        ({"num_attention_heads": 0}, ModelError, "num_attention_heads"),
        ({"num_attention_heads": 5}, ModelError, "num_attention_heads"),
        ({"num_key_value_heads": 0}, ModelError, "n_kv_heads"),
        ({"num_key_value_heads": 3}, ModelError, "n_kv_heads"),
        ({"num_hidden_layers": 10**9}, ModelError, "n_layers"),
        ({"vocab_size": 10**12}, ModelError, "n_vocab"),
        ({"max_position_embeddings": 0}, ModelError, "n_ctx"),
        ({"rms_norm_eps": -1}, ModelError, "norm_eps"),
        ({"rope_theta": 0}, ModelError, "rope_theta"),
        ({"hidden_act": "relu"}, UnsupportedError, "hidden_act"),
        ({"attention_bias": 1}, ModelError, "attention_bias"),
        ({"quantization_config": {"bits": 4}}, UnsupportedError, "quantization_config"),
        ({"rope_scaling": {"type": "ntk-by-ear"}}, UnsupportedError, "rope_scaling"),
        ({"rope_scaling": {"type": "linear"}}, ModelError, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, ModelError, "factor"),
        ({"rope_scaling": [1]}, ModelError, "rope_scaling"),
        ({"rope_scaling": {"type": "longrope"}}, ModelError, "short_factor"),
        ({"partial_rotary_factor": 0.4}, ModelError, "partial_rotary_factor"),
    ],
)
def test_a_configuration_that_cannot_be_names_its_key(tmp_path, changes, error, key):
    with pytest.raises(error) as caught:
        rustllm.load_model(write_folder(tmp_path, **changes))
    assert caught.value.fields["key"] == key
    assert caught.value.fields["path"].endswith("config.json")


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"\xff{}", b"[" * 100_000])
def test_what_is_no_configuration_is_refused(tmp_path, text):
    write_folder(tmp_path)
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(FileFormatError, match="JSON"):
        rustllm.load_model(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileMissingError, match="config.json"):
        rustllm.load_model(tmp_path)
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileMissingError, match="safetensors"):
        rustllm.load_model(tmp_path)


DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (lambda t: t.pop(DOWN), "blk.1.ffn_down.weight", "needs this tensor"),
        (lambda t: t.update(extra=t[DOWN]), "extra", "no use for this tensor"),
        (lambda t: t.update({DOWN: t[DOWN].T.copy()}), DOWN, "imply"),
        (lambda t: t.update({DOWN: t[DOWN].ravel()}), DOWN, "imply"),
        (lambda t: t.update({DOWN: t[DOWN].astype(np.int32)}), DOWN, "not supported"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, name, message):
    tensors = llama_tensors()
    change(tensors)
    with pytest.raises(RustLLMError, match=message) as caught:
        rustllm.load_model(write_folder(tmp_path, tensors))
    assert caught.value.fields["tensor"] == name


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", [DOWN, "model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"]
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_weight_that_is_not_finite_is_found_at_load(tmp_path, name, bad, dtype):
    tensors = llama_tensors()
    tensors[name].flat[-1] = bad
    if dtype == "bfloat16":
        tensors = {n: (t.view(np.uint32) >> 16).astype(np.uint16) for n, t in tensors.items()}
    else:
        tensors = {n: t.astype(dtype) for n, t in tensors.items()}
    with pytest.raises(TensorError, match="is not finite") as caught:
        rustllm.load_model(write_folder(tmp_path, tensors))
    assert caught.value.fields["tensor"] == name


def test_a_refused_call_leaves_the_state_usable(tmp_path):
    model = rustllm.load_model(write_folder(tmp_path), threads=2)
    state = model.new_state(8)
    model.forward([1, 2, 3], state)
    expected = model.forward([4], state.fork())
    for ids, error in (([40], OutOfRangeError), ([1] * 6, ContextLengthError)):
        with pytest.raises(error):
            model.forward(ids, state)
        assert state.position == 3
    assert np.array_equal(model.forward([4], state), expected)


def test_a_template_and_special_tokens_come_from_the_folder(tmp_path):
    tokens = [*"abcdefghijklmnopqrstuvwxyz", "<s>", "</s>"]
    added = [
        {"id": i, "content": tokens[i], "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i in (26, 27)
    ]
    template = {"id": "<s>", "ids": [26], "tokens": ["<s>"]}
    sequence = [{"Sequence": {"id": "A", "type_id": 0}}]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        | {"trim_offsets": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, *sequence],
            "pair": [*sequence, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": template},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
        | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: id for id, token in enumerate(tokens)},
            "merges": [],
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    told = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**told, "chat_template": "{{ bos_token }}{{ messages[0].content }}"})
    )
    model = rustllm.load_model(write_folder(tmp_path), threads=1)
    assert model.has_chat_template
    assert model.format_chat([{"role": "user", "content": "hi"}]) == "<s>hi"
    assert 27 in model.end_ids
    assert model._encode_prompt("ab") == [26, 0, 1]
    (tmp_path / "chat_template.jinja").write_text("<{{ messages[0].content }}>{{ eos_token }}")
    model = rustllm.load_model(tmp_path, threads=1)
    assert model.format_chat([{"role": "user", "content": "hi"}]) == "<hi></s>"


def test_inspect_shows_a_folder(tmp_path, capsys):
    from rustllm.cli import main

    write_folder(tmp_path)
    assert main(["inspect", "--plan", "--tensors", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "model_type: 'llama'" in text
    assert DOWN in text
    assert "logits = linear(last_in)  [output.weight]" in text
    assert main(["inspect", "--json", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file_bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert told["metadata"]["hidden_size"] == 32

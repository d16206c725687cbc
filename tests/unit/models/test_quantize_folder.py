"""Folders of safetensors written as GGUF: every block type, the same model read back."""

import json

import numpy as np
import pytest

import rustllm
from rustllm._core import quant
from rustllm.cli import main
from rustllm.errors import (
    ArgumentError,
    FileFormatError,
    FileMissingError,
    TensorError,
    UnsupportedError,
)
from rustllm.loaders.gguf import GGUFFile
from rustllm.models.quantize import quantize_model
from rustllm.models.weights import PACKABLE
from rustllm.tokenizers import save_tokenizer

from .test_hf_folder import CONFIG, write_folder, write_safetensors

WIDE = {
    "vocab_size": 300,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
IDS = np.random.default_rng(5).integers(0, 300, 40)


def wide_tensors(dtype=np.float32):
    rng = np.random.default_rng(11)
    shapes = {"model.embed_tokens": (300, 256), "lm_head": (300, 256), "model.norm": (256,)}
    for i in range(2):
        for name, shape in {
            "input_layernorm": (256,),
            "self_attn.q_proj": (256, 256),
            "self_attn.k_proj": (128, 256),
            "self_attn.v_proj": (128, 256),
            "self_attn.o_proj": (256, 256),
            "post_attention_layernorm": (256,),
            "mlp.gate_proj": (512, 256),
            "mlp.up_proj": (512, 256),
            "mlp.down_proj": (256, 512),
        }.items():
            shapes[f"model.layers.{i}.{name}"] = shape
    return {
        f"{name}.weight": (rng.standard_normal(shape) * 0.1).astype(dtype)
        for name, shape in shapes.items()
    }


def rounded(tensors, type_name):
    """The weights as blocks of the type stand for them; rows are quantized one by one."""
    out = {}
    for name, values in tensors.items():
        if values.ndim == 2:
            kind = "Q6_K" if name == "lm_head.weight" and type_name not in WHOLE else type_name
            blocks = quant.quantize(values, kind)
            values = quant.dequantize(blocks, kind).reshape(values.shape)
        out[name] = values
    return out


WHOLE = ("F32", "F16", "BF16", "Q8_0")


def scores(path, **options):
    model = rustllm.load_model(path, threads=2, exact=True, **options)
    return model.forward(IDS, model.new_state(), logits="all")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("wide"), wide_tensors(), **WIDE)


@pytest.mark.parametrize("type_name", PACKABLE)
def test_every_block_type_is_the_model_with_rounded_weights(tmp_path, wide, type_name):
    target = tmp_path / "model.gguf"
    report = quantize_model(wide, target, type_name.lower(), tokenizer=False)
    assert report.types[type_name] >= 14 and report.written_bytes == target.stat().st_size
    (tmp_path / "rounded").mkdir()
    expected = scores(
        write_folder(tmp_path / "rounded", rounded(wide_tensors(), type_name), **WIDE)
    )
    got = scores(target)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)
    assert np.abs(expected).max() > 0.5
    with GGUFFile(target, strict=True) as file:
        assert file.tensors["blk.1.ffn_down.weight"].type_name == type_name
        assert file.tensors["blk.1.ffn_norm.weight"].type_name == "F32"


def test_shards_and_half_precision_and_threads_give_the_same_file(tmp_path, wide):
    tensors = wide_tensors(np.float16)
    whole = tmp_path / "whole"
    parts = tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        write_folder(folder, tensors, **WIDE, _name_or_path="wide")
    (parts / "model.safetensors").unlink()
    owner = {}
    for i in range(3):
        file = f"model-{i}.safetensors"
        write_safetensors(parts / file, {n: tensors[n] for n in list(tensors)[i::3]})
        owner.update(dict.fromkeys(list(tensors)[i::3], file))
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": owner}))
    files = []
    for i, (folder, n) in enumerate(((whole, 1), (parts, 1), (parts, 3))):
        files.append(tmp_path / f"{i}.gguf")
        quantize_model(folder, files[-1], "Q5_K", tokenizer=False, num_threads=n)
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()


def test_the_tokenizer_and_what_ends_a_text_go_along(tmp_path):
    trained = rustllm.BpeTrainer(290, special_tokens=["<s>", "</s>"]).train(
        ["low lower lowest, wide wider widest"] * 4
    )
    folder = write_folder(tmp_path, wide_tensors(), **WIDE)
    save_tokenizer(trained, folder / "tokenizer.json")
    special = rustllm.load_tokenizer(folder / "tokenizer.json").special_tokens
    (folder / "config.json").write_text(
        json.dumps({**CONFIG, **WIDE, "eos_token_id": special["</s>"]})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "eos_token": "</s>",
                "bos_token": "<s>",
                "add_bos_token": True,
                "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
            }
        )
    )
    target = tmp_path / "model.gguf"
    quantize_model(folder, target, "Q8_0")
    a, b = rustllm.load_model(folder, threads=1), rustllm.load_model(target, threads=1)
    for text in ("the lowest width", "wider <s> and lower", "ünï \n\n  code"):
        assert list(a.tokenizer.encode(text, allowed_special="all")) == list(
            b.tokenizer.encode(text, allowed_special="all")
        )
    assert a.end_ids == b.end_ids == {special["</s>"]}
    assert a._bos_id == b._bos_id == special["<s>"]
    with GGUFFile(target) as file:
        assert len(file.metadata["tokenizer.ggml.tokens"]) == 300  # one a row of the embedding
        assert "content" in file.metadata["tokenizer.chat_template"]
    assert a._encode_prompt("wide") == b._encode_prompt("wide")


def test_a_folder_without_a_tokenizer_says_so(tmp_path, wide):
    with pytest.raises((FileMissingError, UnsupportedError, FileFormatError), match="tokenizer"):
        quantize_model(wide, tmp_path / "model.gguf", "Q8_0")
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_left_over_or_not_finite_is_named_and_leaves_no_file(tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    lacking, poisoned = wide_tensors(), wide_tensors()
    del lacking[name]
    poisoned[name][3, 4] = np.nan
    surplus = {**wide_tensors(), "model.layers.9.extra.weight": np.ones((4, 4), np.float32)}
    target = tmp_path / "model.gguf"
    for tensors, error in (
        (lacking, TensorError),
        (surplus, TensorError),
        (poisoned, FileFormatError),
    ):
        folder = write_folder(tmp_path, tensors, **WIDE)
        with pytest.raises(error) as caught:
            quantize_model(folder, target, "Q4_0", tokenizer=False)
        assert "blk.1.ffn_up" in str(caught.value) or "extra" in str(caught.value)
        assert not target.exists()


def test_arguments_that_cannot_be_are_refused_first(tmp_path, wide):
    with pytest.raises(ArgumentError, match="not a type"):
        quantize_model(wide, tmp_path / "a.gguf", "Q9_9", tokenizer=False)
    with pytest.raises(ArgumentError, match="folder"):
        quantize_model(wide, tmp_path, "Q8_0", tokenizer=False)
    with pytest.raises(FileMissingError):
        quantize_model(tmp_path / "none", tmp_path / "a.gguf", "Q8_0")
    with pytest.raises(FileMissingError):
        quantize_model(tmp_path, tmp_path / "a.gguf", "Q8_0")


def test_the_command_line(tmp_path, wide, capsys):
    target = tmp_path / "model.gguf"
    assert main(["quantize", str(wide), str(target), "q6_k", "--no-tokenizer", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["types"]["Q6_K"] == 16 and told["written_bytes"] == target.stat().st_size
    assert main(["quantize", str(target), str(tmp_path / "b.gguf"), "q4_0"]) == 0
    assert "MB ->" in capsys.readouterr().out
    assert main(["quantize", str(wide), str(target), "q8_0"]) != 0
    assert capsys.readouterr().err.startswith("rustllm: error:")

"""Files that we write: read back equal, by us and by the reference, and never half there."""

import os

import gguf_bytes as raw
import numpy as np
import pytest

from rustllm.errors import ArgumentError, FileAccessError, FileFormatError, FileMissingError
from rustllm.loaders.gguf import GGUFFile
from rustllm.loaders.gguf_quantize import quantize_file
from rustllm.loaders.gguf_writer import TensorSource, Typed, write_gguf

VALUES = {
    "general.architecture": "demo",
    "demo.yes": True,
    "demo.count": 7,
    "demo.below": -7,
    "demo.large": 2**40,
    "demo.real": 0.5,
    "demo.byte": np.uint8(3),
    "demo.double": Typed("f64", 0.1),
    "demo.words": ["a", "grüße", ""],
    "demo.numbers": [1, -2, 3],
    "demo.array": np.array([0.5, 1.5], np.float32),
    "demo.flags": np.array([True, False]),
    "demo.none": Typed("[u64]", []),
}
TYPES = ["str", "bool", "u32", "i32", "u64", "f32", "u8", "f64", "[str]", "[i32]", "[f32]"]
TYPES += ["[bool]", "[u64]"]


def plain(value):
    value = value.value if isinstance(value, Typed) else value
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [32, 64])
def test_what_is_written_is_read_back(tmp_path, version, alignment):
    arrays = {
        dtype: np.arange(6, dtype=dtype).reshape(2, 3)
        for dtype in ("f4", "f2", "f8", "i1", "i2", "i4", "i8")
    }
    path = tmp_path / "a.gguf"
    size = write_gguf(path, VALUES, arrays, alignment=alignment, version=version)
    assert size == path.stat().st_size
    with GGUFFile(path, strict=True) as file:
        assert (file.version, file.alignment) == (version, alignment)
        for (key, value), kind in zip(VALUES.items(), TYPES, strict=True):
            read = file.metadata[key]
            assert file.metadata_type(key) == kind
            assert plain(read) == plain(value) or list(read) == plain(value)
        for name, array in arrays.items():
            assert np.array_equal(file.tensors[name].array(), array)


def test_a_list_of_strings_that_was_read_is_written_again(tmp_path):
    write_gguf(tmp_path / "a.gguf", {"demo.words": VALUES["demo.words"]}, {})
    with GGUFFile(tmp_path / "a.gguf") as file:
        write_gguf(tmp_path / "b.gguf", {"demo.again": file.metadata["demo.words"]}, {})
    with GGUFFile(tmp_path / "b.gguf") as file:
        assert file.metadata_type("demo.again") == "[str]"
        assert list(file.metadata["demo.again"]) == VALUES["demo.words"]


def test_the_reference_reader_reads_it(tmp_path):
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "a.gguf"
    blocks = bytes(34 * 4)
    source = TensorSource("Q8_0", (2, 64), lambda: iter([blocks[:34], blocks[34:]]))
    write_gguf(path, VALUES, {"q": source, "w": np.ones((3, 5), np.float32)})
    reader = gguf.GGUFReader(path)
    assert [t.name for t in reader.tensors] == ["q", "w"]
    assert reader.tensors[0].tensor_type == gguf.GGMLQuantizationType.Q8_0
    assert reader.tensors[1].data.tolist() == np.ones((3, 5)).tolist()
    assert reader.get_field("demo.words").contents() == ["a", "grüße", ""]
    del reader


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({"": 1}, {}, "cannot be a key"),
        ({"a b": 1}, {}, "cannot be a key"),
        ({"é": 1}, {}, "cannot be a key"),
        ({"k": None}, {}, "has no GGUF type"),
        ({"k": []}, {}, "has no GGUF type"),
        ({"k": [1, "a"]}, {}, "has no GGUF type"),
        ({"k": 2**64}, {}, "cannot be stored"),
        ({"k": Typed("u8", 256)}, {}, "cannot be stored"),
        ({"k": Typed("[u8]", [256])}, {}, "cannot be stored"),
        ({"k": Typed("u24", 1)}, {}, "cannot be stored"),
        ({"k": np.zeros((2, 2), np.float32)}, {}, "cannot be stored"),
        ({"k": np.array([1j])}, {}, "cannot be stored"),
        ({}, {"n" * 64: np.zeros(1, np.float32)}, "cannot name a tensor"),
        ({}, {"": np.zeros(1, np.float32)}, "cannot name a tensor"),
        ({}, {"w": np.zeros((1,) * 5, np.float32)}, "1 to 4 dimensions"),
        ({}, {"w": np.float32(1)}, "1 to 4 dimensions"),
        ({}, {"w": np.zeros((0, 2), np.float32)}, "1 to 4 dimensions"),
        ({}, {"w": np.zeros(2, np.uint8)}, "TensorSource"),
        ({}, {"w": TensorSource("Q4_0", (31,), b"")}, "whole blocks"),
        ({}, {"w": TensorSource("Q9", (32,), b"")}, "not supported"),
        ({}, {"w": TensorSource("Q4_0", (32,), bytes(17))}, "gave 17"),
        ({}, {"w": TensorSource("Q4_0", (32,), bytes(19))}, "gave at least 19"),
    ],
)
def test_what_the_format_cannot_say_is_refused_and_leaves_nothing(
    tmp_path, metadata, tensors, message
):
    with pytest.raises(ArgumentError, match=message):
        write_gguf(tmp_path / "a.gguf", metadata, tensors)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_version_or_alignment_is_refused(tmp_path):
    for more in ({"version": 1}, {"alignment": 13}, {"alignment": 4}, {"alignment": 2**21}):
        with pytest.raises(ArgumentError):
            write_gguf(tmp_path / "a.gguf", {}, {}, **more)


def test_an_error_on_the_way_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"old")

    def broken():
        yield bytes(18)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(path, {}, {"w": TensorSource("Q4_0", (64,), broken)})
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]


def test_a_folder_that_is_not_there_and_a_full_disk(tmp_path):
    with pytest.raises(FileMissingError):
        write_gguf(tmp_path / "none" / "a.gguf", {}, {})

    def full():
        raise OSError(28, os.strerror(28))
        yield b""

    with pytest.raises(FileAccessError, match="No space left") as told:
        write_gguf(tmp_path / "a.gguf", {}, {"w": TensorSource("Q4_0", (32,), full)})
    assert told.value.errno == 28
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def model(tmp_path):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    path = tmp_path / "model.gguf"
    tensors = {
        "token_embd.weight": normal(40, 512),
        "blk.0.attn_q.weight": normal(512, 512),
        "blk.0.ffn_down.weight": normal(512, 288),
        "blk.0.odd.weight": normal(4, 30),
        "blk.0.ffn_gate_inp.weight": normal(8, 512),
        "blk.0.attn_norm.weight": normal(512),
    }
    write_gguf(path, {"general.architecture": "demo", "demo.words": ["x", "y"]}, tensors)
    return path, tensors


def test_quantizing_chooses_types_by_shape_and_role(tmp_path, model):
    path, tensors = model
    out = tmp_path / "out.gguf"
    calls = []
    report = quantize_file(path, out, "q4_k_m", progress=lambda *a: calls.append(a))
    total = sum(t.nbytes for t in tensors.values())
    assert calls[-1] == ("blk.0.attn_norm.weight", total, total)
    assert report.written_bytes == out.stat().st_size
    with GGUFFile(out, strict=True) as file:
        assert {name: t.type_name for name, t in file.tensors.items()} == {
            "token_embd.weight": "Q6_K",  # it is the head as well
            "blk.0.attn_q.weight": "Q4_K",
            "blk.0.ffn_down.weight": "Q5_0",  # 288 is not a multiple of 256
            "blk.0.odd.weight": "F16",
            "blk.0.ffn_gate_inp.weight": "F32",
            "blk.0.attn_norm.weight": "F32",
        }
        assert file.metadata["general.file_type"] == 15
        assert file.metadata["demo.words"] == ["x", "y"]
        for name, tensor in tensors.items():
            back = file.tensors[name].dequantize()
            assert np.sqrt(np.mean((back - tensor) ** 2)) < 0.08


def test_the_head_is_as_low_as_the_rest_when_pure(tmp_path, model):
    quantize_file(model[0], tmp_path / "out.gguf", "Q4_0", pure=True)
    with GGUFFile(tmp_path / "out.gguf") as file:
        assert file.tensors["token_embd.weight"].type_name == "Q4_0"


def test_the_number_of_threads_does_not_show(tmp_path, model, monkeypatch):
    monkeypatch.setattr("rustllm.loaders.gguf_quantize._CHUNK", 4096)
    for n in (1, 3):
        quantize_file(model[0], tmp_path / f"{n}.gguf", "Q4_K", num_threads=n)
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "3.gguf").read_bytes()


def test_quantizing_to_the_same_type_copies(tmp_path, model):
    once, twice = tmp_path / "1.gguf", tmp_path / "2.gguf"
    quantize_file(model[0], once, "Q8_0")
    quantize_file(once, twice, "Q8_0")
    assert once.read_bytes() == twice.read_bytes()


def test_what_cannot_be_quantized_names_the_tensor_and_leaves_nothing(tmp_path):
    info = [raw.tensor("w.weight", [32, 2], 0, 0)]
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(raw.gguf((), info, np.full(64, np.nan, np.float32).tobytes()))
    with pytest.raises(FileFormatError, match="NaN") as told:
        quantize_file(bad, tmp_path / "out.gguf", "Q4_0")
    assert told.value.tensor == "w.weight"
    with pytest.raises(ArgumentError, match="not a type"):
        quantize_file(bad, tmp_path / "out.gguf", "Q4_9")
    with pytest.raises(ArgumentError, match="same file"):
        quantize_file(bad, bad, "Q4_0")
    assert list(tmp_path.iterdir()) == [bad]

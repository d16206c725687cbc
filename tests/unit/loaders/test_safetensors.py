"""safetensors: what is right is read as the reference reads it, what is wrong is refused."""

import json
import struct

import numpy as np
import pytest

from rustllm.errors import (
    FileFormatError,
    FileMissingError,
    RustLLMError,
    StateError,
    TruncatedFileError,
    UnsupportedError,
)
from rustllm.loaders.safetensors import SafetensorsFile, SafetensorsFolder

F, T, U = FileFormatError, TruncatedFileError, UnsupportedError


def file(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_every_type_is_read_as_the_reference_reads_it(tmp_path):
    reference = pytest.importorskip("safetensors.numpy")
    arrays = {
        dtype: np.arange(6, dtype=dtype).reshape(2, 3)
        for dtype in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
    }
    arrays["bool"] = np.array([True, False])
    arrays["scalar"] = np.array(3, np.float32)
    arrays["empty"] = np.zeros((0, 4), np.float32)
    path = tmp_path / "all.safetensors"
    reference.save_file(arrays, path, metadata={"format": "np"})
    for mmap in (True, False):
        with SafetensorsFile(path, mmap=mmap) as ours:
            assert dict(ours.metadata) == {"format": "np"}
            assert set(ours.tensors) == set(arrays)
            for name, array in reference.load_file(path).items():
                mine = ours.tensors[name]
                assert mine.dtype == array.dtype
                assert mine.shape == array.shape
                assert np.array_equal(mine, array)
                assert not mine.flags.writeable


def test_bfloat16_is_its_bits_and_converts_exactly():
    bits = np.array([0x3F80, 0xC000], np.uint16)
    told = SafetensorsFile.from_buffer(file({"w": entry(0, 4, [2], "BF16")}, bits.tobytes()))
    assert told.info["w"].dtype_name == "BF16"
    assert told.tensors["w"].tolist() == [0x3F80, 0xC000]
    assert told.info["w"].to_float32().tolist() == [1.0, -2.0]


def test_views_outlive_the_file(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(file({"w": entry(0, 8, [2])}, np.float32([1, 2]).tobytes()))
    opened = SafetensorsFile(path)
    view = opened.tensors["w"]
    assert np.shares_memory(view, opened.info["w"].data)
    opened.close()
    assert view.tolist() == [1, 2]
    with pytest.raises(StateError):
        _ = opened.tensors


def test_a_header_may_end_in_spaces_and_tensors_stand_in_any_order():
    header = json.dumps({"b": entry(4, 8, [1]), "a": entry(0, 4, [1])}).encode() + b"   "
    assert list(SafetensorsFile.from_buffer(file(header, bytes(8))).tensors) == ["a", "b"]


DEEP = b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}"
BAD = {
    "empty": (b"", T, "at least 8"),
    "seven bytes": (bytes(7), T, "at least 8"),
    "header past the end": (file({}, length=100), T, "ends after 2"),
    "header too large": (file({}, length=100_000_001), F, "at most"),
    "header length wraps": (file({}, length=2**64 - 1), F, "at most"),
    "no header": (file(b""), F, "begin with"),
    "leading space": (file(b" {}"), F, "begin with"),
    "an array": (file(b"[]"), F, "begin with"),
    "not JSON": (file(b"{nope}"), F, "not valid JSON"),
    "two values": (file(b"{}{}"), F, "not valid JSON"),
    "not UTF-8": (file(b'{"\xff":1}'), F, "UTF-8"),
    "duplicate tensor": (
        file(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{}}'),
        F,
        "twice",
    ),
    "duplicate field": (
        file(b'{"a":{"dtype":"F32","dtype":"F16","shape":[0],"data_offsets":[0,0]}}'),
        F,
        "twice",
    ),
    "nested": (file(DEEP), F, "deeply"),
    "huge number": (file(b'{"a":' + b"9" * 5000 + b"}"), F, "not valid"),
    "metadata of numbers": (file({"__metadata__": {"a": 1}}), F, "__metadata__"),
    "metadata is a list": (file({"__metadata__": []}), F, "__metadata__"),
    "entry is a number": (file({"a": 1}), F, "entry"),
    "entry lacks a field": (file({"a": {"dtype": "F32", "shape": []}}), F, "entry"),
    "surplus field": (file({"a": entry(0, 0, [0]) | {"x": 1}}), F, "entry"),
    "unknown type": (file({"a": entry(0, 4, [1], "Q4")}, bytes(4)), U, "Q4"),
    "type is a list": (file({"a": entry(0, 4, [1], ["F32"])}, bytes(4)), U, "not supported"),
    "negative dimension": (file({"a": entry(0, 4, [-1])}, bytes(4)), F, "counts"),
    "dimension of one half": (file({"a": entry(0, 4, [0.5])}, bytes(4)), F, "not an integer"),
    "dimension is true": (file({"a": entry(0, 4, [True])}, bytes(4)), F, "counts"),
    "NaN": (file(b'{"a":NaN}'), F, "not an integer"),
    "three offsets": (
        file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, bytes(4)),
        F,
        "two counts",
    ),
    "product wraps": (file({"a": entry(0, 4, [2**32, 2**32])}, bytes(4)), F, "2^63"),
    "packed elements": (file({"a": entry(0, 1, [3], "F4")}, b"a"), F, "whole bytes"),
    "ends before it begins": (file({"a": entry(8, 4, [1])}, bytes(8)), F, "before it begins"),
    "size differs from shape": (file({"a": entry(0, 8, [1])}, bytes(8)), F, "takes 4 bytes"),
    "past the end": (file({"a": entry(0, 8, [2])}, bytes(4)), T, "past"),
    "hole at the start": (file({"a": entry(4, 8, [1])}, bytes(8)), F, "unused"),
    "hole": (file({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12)), F, "unused"),
    "overlap": (file({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, bytes(4)), F, "overlaps"),
    "tail": (file({"a": entry(0, 4, [1])}, bytes(5)), F, "1 bytes after"),
    "tail without tensors": (file({}, b"PK"), F, "2 bytes after"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name):
    data, error, message = BAD[name]
    with pytest.raises(error) as told:
        SafetensorsFile.from_buffer(data, path="bad.safetensors")
    assert message in str(told.value)
    assert told.value.path == "bad.safetensors"


def test_every_truncation_and_every_byte_change_is_refused_or_loads():
    header = {
        "__metadata__": {"k": "v"},
        "a": entry(0, 8, [2]),
        "b": entry(8, 12, [2, 3, 1], "F16"),
    }
    header["b"]["data_offsets"][1] = 20
    data = bytearray(file(header, bytes(20)))
    SafetensorsFile.from_buffer(bytes(data))
    for n in range(len(data)):
        with pytest.raises(RustLLMError):
            SafetensorsFile.from_buffer(bytes(data[:n]))
    for place in range(len(data) - 20):
        kept = data[place]
        for value in (0, 255, kept ^ 1, ord("9"), ord('"')):
            data[place] = value
            try:
                opened = SafetensorsFile.from_buffer(bytes(data))
                for array in opened.tensors.values():
                    array.sum()
            except RustLLMError:
                pass
        data[place] = kept


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for i, name in enumerate(("a", "b")):
        data = np.float32([i]).tobytes()
        (folder / f"{name}.safetensors").write_bytes(file({name: entry(0, 4, [1])}, data))
    return folder


def index(folder, weight_map):
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_are_read_as_one(folder):
    index(folder, {"a": "a.safetensors", "b": "b.safetensors"})
    with SafetensorsFolder(folder) as model:
        assert set(model.files) == {"a.safetensors", "b.safetensors"}
        assert {name: array[0] for name, array in model.tensors.items()} == {"a": 0, "b": 1}
    with SafetensorsFolder(folder / "model.safetensors.index.json") as model:
        assert len(model.info) == 2


def test_a_single_file_needs_no_index(folder):
    with pytest.raises(FileMissingError, match="2 safetensors files"):
        SafetensorsFolder(folder)
    (folder / "b.safetensors").unlink()
    assert list(SafetensorsFolder(folder).tensors) == ["a"]


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/etc/passwd", "x/../../a.safetensors", "..\\a", "a\0b"]
)
def test_an_index_that_leaves_the_folder_is_refused(folder, name):
    index(folder, {"a": name})
    with pytest.raises(F, match="outside"):
        SafetensorsFolder(folder)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes((folder / "a.safetensors").read_bytes())
    (folder / "link.safetensors").symlink_to(secret)
    index(folder, {"a": "link.safetensors"})
    with pytest.raises(F, match="outside"):
        SafetensorsFolder(folder)


def test_links_of_a_model_cache_are_followed(tmp_path):
    blobs = tmp_path / "models--x" / "blobs"
    snapshot = tmp_path / "models--x" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "0").write_bytes(file({"a": entry(0, 4, [1])}, bytes(4)))
    (snapshot / "m.safetensors").symlink_to(blobs / "0")
    index(snapshot, {"a": "m.safetensors"})
    assert list(SafetensorsFolder(snapshot).tensors) == ["a"]


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "b.safetensors", "b": "b.safetensors"}, "not in its file"),
        ({"a": "a.safetensors", "c": "a.safetensors"}, "not in its file"),
        ({"b": "a.safetensors"}, "the index says"),
        ({}, "no weight_map"),
        ({"a": 1}, "file names"),
        ([], "no weight_map"),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(folder, weight_map, message):
    index(folder, weight_map)
    with pytest.raises(F, match=message):
        SafetensorsFolder(folder)

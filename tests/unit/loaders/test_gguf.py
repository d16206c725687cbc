"""GGUF files that are as they should be."""

import gc
import hashlib
import mmap
import os
import threading
import weakref

import gguf_bytes as raw
import numpy as np
import pytest

from rustllm.errors import (
    FileAccessError,
    FileMissingError,
    OutOfRangeError,
    StateError,
    TruncatedFileError,
    UnsupportedError,
)
from rustllm.loaders.gguf import GGUFFile
from rustllm.loaders.string_array import StringArray


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "small.gguf"
    path.write_bytes(raw.small())
    return path


@pytest.mark.parametrize("how", [{}, {"mmap": False}, {"strict": True}])
def test_every_kind_of_value_is_read(path, how):
    with GGUFFile(path, **how) as file:
        meta = file.metadata
        assert (file.version, file.alignment, file.architecture) == (3, 32, "demo")
        assert (meta["demo.u8"], meta["demo.i8"]) == (255, -128)
        assert (meta["demo.u16"], meta["demo.i16"]) == (65535, -32768)
        assert (meta["demo.u32"], meta["demo.i32"]) == (2**32 - 1, -(2**31))
        assert (meta["demo.u64"], meta["demo.i64"]) == (2**64 - 1, -(2**63))
        assert (meta["demo.f32"], meta["demo.f64"]) == (0.5, 0.1)
        assert meta["demo.yes"] is True
        assert meta["demo.no"] is False
        assert (meta["demo.text"], meta["demo.empty"]) == ("grüße", "")
        assert meta["demo.flags"].dtype == bool
        assert meta["demo.flags"].tolist() == [True, False, True]
        assert meta["demo.none"].shape == (0,)
        for kind, dtype in zip(
            (
                raw.U8,
                raw.I8,
                raw.U16,
                raw.I16,
                raw.U32,
                raw.I32,
                raw.F32,
                raw.U64,
                raw.I64,
                raw.F64,
            ),
            ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "u8", "i8", "f8"),
            strict=True,
        ):
            values = meta[f"demo.list.{kind}"]
            assert values.dtype == np.dtype(dtype)
            assert values.tolist() == [1, 2, 3]
            assert not values.flags.writeable
        assert file.metadata_type("demo.u8") == "u8"
        assert file.metadata_type("demo.list.6") == "[f32]"
        assert file.problems == ()


def test_tensors_keep_the_order_and_have_rows_first(path):
    with GGUFFile(path) as file:
        assert list(file.tensors) == ["token_embd.weight", "norm.weight", "half"]
        quantized = file.tensors["token_embd.weight"]
        assert (quantized.shape, quantized.type_id, quantized.type_name) == ((5, 32), 8, "Q8_0")
        assert (quantized.n_elements, quantized.n_bytes) == (160, 170)
        assert quantized.dequantize().tolist() == [[0.5 * i for i in range(32)]] * 5
        assert file.tensors["norm.weight"].array().tolist() == list(range(32))
        assert file.tensors["half"].array().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
        with pytest.raises(UnsupportedError, match="Q8_0 has no numpy type"):
            quantized.array()


def test_views_are_zero_copy_and_read_only(path):
    with GGUFFile(path) as file:
        data = file.tensors["half"].data
        assert np.shares_memory(data, file.tensors["half"].array())
        assert data.base is not None
        with pytest.raises(ValueError, match="read-only"):
            data[0] = 1


def test_views_outlive_the_file_and_the_file_answers_no_more(path):
    file = GGUFFile(path)
    tensor = file.tensors["norm.weight"]
    view = tensor.array()
    numbers = file.metadata["demo.list.6"]
    file.close()
    file.close()
    path.unlink()
    assert file.closed
    assert view.tolist() == list(range(32))
    assert numbers.tolist() == [1, 2, 3]
    for use in (lambda: file.metadata, lambda: file.tensors, lambda: tensor.data, file.sha256):
        with pytest.raises(StateError, match="closed"):
            use()


def test_the_mapping_goes_with_its_last_owner(path):
    file = GGUFFile(path)
    mapping = weakref.ref(file._file._map)
    tensor = file.tensors["half"]
    del file
    assert mapping() is not None
    view = tensor.data
    del tensor
    assert mapping() is not None
    assert view.size == 16
    del view
    gc.collect()
    assert mapping() is None


def test_a_private_copy_does_not_see_later_changes(path):
    file = GGUFFile(path, mmap=False)
    path.write_bytes(b"")
    assert file.tensors["norm.weight"].array()[31] == 31


def test_a_mapped_file_that_shrank_is_refused_before_it_is_touched(path):
    file = GGUFFile(path)
    os.truncate(path, 100)
    with pytest.raises(TruncatedFileError, match="shrank"):
        _ = file.tensors["norm.weight"].data


def test_memory_that_is_given_back_is_read_again(tmp_path):
    n = 4 * mmap.PAGESIZE
    info = [raw.tensor("w", [n], raw.I8 + 23, 0)]
    path = tmp_path / "big.gguf"
    path.write_bytes(raw.gguf((), info, bytes(range(256)) * (n // 256)))
    with GGUFFile(path) as file:
        tensor = file.tensors["w"]
        before = tensor.data.copy()
        tensor.give_back()
        tensor.will_need()
        assert np.array_equal(tensor.data, before)
        tensor.give_back()
        assert file.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_strings_decode_on_demand(path):
    with GGUFFile(path) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
        assert isinstance(tokens, StringArray)
        assert tokens.n == len(tokens) == 5
        assert tokens[3] == "ab"
        assert tokens[-1] == "<0x0A>"
        assert tokens.bytes_at(0) == b"<unk>"
        assert list(tokens) == tokens.as_list() == ["<unk>", "a", "b", "ab", "<0x0A>"]
        assert tokens[1:3] == ["a", "b"]
        assert tokens.as_bytes_list()[1] == b"a"
        assert "ab" in tokens
        start, length = int(tokens.offsets[3]), int(tokens.lengths[3])
        assert tokens.buffer[start : start + length].tobytes() == b"ab"
        with pytest.raises(OutOfRangeError):
            tokens[5]


def test_a_buffer_in_memory_opens_as_a_file_does():
    file = GGUFFile.from_buffer(raw.small())
    assert file.tensors["half"].array()[1, 3] == 7


def test_versions_2_and_an_own_alignment_are_read():
    fields = [raw.field("general.alignment", raw.U32, 64)]
    info = [raw.tensor("a", [2], 0, 0), raw.tensor("b", [2], 0, 64)]
    data = raw.gguf(fields, info, bytes(64) + bytes(64), version=2, align=64)
    file = GGUFFile.from_buffer(data, strict=False)
    assert (file.version, file.alignment) == (2, 64)
    assert file.data_start % 64 == 0


def test_a_file_may_have_a_vocabulary_only():
    fields = [raw.field("general.architecture", raw.STR, "demo")]
    assert GGUFFile.from_buffer(raw.gguf(fields)).tensors == {}


def test_the_last_tensor_needs_no_padding():
    data = raw.gguf((), [raw.tensor("a", [3], 0, 0)], bytes(12))
    assert GGUFFile.from_buffer(data).problems == ()


def test_missing_and_odd_paths(tmp_path):
    with pytest.raises(FileMissingError) as told:
        GGUFFile(tmp_path / "none.gguf")
    assert told.value.path.endswith("none.gguf")
    with pytest.raises(FileAccessError, match="folder"):
        GGUFFile(tmp_path)
    with pytest.raises(FileMissingError):
        GGUFFile("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name in a folder")
def test_a_pipe_is_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileAccessError, match="regular"):
        GGUFFile(pipe)


def test_threads_share_one_file(path):
    file = GGUFFile(path)
    results = []

    def read():
        results.append(sum(float(t.dequantize().sum()) for t in file.tensors.values()))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert len(results) == 4


def test_the_reference_reader_agrees(path):
    gguf = pytest.importorskip("gguf")
    theirs = gguf.GGUFReader(path)
    with GGUFFile(path) as ours:
        assert [t.name for t in theirs.tensors] == list(ours.tensors)
        for tensor in theirs.tensors:
            mine = ours.tensors[tensor.name]
            assert mine.offset == tensor.data_offset
            assert np.array_equal(mine.data, tensor.data.reshape(-1).view(np.uint8))
            assert mine.shape == tuple(reversed(tensor.shape.tolist()))
        for key, told in theirs.fields.items():
            if not key.startswith("GGUF."):
                value = ours.metadata[key]
                value = value.tolist() if isinstance(value, np.ndarray) else value
                contents = told.contents() if told.data else []
                assert contents == value or list(contents) == list(value)
    del theirs

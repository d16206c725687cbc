"""What is written is read again, without a copy, and nothing damaged passes for good."""

import json
import math
import os
import struct
import subprocess
import sys
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from paths import ROOT

from rustllm import TokenBatch, serialize
from rustllm.errors import (
    ArgumentError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    HashMismatchError,
    RustLLMError,
    TruncatedFileError,
    UnsupportedError,
)

dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(max_size=30),
    arrays,
)
trees = st.recursive(
    leaves,
    lambda t: st.one_of(
        st.lists(t, max_size=4),
        st.lists(t, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.sampled_from(["$array", "$x"])), t, max_size=4),
    ),
    max_leaves=12,
)


def same(a, b):
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype.newbyteorder(a.dtype.byteorder)
            and a.shape == b.shape
            and a.tobytes() == b.astype(a.dtype).tobytes()
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return a == b


@settings(max_examples=200)
@given(trees)
def test_a_tree_comes_back_as_it_was(tree):
    assert same(tree, serialize.loads(serialize.dumps(tree)))


def test_a_file_is_the_same_bytes_and_reads_as_views(tmp_path):
    value = {"ids": np.arange(1000, dtype=np.uint16), "rest": [1.5, "é", None]}
    path = tmp_path / "x.rllm"
    serialize.dump(value, path)
    assert path.read_bytes() == serialize.dumps(value)
    back = serialize.load(path)
    assert same(value, back)
    assert not back["ids"].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        back["ids"][0] = 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.rllm"]


def test_reading_from_memory_copies_nothing_and_keeps_the_memory_alive():
    data = bytearray(serialize.dumps([np.arange(100), np.ones(3)]))
    first, second = serialize.loads(data)
    assert np.shares_memory(first, np.frombuffer(data, np.uint8))
    assert second.ctypes.data % 8 == 0
    with pytest.raises(BufferError):
        data.clear()  # a view holds it
    del data
    assert first[99] == 99


def test_token_batches_and_numpy_scalars_pass():
    batch = TokenBatch.from_sequences([[1, 2], [], [3]])
    assert serialize.loads(serialize.dumps({"b": batch}))["b"] == batch
    assert serialize.loads(serialize.dumps([np.float32(0.5), np.int8(3), np.bool_(True)])) == [
        0.5,
        3,
        True,
    ]


def test_arrays_that_are_strided_or_foreign_endian_are_written_in_order():
    value = [np.arange(12).reshape(3, 4).T, np.arange(5)[::-2], np.arange(3, dtype=">i4")]
    for a, b in zip(value, serialize.loads(serialize.dumps(value))):
        assert np.array_equal(a, b)


def test_one_value_has_one_form():
    value = {"a": np.arange(3), "b": [1, (2,)]}
    assert serialize.dumps(value) == serialize.dumps(value)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [0, {1, 2}]}, "a[1]"),
        ({"a": {"b": object()}}, "a.b"),
        ({"a": {1: 2}}, "a"),
        ([np.array(["text"])], "[0]"),
        ([np.array([object()])], "[0]"),
        ([2**5000], "[0]"),
    ],
)
def test_what_cannot_be_written_is_refused_by_its_place(value, where, tmp_path):
    with pytest.raises(ArgumentError) as caught:
        serialize.dump(value, tmp_path / "x")
    assert caught.value.key == where
    assert list(tmp_path.iterdir()) == []


def test_a_tree_too_deep_is_refused_both_ways():
    deep = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ArgumentError):
        serialize.dumps(deep)
    for n in (150, 100_000):
        with pytest.raises(FileFormatError):
            serialize.loads(container('{"tree":' + "[" * n + "]" * n + ',"arrays":[]}'))


def container(header, body=b"", **changes):
    """Build a container by hand, right but for what is changed."""
    header = header if isinstance(header, bytes) else header.encode()
    header += b" " * (-(32 + len(header)) % 64)
    fields = {
        "magic": b"\x89RLLM\r\n\x1a",
        "version": 1,
        "crc": zlib.crc32(header),
        "n_header": len(header),
        "n_all": 32 + len(header) + len(body),
        **changes,
    }
    return struct.pack("<8sIIQQ", *fields.values()) + header + body


def with_arrays(*entries, body=b""):
    return container(json.dumps({"tree": None, "arrays": list(entries)}), body)


def test_a_container_built_by_hand_is_read():
    body = np.arange(4, dtype="<u4").tobytes()
    data = container(
        json.dumps({"tree": {"$array": 0}, "arrays": [["<u4", [2, 2], 0, zlib.crc32(body)]]}), body
    )
    assert serialize.loads(data).tolist() == [[0, 1], [2, 3]]


BODY = bytes(64)
CRC = zlib.crc32(BODY)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        bytes(100),
        container("null"),
        container("[]"),
        container("{}"),
        container("{"),
        container(b"\xff\xfe"),
        container('{"tree":0,"arrays":0}'),
        container('{"tree":0,"arrays":[]}', b"extra"),
        container('{"tree":0,"arrays":[]}', version=2),
        container('{"tree":0,"arrays":[]}', magic=b"\x89PNG\r\n\x1a\n"),
        container('{"tree":0,"arrays":[]}', n_header=2**63),
        container('{"tree":0,"arrays":[]}', n_header=10**6),
        container('{"tree":0,"arrays":[]}', n_all=2**64 - 1),
        container('{"tree":0,"arrays":[]}', n_all=3),
        container('{"tree":{"$array":0},"arrays":[]}'),
        container('{"tree":{"$array":-1},"arrays":[]}'),
        container('{"tree":{"$array":true},"arrays":[]}'),
        container('{"tree":{"$bytes":"0"},"arrays":[]}'),
        container('{"tree":{"$tuple":3},"arrays":[]}'),
        container('{"tree":{"$float":"1"},"arrays":[]}'),
        container('{"tree":{"$float":[]},"arrays":[]}'),
        container('{"tree":{"$type":["rustllm.TokenBatch",[1,2]]},"arrays":[]}'),
        container('{"tree":{"$type":["os.system","ls"]},"arrays":[]}'),
        container('{"tree":{"$pickle":"x"},"arrays":[]}'),
        container('{"tree":' + "9" * 5000 + ',"arrays":[]}'),
        with_arrays(3),
        with_arrays(["<u4", [16], 0], body=BODY),
        with_arrays(["|O8", [8], 0, CRC], body=BODY),
        with_arrays(["<u3", [8], 0, CRC], body=BODY),
        with_arrays(["<U4", [4], 0, CRC], body=BODY),
        with_arrays([["a", "<u4"], [16], 0, CRC], body=BODY),
        with_arrays(["<u4", [17], 0, CRC], body=BODY),
        with_arrays(["<u4", [15], 0, CRC], body=BODY),
        with_arrays(["<u4", [-16], 0, CRC], body=BODY),
        with_arrays(["<u4", [-4, -4], 0, CRC], body=BODY),
        with_arrays(["<u4", [16.0], 0, CRC], body=BODY),
        with_arrays(["<u4", [True, 16], 0, CRC], body=BODY),
        with_arrays(["<u4", 16, 0, CRC], body=BODY),
        with_arrays(["<u4", [2**62, 4], 0, CRC], body=BODY),
        with_arrays(["<u4", [2**64 + 16], 0, CRC], body=BODY),
        with_arrays(["<u4", [0, 2**63], 0, 0]),
        with_arrays(["<u4", [1] * 40, 0, CRC], body=BODY),
        with_arrays(["<u4", [16], 64, CRC], body=BODY),
        with_arrays(["<u4", [16], -64, CRC], body=BODY),
        with_arrays(["<u4", [16], "0", CRC], body=BODY),
        with_arrays(["<u4", [16], 0, CRC + 1], body=BODY),
        with_arrays(["<u4", [16], 0, CRC], ["<u4", [16], 0, CRC], body=BODY),
        with_arrays(["|u1", [0], 0, 0], ["|u1", [1], 0, 0], ["|u1", [1], 64, CRC], body=BODY),
        with_arrays(["|u1", [1], 0, zlib.crc32(b"y")], ["|u1", [0], 64, 0], body=b"yx" + BODY[2:]),
    ],
)  # fmt: skip
def test_a_container_that_breaks_a_rule_is_refused(data):
    with pytest.raises((FileFormatError, HashMismatchError, UnsupportedError)):
        serialize.loads(data)


def test_every_truncation_and_every_flipped_byte_is_noticed(tmp_path):
    whole = serialize.dumps({"a": np.arange(10), "b": [1, "x", b"yz"]})
    path = tmp_path / "damaged"
    for n in range(len(whole)):
        with pytest.raises((TruncatedFileError, FileFormatError)):
            serialize.loads(whole[:n])
        damaged = bytearray(whole)
        damaged[n] ^= 0x10
        with pytest.raises(RustLLMError):
            serialize.loads(damaged)
    for n in (0, 1, 31, 32, len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(TruncatedFileError) as caught:
            serialize.load(path)
        assert caught.value.path == path


@settings(max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 5))
def test_no_bytes_lead_to_anything_but_a_typed_error(junk, n):
    for data in (junk, container(junk), with_arrays(*[["<u4", [n], 0, 0]] * n, body=junk)):
        try:
            serialize.loads(data)
        except RustLLMError:
            pass


def test_without_verification_a_damaged_array_passes_but_a_damaged_header_does_not():
    data = bytearray(serialize.dumps([np.zeros(4, np.uint8)]))
    data[-1] ^= 1
    assert serialize.loads(data, verify=False)[0][-1] == 1
    with pytest.raises(HashMismatchError):
        serialize.loads(data)
    data[40] ^= 1
    with pytest.raises(HashMismatchError):
        serialize.loads(data, verify=False)


def test_registered_types_pass_and_names_stay_with_their_class():
    class Ratio(Fraction):
        pass

    serialize.register_type(
        "test.F", Ratio, lambda f: [f.numerator, f.denominator], lambda t: Ratio(*t)
    )
    value = (Ratio(2, 3), [Ratio(1)])
    assert serialize.loads(serialize.dumps(value)) == value
    with pytest.raises(ArgumentError):
        serialize.register_type("test.F", int, int, int)
    bad = container('{"tree":{"$type":["test.F",[1,0]]},"arrays":[]}')
    with pytest.raises(FileFormatError, match="test.F"):
        serialize.loads(bad)


def test_paths_that_cannot_be_used_are_typed_errors(tmp_path):
    with pytest.raises(FileMissingError):
        serialize.load(tmp_path / "none")
    with pytest.raises(FileAccessError):
        serialize.load(tmp_path)
    with pytest.raises(FileMissingError, match="no"):
        serialize.dump(1, tmp_path / "no" / "folder")


def test_atomic_write_leaves_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), serialize.atomic_write(path) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    with serialize.atomic_write(path, durable=False) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_a_written_file_has_the_mode_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    serialize.dump(1, tmp_path / "ours")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "ours").chmod(0o640)
    serialize.dump(2, tmp_path / "ours")
    assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    serialize.dump("old", path)
    script = (
        "import os, sys, numpy as np\n"
        "from rustllm import serialize\n"
        "with serialize.atomic_write(sys.argv[1]) as file:\n"
        "    file.write(serialize.dumps(np.zeros(10**6)))\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", script, str(path)], env=environment)
    assert result.returncode == -9
    assert serialize.load(path) == "old"

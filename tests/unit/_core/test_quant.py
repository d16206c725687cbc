"""Block formats against the reference implementation of GGUF's authors."""

import numpy as np
import pytest

from rustllm._core import quant

BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
FLOATS = ["F32", "F16", "BF16"]


def same_bits(ours, theirs):
    """Equal bit for bit, where any NaN equals any NaN (its payload is not a value)."""
    ours, theirs = ours.reshape(-1), np.asarray(theirs, np.float32).reshape(-1)
    equal = ours.view(np.uint32) == theirs.view(np.uint32)
    return bool(np.all(equal | (np.isnan(ours) & np.isnan(theirs))))


def reference(data, name):
    gguf = pytest.importorskip("gguf")
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])


def test_sizes_equal_the_reference_table():
    gguf = pytest.importorskip("gguf")
    for type_id, known in quant.BLOCK_FORMATS.items():
        theirs = gguf.GGMLQuantizationType(type_id)
        assert theirs.name == known.name
        assert gguf.GGML_QUANT_SIZES[theirs] == (known.elements, known.bytes)


@pytest.mark.parametrize("name", BLOCKS + FLOATS)
@pytest.mark.parametrize("kind", ["random", "zeros", "ones"])
def test_dequantize_is_bit_equal_to_the_reference(name, kind):
    known = quant.block_format(name)
    size = known.bytes * (64 if known.elements == 256 else 512)
    if kind == "random":
        data = np.random.default_rng(7).integers(0, 256, size, dtype=np.uint8)
    else:
        data = np.full(size, 0 if kind == "zeros" else 255, np.uint8)
    rows = data.reshape(16, -1)
    with np.errstate(all="ignore"):
        assert same_bits(quant.dequantize(data, name), reference(rows, name))


@pytest.mark.parametrize("name", BLOCKS)
def test_every_byte_value_in_every_place_of_a_block(name):
    known = quant.block_format(name)
    blocks = np.zeros((known.bytes, 256, known.bytes), np.uint8)
    for place in range(known.bytes):
        blocks[place, :, :] = 0x35  # a finite scale wherever the scale is
        blocks[place, :, place] = np.arange(256)
    flat = blocks.reshape(-1, known.bytes)
    assert same_bits(quant.dequantize(flat, name), reference(flat, name))


def test_every_float16_and_bfloat16_converts_exactly():
    every = np.arange(65536, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # some processors note that a NaN was quieted
        expected = every.view(np.float16).astype(np.float32)
    assert same_bits(quant.dequantize(every, "F16"), expected)
    as_bf16 = (every.astype(np.uint32) << 16).view(np.float32)
    assert same_bits(quant.dequantize(every, "BF16"), as_bf16)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "f8"])
def test_plain_types_convert_as_numpy_does(dtype):
    name = {"i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "f8": "F64"}[dtype]
    values = np.array([0, 1, -1, 100, -128, 127], dtype)
    assert np.array_equal(quant.dequantize(values, name), values.astype(np.float32))


def test_out_is_filled_in_place_at_any_source_address():
    data = np.random.default_rng(1).integers(0, 100, 1 + 34 * 6, dtype=np.uint8)[1:]
    out = np.empty((3, 64), np.float32)
    assert quant.dequantize(data, "Q8_0", out=out) is out
    assert same_bits(out, reference(data.copy().reshape(6, 34), "Q8_0"))


def test_more_than_one_step_is_seamless():
    data = np.random.default_rng(2).integers(0, 120, 34 * 40000, dtype=np.uint8)
    whole = quant.dequantize(data, "Q8_0")
    assert same_bits(whole[-32:], quant.dequantize(data[-34:], "Q8_0"))
    assert same_bits(whole, reference(data.reshape(40000, 34), "Q8_0"))


def test_nothing_is_nothing():
    assert quant.dequantize(b"", "Q4_K").shape == (0,)


@pytest.mark.parametrize("bad", [4, 5, 9, 15, 31, 36, -1, 1 << 20, "Q9_9", ""])
def test_unknown_types_are_refused(bad):
    with pytest.raises(ValueError, match="not supported"):
        quant.dequantize(b"", bad)


def test_parts_of_blocks_and_wrong_outputs_are_refused():
    with pytest.raises(ValueError, match="whole blocks"):
        quant.dequantize(bytes(17), "Q4_0")
    with pytest.raises(ValueError, match="whole blocks"):
        quant.n_bytes("Q4_0", 33)
    frozen = np.empty(32, np.float32)
    frozen.flags.writeable = False
    for out in (np.empty(31, np.float32), np.empty(32), frozen, np.empty(64, np.float32)[::2]):
        with pytest.raises(ValueError, match="out must be"):
            quant.dequantize(bytes(18), "Q4_0", out=out)

"""float32 to blocks: bit for bit where the reference has no search, better than it where it has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm._core import dispatch, quant

LEGACY = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16"]
SEARCHED = ["IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]

I = np.arange(4096)  # noqa: E741
WAVE = (0.1 + 2 * np.cos(I)).astype(np.float32).reshape(2, 2048)
_U = (I * 2654435761 + 12345) % 2**32 / 2**32
_V = (I * 2246822519 + 54321) % 2**32 / 2**32
BELL = np.sqrt(-2 * np.log(_U + 1e-9)) * np.cos(2 * np.pi * _V)
BELL = BELL.astype(np.float32).reshape(2, 2048)

# Root mean square errors of llama.cpp's own quantizer on (WAVE, BELL), measured.
LLAMA_CPP = {
    "Q4_0": (0.071763, 0.089005),
    "Q4_1": (0.073190, 0.080841),
    "Q5_0": (0.037826, 0.043906),
    "Q5_1": (0.035598, 0.038715),
    "Q8_0": (0.004764, 0.005601),
    "IQ4_NL": (0.079157, 0.078007),
    "Q2_K": (0.302437, 0.329432),
    "Q3_K": (0.162789, 0.157505),
    "Q4_K": (0.063005, 0.073316),
    "Q5_K": (0.035348, 0.039934),
    "Q6_K": (0.016377, 0.018496),
}


def rms_error(x, name, **more):
    back = quant.dequantize(quant.quantize(x, name, **more), name).reshape(x.shape)
    return float(np.sqrt(np.mean((back.astype(np.float64) - x) ** 2)))


@pytest.mark.parametrize("name", LLAMA_CPP)
def test_the_error_is_no_larger_than_that_of_llama_cpp(name):
    for x, theirs in zip((WAVE, BELL), LLAMA_CPP[name], strict=True):
        assert rms_error(x, name) <= theirs + 1e-6


@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_types_without_a_search_are_bit_equal_to_the_reference(name, scale):
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((64, 256)) * scale).astype(np.float32)
    x[0] = 0
    x[1] = scale
    x[2] = -scale
    x[3, :] = np.tile([1, -1], 128) * scale  # ties for the largest magnitude
    x[4] = np.round(x[4] / scale * 4) * scale / 8  # values half-way between levels
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
    ours = quant.quantize(x, name)
    assert np.array_equal(ours, np.asarray(theirs).reshape(-1).view(np.uint8))


def test_bfloat16_and_float16_round_every_pattern_as_the_reference_does():
    gguf = pytest.importorskip("gguf")
    bits = np.random.default_rng(5).integers(0, 2**32, 1 << 16, dtype=np.uint32)
    x = bits.view(np.float32)
    x = x[np.isfinite(x)][: 1 << 15]
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType.BF16)
    assert np.array_equal(quant.quantize(x, "BF16"), theirs.view(np.uint8))
    near = x[np.abs(x) < 65000]
    assert np.array_equal(quant.quantize(near, "F16"), near.astype(np.float16).view(np.uint8))
    tiny = (np.arange(4096) * 2.0**-26).astype(np.float32)  # halves of float16's denormals
    assert np.array_equal(quant.quantize(tiny, "F16"), tiny.astype(np.float16).view(np.uint8))


@pytest.mark.parametrize("name", ["F32", "F64"])
def test_wide_floats_keep_every_value(name):
    assert np.array_equal(quant.dequantize(quant.quantize(BELL, name), name), BELL.reshape(-1))


@pytest.mark.parametrize("name", LEGACY + SEARCHED)
def test_every_level_of_instructions_gives_the_same_bits(name):
    kept = dispatch.current_level()
    try:
        seen = set()
        for level in dispatch.available_levels():
            dispatch.set_level(level)
            blocks = quant.quantize(BELL, name)
            seen.add(blocks.tobytes() + quant.dequantize(blocks, name).tobytes())
    finally:
        dispatch.set_level(kept)
    assert len(seen) == 1


@pytest.mark.parametrize("name", SEARCHED)
def test_values_that_the_type_can_express_come_back(name):
    known = quant.block_format(name)
    rng = np.random.default_rng(11)
    blocks = rng.integers(0, 256, (8, known.bytes), dtype=np.uint8)
    for place in {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "IQ4_NL": (0,)}.get(
        name, (0, 2)
    ):
        blocks[:, place : place + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    x = quant.dequantize(blocks, name)
    spread = float(np.sqrt(np.mean(x**2)))
    assert rms_error(x.reshape(8, -1), name) < 0.02 * spread * (4 if name == "Q2_K" else 1)


@pytest.mark.parametrize("name", SEARCHED)
def test_zeros_and_constants_come_back(name):
    assert rms_error(np.zeros((1, 256), np.float32), name) == 0
    for value in (1.0, -1.0):
        assert rms_error(np.full((1, 256), value, np.float32), name) < 0.01


@pytest.mark.parametrize("name", SEARCHED)
def test_weights_move_the_error_to_where_it_matters_less(name):
    weights = np.where(np.arange(2048) % 2, 1000.0, 1.0).astype(np.float32)
    back = quant.dequantize(quant.quantize(BELL, name, weights=weights), name).reshape(2, 2048)
    plain = quant.dequantize(quant.quantize(BELL, name), name).reshape(2, 2048)
    weighted, unweighted = np.abs(back - BELL)[:, 1::2], np.abs(plain - BELL)[:, 1::2]
    assert (weighted**2).sum() < (unweighted**2).sum()


@pytest.mark.parametrize("name", LEGACY + SEARCHED)
def test_what_cannot_be_stored_is_refused(name):
    for bad in (np.nan, np.inf, -np.inf):
        x = np.zeros(256, np.float32)
        x[100] = bad
        with pytest.raises(ValueError, match="NaN or infinite"):
            quant.quantize(x, name)
    if name != "BF16":
        with pytest.raises(ValueError, match="overflows float16"):
            quant.quantize(np.full(256, -3e38, np.float32), name)


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="whole blocks"):
        quant.quantize(np.zeros((2, 16), np.float32), "Q4_0")
    with pytest.raises(ValueError, match="out must be"):
        quant.quantize(np.zeros(32, np.float32), "Q4_0", out=np.empty(17, np.uint8))
    with pytest.raises(ValueError, match="nothing is quantized"):
        quant.quantize(np.zeros(32, np.float32), "I8")
    with pytest.raises(ValueError, match="weight"):
        quant.quantize(np.zeros(256, np.float32), "Q4_K", weights=[-1.0])
    assert quant.quantize(np.zeros((0, 32), np.float32), "Q4_0").size == 0


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(LEGACY[:5] + SEARCHED),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=256, max_size=256),
)
def test_any_values_stay_within_a_step_of_their_block(name, values):
    x = np.array(values, np.float32)
    back = quant.dequantize(quant.quantize(x, name), name)
    assert np.isfinite(back).all()
    n = quant.block_format(name).elements
    span = np.repeat(np.ptp(x.reshape(-1, n), axis=1) + np.abs(x).max(), n)
    steps = {"Q2_K": 2, "Q3_K": 4, "Q8_0": 100}.get(name, 7)
    assert (np.abs(back - x) <= span / steps + 1e-4).all()


def test_finiteness_is_checked_by_value_or_block():
    x = np.zeros(512, np.float32)
    for name in ("F32", "F64", "F16", "BF16"):
        data = quant.quantize(x, name)
        assert quant.first_not_finite(data, name) == -1
        width = quant.block_format(name).bytes
        data[-1] = 0x7F
        data[-2] = 0xF0 if name != "F16" else 0
        assert quant.first_not_finite(data, name) == data.size // width - 1
    for name in LEGACY[:5] + SEARCHED:
        data = quant.quantize(x, name)
        assert quant.first_not_finite(data, name) == -1
        at = {"Q2_K": 82, "Q3_K": 108, "Q6_K": 208}.get(name, 0)
        width = quant.block_format(name).bytes
        data.reshape(-1, width)[1, at + 1] = 0x7C
        assert quant.first_not_finite(data, name) == 1
    assert quant.first_not_finite(np.full(8, 255, np.uint8), "I8") == -1

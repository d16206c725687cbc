"""Numeric operations against float64, at every instruction set, for any strides and any `out`."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm import ops
from rustllm._core.dispatch import available_levels, current_level, set_level
from rustllm.errors import ArgumentError


@pytest.fixture(params=available_levels())
def level(request):
    before = current_level()
    set_level(request.param)
    yield request.param
    set_level(before)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def layouts(x):
    """The same values with other strides."""
    yield x
    yield np.asfortranarray(x)
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), np.float32)
    wide[..., ::2] = x
    yield wide[..., ::2]
    yield np.ascontiguousarray(x[::-1])[::-1]
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)
    odd = bytes_[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    yield odd


SIZES = [
    (1, 1, 1),
    (3, 5, 7),
    (8, 33, 300),
    (9, 33, 300),
    (13, 70, 513),
    (100, 257, 64),
    (300, 9, 70),
]


@pytest.mark.parametrize("size", SIZES)
def test_linear_is_the_product(level, size):
    m, n, k = size
    x, w, b = normal(m, k), normal(n, k, seed=1), normal(n, seed=2)
    want = x.astype(float) @ w.T.astype(float) + b
    tolerance = 1e-6 * math.sqrt(k) * 4
    for threads in (1, 2, 3):
        got = ops.linear(x, w, b, threads=threads)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=tolerance, rtol=1e-5)
        assert np.array_equal(got, ops.linear(x, w, b, threads=1))


def test_linear_takes_any_strides_leading_dimensions_and_dtypes():
    x, w = normal(2, 12, 20), normal(9, 20, seed=1)
    want = ops.linear(x, w)
    for one in layouts(x):
        for other in layouts(w):
            assert np.array_equal(ops.linear(one, other), want)
    assert np.array_equal(ops.linear(x.astype(float), w.tolist()), want)
    assert ops.linear(x.astype(np.float16), w).shape == (2, 12, 9)
    assert ops.linear(x[0, 0], w).shape == (9,)
    assert ops.linear(x[:, :0], w).shape == (2, 0, 9)
    assert (ops.linear(x[..., :0], w[:, :0], np.arange(9.0)) == np.arange(9)).all()


def test_linear_writes_to_out_also_where_it_overlaps_or_has_strides():
    x, w = normal(12, 12), normal(12, 12, seed=1)
    want = ops.linear(x, w)
    out = np.empty((12, 12), np.float32)
    assert ops.linear(x, w, out=out) is out and np.array_equal(out, want)
    wide = np.full((12, 24), 7, np.float32)
    ops.linear(x, w, out=wide[:, ::2])
    assert np.array_equal(wide[:, ::2], want) and (wide[:, 1::2] == 7).all()
    same = x.copy()
    assert ops.linear(same, w, out=same) is same and np.array_equal(same, want)


@pytest.mark.parametrize("type", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q6_K"])
def test_linear_takes_quantized_weights(type):
    w = ops.quantize(normal(40, 256), type)
    x = normal(3, 5, 256, seed=1)
    want = x.astype(float) @ w.dequantize().T.astype(float)
    np.testing.assert_allclose(ops.linear(x, w, exact=True), want, atol=1e-3)
    error = ops.linear(x, w, np.ones(40)) - 1 - want
    assert np.abs(error).max() < 0.05 * np.abs(want).max()


def reference_attention(q, k, v, scale, causal, window, softcap, bias):
    n_heads, n_q, _ = q.shape
    group, n_k = n_heads // len(k), k.shape[1]
    own = np.arange(n_q)[:, None] + n_k - n_q
    key = np.arange(n_k)[None]
    seen = np.ones((n_q, n_k), bool)
    if causal:
        seen &= key <= own
    if window:
        seen &= key > own - window
    out = np.zeros((n_heads, n_q, v.shape[2]))
    for h in range(n_heads):
        scores = q[h].astype(float) @ k[h // group].T.astype(float) * scale
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        if bias is not None:
            scores = scores + bias[h if len(bias) > 1 else 0]
        scores = np.where(seen, scores, -np.inf)
        top = scores.max(1, keepdims=True)
        e = np.exp(scores - np.where(np.isfinite(top), top, 0))
        total = e.sum(1, keepdims=True)
        out[h] = np.where(total > 0, e @ v[h // group] / np.where(total > 0, total, 1), 0)
    return out


SHAPES = [
    (1, 1, 1, 1, 1, 1), (2, 2, 3, 5, 7, 9), (4, 2, 9, 200, 64, 64), (6, 3, 70, 70, 24, 24),
    (3, 3, 33, 20, 16, 8), (2, 1, 1, 1500, 64, 64), (8, 4, 8, 600, 100, 33),
    (2, 1, 40, 300, 80, 80),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 50])
def test_attention_is_the_formula(level, shape, causal, window):
    n_heads, n_kv, n_q, n_k, dim, dim_v = shape
    q, k, v = normal(n_heads, n_q, dim), normal(n_kv, n_k, dim), normal(n_kv, n_k, dim_v)
    for softcap in (None, 5.0):
        for bias in (None, normal(1, n_q, n_k, seed=5), normal(n_heads, n_q, n_k, seed=6)):
            if bias is not None:
                bias[:, :, ::3] = -np.inf
            want = reference_attention(q, k, v, dim**-0.5, causal, window, softcap, bias)
            options = {"causal": causal, "window": window, "softcap": softcap, "mask": bias}
            got = ops.attention(q, k, v, threads=2, **options)
            np.testing.assert_allclose(got, want, atol=2e-5)
            assert np.array_equal(got, ops.attention(q, k, v, threads=1, **options))


def test_attention_takes_batches_strides_masks_and_out():
    q, k, v = normal(2, 3, 4, 10, 16), normal(2, 3, 2, 12, 16), normal(2, 3, 2, 12, 16, seed=1)
    want = ops.attention(q, k, v)
    assert want.shape == (2, 3, 4, 10, 16)
    for one in layouts(q):
        assert np.array_equal(ops.attention(one, k, v), want)
    # [tokens, heads, dim], as projections leave it
    turned = np.ascontiguousarray(q[0, 0].swapaxes(0, 1)).swapaxes(0, 1)
    assert np.array_equal(ops.attention(turned, k[0, 0], v[0, 0]), want[0, 0])
    seen = np.random.default_rng(2).random((10, 12)) < 0.7
    hidden = np.where(seen, 0, -np.inf)
    by_bool = ops.attention(q, k, v, mask=seen)
    assert np.array_equal(by_bool, ops.attention(q, k, v, mask=hidden))
    out = np.empty_like(q)
    assert ops.attention(q, k, v, mask=seen, out=out) is out and np.array_equal(out, by_bool)
    same = q.copy()
    assert np.array_equal(ops.attention(same, k, v, out=same), want)
    nothing = ops.attention(q, k, v, mask=np.zeros((10, 12), bool))
    assert (nothing == 0).all()
    nan = q.copy()
    nan[0, 0, 0, 0, 0] = np.nan
    got = ops.attention(nan, k, v)
    assert np.isnan(got[0, 0, 0, 0]).all() and np.isfinite(got[0, 0, 0, 1:]).all()


def test_norms_are_their_formulas(level):
    for width in (1, 7, 16, 100):
        x, w, b = normal(5, 3, width), normal(width, seed=1), normal(width, seed=2)
        wide = x.astype(float)
        rms = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * w
        np.testing.assert_allclose(ops.rms_norm(x, w), rms, atol=1e-5)
        centred = wide - wide.mean(-1, keepdims=True)
        layer = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w + b
        np.testing.assert_allclose(ops.layer_norm(x, w, b), layer, atol=1e-5)
        for one in layouts(x):
            assert np.array_equal(ops.rms_norm(one, w, threads=3), ops.rms_norm(x, w))
        same = x.copy()
        assert np.array_equal(ops.layer_norm(same, w, b, out=same), ops.layer_norm(x, w, b))


def test_softmax_is_the_formula_on_every_axis(level):
    x = normal(4, 50, 30) * 20
    for axis in (0, 1, 2, -1, -2):
        e = np.exp(x.astype(float) - x.max(axis, keepdims=True))
        want = e / e.sum(axis, keepdims=True)
        np.testing.assert_allclose(ops.softmax(x, axis=axis), want, atol=1e-6)
        out = np.empty_like(x)
        assert ops.softmax(x, axis=axis, out=out) is out
        np.testing.assert_allclose(out, want, atol=1e-6)
        same = x.copy()
        np.testing.assert_allclose(ops.softmax(same, axis=axis, out=same), want, atol=1e-6)
    assert ops.softmax([1.0, 2.0], scale=0).tolist() == [0.5, 0.5]
    assert np.isnan(ops.softmax([np.nan, 1.0])).all()


def test_activations_are_their_formulas(level):
    x = np.concatenate([np.linspace(-30, 30, 2001), [0.0, -0.0, 1e-30]]).astype(np.float32)
    wide = x.astype(float)
    np.testing.assert_allclose(ops.silu(x), wide / (1 + np.exp(-wide)), rtol=2e-6, atol=1e-7)
    erf = np.array([math.erf(v / math.sqrt(2)) for v in wide])
    np.testing.assert_allclose(ops.gelu(x), wide * (1 + erf) / 2, rtol=1e-5, atol=2e-7)
    u = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    tanh = wide / 2 * (1 + np.tanh(u))
    np.testing.assert_allclose(ops.gelu(x, approximate="tanh"), tanh, rtol=1e-4, atol=2e-6)
    assert ops.silu(2.0).shape == ()
    square = x[:2000].reshape(50, 40)
    for one in layouts(square):
        assert np.array_equal(ops.gelu(one, threads=2), ops.gelu(square))
    same = square.copy()
    assert np.array_equal(ops.silu(same, out=same), ops.silu(square))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_turns_pairs(level, interleaved):
    x = normal(2, 9, 16)
    places = np.array([0, 5, 1, 1000, 7, 8, 9, 123456, 3])
    n = 12
    angles = places[:, None] * 500.0 ** (-np.arange(0, n, 2) / n)
    a, b = (slice(0, n, 2), slice(1, n, 2)) if interleaved else (slice(0, 6), slice(6, 12))
    want = x.astype(float)
    want[..., a] = x[..., a] * np.cos(angles) - x[..., b] * np.sin(angles)
    want[..., b] = x[..., a] * np.sin(angles) + x[..., b] * np.cos(angles)
    options = {"base": 500.0, "n_dims": n, "interleaved": interleaved}
    got = ops.rope(x, places, **options)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert np.array_equal(got[..., n:], x[..., n:])
    turns = 500.0 ** (-np.arange(0, n, 2) / n)
    options = {"frequencies": turns, "interleaved": interleaved}
    assert np.array_equal(ops.rope(x, places, **options), got)
    same = x.copy()
    assert np.array_equal(ops.rope(same, places, out=same, **options), got)


def test_blocks_go_both_ways_and_are_checked():
    x = normal(3, 4, 64)
    blocks = ops.quantize(x, "Q8_0")
    assert np.abs(blocks.dequantize() - x).max() < 0.02
    out = np.empty_like(x)
    assert ops.dequantize(blocks, out=out) is out
    again = ops.QuantizedArray(blocks.data.tobytes(), "Q8_0", x.shape)
    assert np.array_equal(again.dequantize(), out)
    assert not again.data.flags.writeable
    with pytest.raises(ArgumentError, match="bytes"):
        ops.QuantizedArray(blocks.data[:-1], "Q8_0", x.shape)
    with pytest.raises(ArgumentError, match="Q9_9"):
        ops.quantize(x, "Q9_9")
    with pytest.raises(ArgumentError, match="blocks"):
        ops.quantize(normal(2, 33), "Q8_0")
    with pytest.raises(ArgumentError, match="finite"):
        ops.quantize([np.inf] * 32, "Q8_0")
    with pytest.raises(ArgumentError, match="matrix"):
        ops.linear(normal(2, 64), blocks)


READ_ONLY = np.zeros((2, 3), np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ops.linear(normal(2, 3), normal(4, 5)), "rows of 3"),
        (lambda: ops.linear(normal(2, 3), normal(3)), "dimensions"),
        (lambda: ops.linear(normal(2, 3), normal(4, 3), normal(5)), "bias"),
        (lambda: ops.linear(normal(2, 3), normal(3, 3), out=READ_ONLY), "read-only"),
        (lambda: ops.linear(normal(2, 3), normal(3, 3), out=np.zeros((2, 4), "f4")), "out"),
        (lambda: ops.linear(normal(2, 3), normal(3, 3), out=np.zeros((2, 3))), "float32"),
        (lambda: ops.linear(normal(2, 3), normal(3, 3), threads=0), "threads"),
        (lambda: ops.linear([[1j]], [[1.0]]), "real"),
        (lambda: ops.linear([[1.0], [1.0, 2.0]], [[1.0]]), "array"),
        (lambda: ops.attention(normal(3, 4, 8), normal(2, 4, 8), normal(2, 4, 8)), "divide"),
        (lambda: ops.attention(normal(2, 4, 8), normal(2, 4, 7), normal(2, 4, 8)), "fit"),
        (lambda: ops.attention(normal(2, 4, 8), normal(2, 0, 8), normal(2, 0, 8)), "key"),
        (lambda: ops.attention(normal(1, 2, 4, 8), normal(2, 4, 8), normal(2, 4, 8)), "leading"),
        (lambda: ops.attention(*[normal(2, 4, 8)] * 3, mask=normal(3, 3)), "mask"),
        (lambda: ops.attention(*[normal(2, 4, 8)] * 3, window=0), "window"),
        (lambda: ops.attention(*[normal(2, 4, 8)] * 3, softcap=0), "softcap"),
        (lambda: ops.rms_norm(normal(2, 3), normal(4)), "weight"),
        (lambda: ops.rms_norm(normal(2, 3), eps=-1), "eps"),
        (lambda: ops.softmax(normal(2, 3), axis=2), "axis"),
        (lambda: ops.softmax(normal(2, 3), scale=-1), "scale"),
        (lambda: ops.gelu(normal(2), approximate="erf"), "approximate"),
        (lambda: ops.rope(normal(2, 4), [0.5, 1]), "positions"),
        (lambda: ops.rope(normal(2, 4), n_dims=3), "n_dims"),
        (lambda: ops.rope(normal(2, 4), base=0), "base"),
        (lambda: ops.dequantize(normal(2)), "quantize"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()


@given(
    st.integers(0, 20), st.integers(0, 40), st.integers(0, 70), st.integers(1, 3), st.integers(0, 3)
)
@settings(max_examples=150, deadline=None)
def test_products_of_all_sizes(m, n, k, threads, seed):
    x, w = normal(m, k, seed=seed), normal(n, k, seed=seed + 1)
    got = ops.linear(x, w, threads=threads)
    np.testing.assert_allclose(got, x.astype(float) @ w.T.astype(float), atol=1e-4)


@pytest.mark.parametrize("kind", ["F16", "Q4_0", "Q5_1", "Q8_0", "Q3_K", "Q6_K", "IQ4_NL"])
def test_quantizing_gives_the_same_blocks_on_any_number_of_threads_and_in_place(kind):
    x = np.random.default_rng(2).standard_normal((37, 4096)).astype(np.float32)
    one = ops.quantize(x, kind, threads=1)
    memory = np.full(one.nbytes, 7, np.uint8)
    many = ops.quantize(x, kind, out=memory, threads=3)
    assert np.array_equal(one.data, many.data) and np.shares_memory(many.data, memory)
    back = np.empty((37, 4096), np.float32)
    assert ops.dequantize(one, out=back, threads=1) is back
    assert np.array_equal(ops.dequantize(many, threads=5), back)
    strided = np.zeros((37, 8192), np.float32)[:, ::2]
    assert ops.dequantize(many, out=strided) is strided and np.array_equal(strided, back)


def test_quantizing_refuses_memory_that_does_not_fit():
    x = np.ones((2, 64), np.float32)
    for out in (
        np.empty(135, np.uint8),
        np.empty(136, np.int8),
        np.empty(272, np.uint8)[::2],
        bytearray(136),
        x.view(np.uint8).reshape(-1)[:136],
    ):
        with pytest.raises(ArgumentError):
            ops.quantize(x, "Q8_0", out=out)
    read_only = np.empty(136, np.uint8)
    read_only.flags.writeable = False
    with pytest.raises(ArgumentError):
        ops.quantize(x, "Q8_0", out=read_only)
    for threads in (0, -1):
        with pytest.raises(ArgumentError):
            ops.quantize(x, "Q8_0", threads=threads)
    with pytest.raises(ArgumentError):
        ops.quantize(np.full((40, 4096), np.nan), "Q8_0", threads=2)

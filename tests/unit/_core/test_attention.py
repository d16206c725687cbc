"""One segment of attention: every level gives the plain C version's bits, and what numpy gives."""

import numpy as np
import pytest

from rustllm._core import dispatch, segment

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
DIMENSIONS = (16, 32, 48, 64, 80, 96, 128, 256)


@pytest.fixture
def at_level():
    before = dispatch.current_level()
    yield dispatch.set_level
    dispatch.set_level(before)


def arrays(rng, n, dim, n_queries):
    keys, values = rng.standard_normal((2, n, dim)).astype(np.float32)
    queries = rng.standard_normal((n_queries, dim)).astype(np.float32) / np.sqrt(dim)
    return keys, values, queries.astype(np.float32)


def spans(rng, n, n_queries):
    """First and last positions: neighbouring tokens, windows, or nothing in common."""
    kind = rng.integers(4)
    if kind == 0:
        return [0] * n_queries, [n] * n_queries
    if kind == 1:
        return [0] * n_queries, [max(0, n - n_queries + i + 1) for i in range(n_queries)]
    if kind == 2:
        window = int(rng.integers(1, n + 1))
        last = [max(0, n - n_queries + i + 1) for i in range(n_queries)]
        return [max(0, end - window) for end in last], last
    first = rng.integers(0, n + 1, n_queries)
    return first.tolist(), [int(rng.integers(f, n + 1)) for f in first]


def as_stored(x, dtype):
    """What a cache makes of rows: an independent version, in numpy."""
    if dtype == "float32":
        return x
    if dtype == "float16":
        return x.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = x.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    out = np.empty_like(x)
    for at in range(0, x.shape[1], 32):
        block = x[:, at : at + 32]
        scale = (np.abs(block).max(axis=1) / np.float32(127)).astype(np.float16).astype(np.float32)
        scale = np.where(scale == 0, np.float32(1), scale)[:, None]
        out[:, at : at + 32] = np.clip(np.rint(block * (1 / scale)), -127, 127) * scale
    return out


def same(one, other):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


@DTYPES
def test_every_level_gives_the_same_bits(dtype, at_level):
    rng = np.random.default_rng(7)
    for dim in DIMENSIONS:
        for n_queries in range(1, 9):
            n = int(rng.integers(1, 129))
            keys, values, queries = arrays(rng, n, dim, n_queries)
            first, last = spans(rng, n, n_queries)
            softcap = float(rng.choice([0.0, 2.0]))
            at_level("scalar")
            planes = segment.store_positions(keys, values, dtype)
            expected = segment.attend(planes, queries, first, last, dtype, softcap)
            for level in dispatch.available_levels():
                at_level(level)
                assert np.array_equal(segment.store_positions(keys, values, dtype), planes), level
                together = segment.attend(planes, queries, first, last, dtype, softcap)
                assert same(together, expected), (level, dim, n_queries, n, first, last)
                for i in range(n_queries):
                    one = slice(i, i + 1)
                    alone = segment.attend(
                        planes, queries[one], first[one], last[one], dtype, softcap
                    )
                    assert same(alone, [part[one] for part in expected]), (level, dim, i)


@DTYPES
def test_agrees_with_double_precision(dtype, at_level):
    rng = np.random.default_rng(8)
    keys, values, queries = arrays(rng, 100, 64, 5)
    first, last = [0, 3, 50, 0, 99], [100, 90, 51, 1, 100]
    keys, values = (as_stored(a, dtype) for a in (keys, values))
    for level in dispatch.available_levels():
        at_level(level)
        planes = segment.store_positions(keys, values, dtype)
        out, top, total = segment.attend(planes, queries, first, last, dtype)
        for i, (start, end) in enumerate(zip(first, last, strict=True)):
            scores = keys[start:end].astype(np.float64) @ queries[i]
            weights = np.exp(scores - scores.max())
            assert np.isclose(top[i], scores.max(), rtol=1e-5, atol=1e-5)
            assert np.isclose(total[i], weights.sum(), rtol=1e-5)
            np.testing.assert_allclose(out[i], weights @ values[start:end], rtol=1e-4, atol=1e-4)


@DTYPES
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_a_query_does_not_see_does_not_reach_it(dtype, poison, at_level):
    rng = np.random.default_rng(9)
    keys, values, queries = arrays(rng, 40, 32, 4)
    first, last = [0, 0, 5, 0], [20, 30, 25, 40]
    at_level("scalar")
    expected = segment.attend(
        segment.store_positions(keys, values, dtype), queries, first, last, dtype
    )
    keys[31] = values[30] = poison
    for level in dispatch.available_levels():
        at_level(level)
        planes = segment.store_positions(keys, values, dtype)
        out, top, total = segment.attend(planes, queries, first, last, dtype)
        seen = [0, 1, 2]
        assert same([a[seen] for a in (out, top, total)], [a[seen] for a in expected]), level
        assert not np.isfinite(out[3]).all(), level


def test_nothing_visible_gives_nothing(at_level):
    keys, values, queries = arrays(np.random.default_rng(1), 16, 16, 2)
    for level in dispatch.available_levels():
        at_level(level)
        planes = segment.store_positions(keys, values, "float16")
        out, top, total = segment.attend(planes, queries, [3, 0], [3, 16], "float16")
        assert not out[0].any()
        assert top[0] == -np.inf
        assert total[0] == 0
        assert total[1] > 0


def test_wrong_sizes_are_refused():
    keys, values, queries = arrays(np.random.default_rng(1), 16, 16, 2)
    with pytest.raises(ValueError, match="multiple of 16"):
        segment.store_positions(keys[:, :8].copy(), values[:, :8].copy(), "float16")
    planes = segment.store_positions(keys, values, "float16")
    with pytest.raises(ValueError, match="another dimension or dtype"):
        segment.attend(planes, queries, [0, 0], [1, 1], "float32")
    with pytest.raises(ValueError, match="positions 0 to 129"):
        segment.attend(planes, queries, [0, 0], [1, 129], "float16")


@DTYPES
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1e-6, 1e-3, 1.0, 6e4])
def test_what_is_stored_is_what_the_dtype_can_hold(dtype, size, at_level):
    """A query sees one position, so that its output is that position's value."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((2, 48, 80)).astype(np.float32).clip(-1, 1)
    keys, values = rows * np.float32(size)
    with np.errstate(over="ignore"):
        expected = as_stored(values, dtype)
    queries = np.zeros((8, 80), np.float32)
    for level in dispatch.available_levels():
        at_level(level)
        planes = segment.store_positions(keys, values, dtype)
        for start in range(0, 48, 8):
            first = list(range(start, start + 8))
            out, _, _ = segment.attend(planes, queries, first, [i + 1 for i in first], dtype)
            np.testing.assert_allclose(out, expected[start : start + 8], rtol=1e-6, atol=0)


@DTYPES
def test_a_position_that_is_not_finite_spoils_what_sees_it(dtype, at_level):
    rng = np.random.default_rng(4)
    for level in dispatch.available_levels():
        at_level(level)
        for poison in (np.nan, np.inf, -np.inf):
            keys, values, queries = arrays(rng, 20, 48, 2)
            values[7, 40] = poison
            planes = segment.store_positions(keys, values, dtype)
            out, _, _ = segment.attend(planes, queries, [0, 8], [20, 20], dtype)
            assert not np.isfinite(out[0, 40]), level
            assert np.isfinite(out[1]).all(), level

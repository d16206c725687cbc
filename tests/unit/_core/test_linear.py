"""Packed matrices: the weights are the file's, every level gives the plain C version's bits."""

import mmap
import sys

import numpy as np
import pytest

from rustllm._core import dispatch, linear, quant
from rustllm._core.zeroed import ZeroedMemory

TYPES = {0: "F32", 1: "F16", 30: "BF16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0"}
TYPES |= {10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 20: "IQ4_NL"}
BLOCK_BYTES = {0: 4, 1: 2, 30: 2, 2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 12: 144, 13: 176, 14: 210}
BLOCK_BYTES |= {10: 84, 11: 110, 20: 18}
# How activations are kept.
KEPT = {"int8": {}, "two int8 parts": {"fine": True}, "float": {"exact": True}}


def random_rows(type_id, n_rows, n_cols, seed=0):
    """Bytes of a matrix with every quant and scale pattern likely, scales of ordinary size."""
    rng = np.random.default_rng(seed)
    columns = 1 if type_id in (0, 1, 30) else 256 if 10 <= type_id <= 14 else 32
    if type_id == 0:
        return rng.standard_normal((n_rows, n_cols)).astype(np.float32).tobytes()
    if type_id == 1:
        return rng.standard_normal((n_rows, n_cols)).astype(np.float16).tobytes()
    if type_id == 30:
        values = rng.standard_normal((n_rows, n_cols)).astype(np.float32)
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    n_bytes = BLOCK_BYTES[type_id]
    blocks = rng.integers(0, 256, (n_rows * n_cols // columns, n_bytes), dtype=np.uint8)
    scales = rng.uniform(-0.02, 0.02, (len(blocks), 2)).astype(np.float16).view(np.uint8)
    at = {14: 208, 11: 108, 10: 80}.get(type_id, 0)
    width = 4 if type_id in (3, 7, 10, 12, 13) else 2
    blocks[:, at : at + width] = scales[:, :width]
    return blocks.tobytes()


def packed(type_id, n_rows, n_cols, seed=0):
    matrix = linear.PackedMatrix(
        type_id, n_rows, n_cols, random_rows(type_id, n_rows, n_cols, seed)
    )
    linear.pack([matrix])
    return matrix


def dense(type_id, n_rows, n_cols, seed=0):
    data = np.frombuffer(random_rows(type_id, n_rows, n_cols, seed), np.uint8)
    return quant.dequantize(data, type_id).reshape(n_rows, n_cols)


@pytest.fixture
def at_level():
    before = dispatch.current_level()
    yield dispatch.set_level
    dispatch.set_level(before)


@pytest.mark.parametrize("type_id", TYPES, ids=TYPES.values())
def test_packed_rows_are_the_files_weights(type_id):
    n_rows, n_cols = 37, 512
    matrix, expected = packed(type_id, n_rows, n_cols), dense(type_id, n_rows, n_cols)
    for row in range(n_rows):
        assert np.array_equal(matrix.row(row), expected[row])


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("type_id", TYPES, ids=TYPES.values())
def test_every_level_gives_the_same_bits_for_any_batch(type_id, kept, at_level):
    n_rows, n_cols = 53, 768
    matrix = packed(type_id, n_rows, n_cols)
    x = np.random.default_rng(1).standard_normal((15, n_cols)).astype(np.float32) * 3
    bias = np.linspace(-1, 1, n_rows, dtype=np.float32)
    at_level("scalar")
    expected = matrix.matmul(x, bias=bias, **kept)
    for level in dispatch.available_levels():
        at_level(level)
        together = matrix.matmul(x, bias=bias, threads=2, **kept)
        assert np.array_equal(together, expected), level
        for n in (1, 2, 3, 5, 8):
            alone = matrix.matmul(x[:n], bias=bias, **kept)
            assert np.array_equal(alone, expected[:n]), (level, n)


@pytest.mark.parametrize("type_id", TYPES, ids=TYPES.values())
def test_products_agree_with_dense_arithmetic(type_id):
    n_rows, n_cols = 40, 512
    weights = dense(type_id, n_rows, n_cols)
    x = np.random.default_rng(2).standard_normal((6, n_cols)).astype(np.float32)
    expected = x.astype(np.float64) @ weights.T.astype(np.float64)
    matrix = packed(type_id, n_rows, n_cols)
    scale = np.abs(expected).max()
    assert np.abs(matrix.matmul(x, exact=True) - expected).max() < 1e-5 * scale
    assert np.abs(matrix.matmul(x, fine=True) - expected).max() < 5e-4 * scale
    assert np.abs(matrix.matmul(x) - expected).max() < 2e-2 * scale


@pytest.mark.parametrize("type_id", [t for t in TYPES if not 10 <= t <= 14])
@pytest.mark.parametrize("n_cols", [32, 64, 96, 160, 576])
def test_rows_of_any_number_of_blocks(type_id, n_cols, at_level):
    """Two blocks may share a chunk: an odd last one, and single blocks."""
    weights, matrix = dense(type_id, 19, n_cols), packed(type_id, 19, n_cols)
    assert all(np.array_equal(matrix.row(row), weights[row]) for row in range(19))
    x = np.random.default_rng(4).standard_normal((3, n_cols)).astype(np.float32)
    expected = x.astype(np.float64) @ weights.T.astype(np.float64)
    at_level("scalar")
    plain = {name: matrix.matmul(x, **kept) for name, kept in KEPT.items()}
    assert np.abs(plain["float"] - expected).max() < 1e-5 * np.abs(expected).max()
    for level in dispatch.available_levels():
        at_level(level)
        for name, kept in KEPT.items():
            assert np.array_equal(matrix.matmul(x, **kept), plain[name]), (level, name)


def test_columns_beyond_a_whole_block_count_as_zero():
    weights = np.random.default_rng(3).standard_normal((5, 40)).astype(np.float32)
    matrix = linear.PackedMatrix(0, 5, 40, weights.tobytes())
    linear.pack([matrix])
    x = np.ones((2, 40), np.float32)
    np.testing.assert_allclose(matrix.matmul(x), x @ weights.T, rtol=1e-5)


def test_extreme_quants_and_activations_do_not_overflow(at_level):
    block = np.zeros(34, np.uint8)
    block[:2] = np.float16(1).reshape(1).view(np.uint8)
    block[2:] = np.full(32, -128, np.int8).view(np.uint8)
    matrix = linear.PackedMatrix(8, 1, 512, np.tile(block, 16).tobytes())
    linear.pack([matrix])
    for level in dispatch.available_levels():
        at_level(level)
        for sign in (1, -1):
            product = matrix.matmul(np.full((1, 512), sign * 127.0, np.float32))
            assert product[0, 0] == sign * -128 * 127 * 512
            fine = matrix.matmul(np.full((1, 512), sign * 127.0, np.float32), fine=True)
            assert fine[0, 0] == pytest.approx(product[0, 0], rel=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_reach_the_result(poison, at_level):
    matrix = packed(3, 16, 64)
    x = np.ones((1, 64), np.float32)
    x[0, 40] = poison
    for level in dispatch.available_levels():
        at_level(level)
        assert np.isnan(matrix.matmul(x)).all()
        assert np.isnan(matrix.matmul(x, fine=True)).all()


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="takes 40 bytes, not 39"):
        linear.PackedMatrix(3, 2, 32, bytes(39))
    with pytest.raises(ValueError, match="cannot be packed"):
        linear.PackedMatrix(3, 2, 33, bytes(40))
    with pytest.raises(ValueError, match="cannot be packed"):
        linear.PackedMatrix(99, 2, 32, bytes(40))
    matrix = packed(3, 2, 32)
    with pytest.raises(ValueError, match="31 columns"):
        matrix.matmul(np.ones((1, 31), np.float32))
    with pytest.raises(IndexError):
        matrix.row(2)


def test_packing_into_a_region_on_threads_gives_the_same_bytes():
    def make(mapped=False):
        return [
            linear.PackedMatrix(
                type_id, rows, 512, random_rows(type_id, rows, 512, rows), mapped=mapped
            )
            for type_id, rows in ((8, 3000), (12, 17), (3, 1), (14, 2048), (0, 40))
        ]

    alone, together, given = make(), make(), make()
    linear.pack(alone)
    linear.pack(together, threads=3)
    region = ZeroedMemory(16 << 20, "weights")
    region.touch(5 << 20)
    linear.pack(given, threads=2, region=region)
    region.leave()
    region.give_back_unused()
    for a, b, c in zip(alone, together, given):
        for row in {0, 1, 7, a.shape[0] - 1} & set(range(a.shape[0])):
            assert a.row(row).tobytes() == b.row(row).tobytes() == c.row(row).tobytes()
    assert not np.frombuffer(region.mapping, np.uint8)[12 << 20 :].any()


def test_a_region_that_is_too_small_is_not_used():
    (matrix,) = [linear.PackedMatrix(8, 640, 512, random_rows(8, 640, 512, 1))]
    region = ZeroedMemory(4096, "weights")
    linear.pack([matrix], region=region)
    assert not np.frombuffer(region.mapping, np.uint8).any()
    assert np.isfinite(matrix.row(639)).all()


def test_sources_in_a_mapped_file_are_let_go_and_read_again(tmp_path):
    """Of a private mapping that was written to, letting go is seen: its changes are lost."""
    rows = random_rows(8, 4000, 512, 3)
    path = tmp_path / "weights"
    path.write_bytes(rows)
    with path.open("r+b") as file:
        for mapped in (True, False):
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            data[1000] ^= 1
            changed = bytes(data)
            matrix = linear.PackedMatrix(8, 4000, 512, data, mapped=mapped)
            linear.pack([matrix], threads=2)
            assert bytes(data) == (bytes(rows) if mapped and sys.platform == "linux" else changed)
            assert np.isfinite(matrix.row(3999)).all()


def test_a_matrix_that_is_not_finite_leaves_none_packed():
    good = linear.PackedMatrix(0, 20, 32, np.ones((20, 32), np.float32))
    poisoned = np.ones((900, 512), np.float32)
    poisoned[777, 3] = np.nan
    bad = linear.PackedMatrix(0, 900, 512, poisoned)
    for threads in (1, 4):
        with pytest.raises(linear.NotFiniteError) as caught:
            linear.pack([good, bad], threads=threads)
        assert (caught.value.index, caught.value.row) == (1, 777)
        assert not good.is_packed and not bad.is_packed
    linear.pack([good])
    assert good.row(19).tolist() == [1.0] * 32

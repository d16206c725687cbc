"""What is measured of kernels and models: the work is what is said, and bad input is told."""

import math

import pytest

from rustllm.errors import ArgumentError, ModelError
from rustllm.models.kernel_speed import measure_roofline
from rustllm.models.model_speed import measure_model
from rustllm.models.weights import PACKABLE


def test_every_block_type_and_both_kinds_of_attention():
    found = measure_roofline([1], seconds=0, repeats=1, working_set=1 << 16)
    pairs = [(k.group, k.name) for k in found.kernels]
    expected = [(g, n) for g in ("matrix-vector", "matrix-matrix") for n in PACKABLE]
    assert pairs == [*expected, ("attention decode", "F16"), ("attention prefill", "F16")]
    assert len(set(PACKABLE)) == 14
    assert all(0 < k.share < math.inf for k in found.kernels)


def test_bytes_and_operations_are_those_of_the_matrices():
    found = measure_roofline(
        [1, 2], types=["q8_0", "f32"], seconds=0, repeats=1, working_set=1 << 16
    )
    by_name = {(k.group, k.name, k.threads): k for k in found.kernels}
    vector = by_name["matrix-vector", "Q8_0", 1]
    weights = 4 * 2048 * 2048
    assert vector.operations == 2 * weights
    assert vector.n_bytes == pytest.approx(weights * 34 / 32, rel=0.01)
    assert vector.kind == "int8"
    plain = by_name["matrix-matrix", "F32", 2]
    assert plain.operations == 2 * weights * 256
    assert plain.kind == "float32" and plain.n_bytes > 4 * weights


def test_work_on_a_larger_set_is_more():
    sizes = [1 << 16, 1 << 26]
    few, many = (
        measure_roofline([1], types=["Q8_0"], seconds=0, repeats=1, working_set=n) for n in sizes
    )
    for a, b in zip(few.kernels, many.kernels):
        if a.group in ("matrix-vector", "attention decode"):
            assert b.n_bytes >= 1 << 26 > a.n_bytes
        assert a.intensity == pytest.approx(b.intensity, rel=0.01)


def test_progress_counts_to_the_end():
    seen = []
    measure_roofline(
        [1],
        types=["Q4_0"],
        seconds=0,
        repeats=1,
        working_set=1,
        progress=lambda name, done, total: seen.append((done, total)),
    )
    assert seen == [(i, 4) for i in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    "options",
    [
        {"types": ["Q9_9"]},
        {"types": ["I32"]},
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"threads": []},
        {"threads": [0]},
        {"repeats": 0},
        {"working_set": 0},
    ],
)
def test_bad_arguments_are_refused(options):
    with pytest.raises(ArgumentError):
        measure_roofline(**options)


def test_a_model_is_measured_in_a_process_of_its_own(smollm2_path):
    (row,) = measure_model(smollm2_path, [1], prompt=20, tokens=4, depth=30, rounds=1)
    assert row["threads"] == 1 and row["file_bytes"] == smollm2_path.stat().st_size
    assert 0 < row["load_seconds"] < row["first_token_seconds"]
    for field in ("prefill", "decode", "deep_decode"):
        assert row[f"{field}_tokens_per_second"] > 0
    assert row["peak_bytes"] > row["file_bytes"] > row["cache_bytes"] > 0
    assert row["decode_share"] > 0


def test_a_context_beyond_the_model_is_cut_and_none_is_left_out(smollm2_path):
    (row,) = measure_model(smollm2_path, [1], prompt=8, tokens=2, depth=0, rounds=1)
    assert row["deep_decode_tokens_per_second"] is None


@pytest.mark.parametrize("options", [{"threads": [0]}, {"rounds": 0}, {"depth": -1}, {"prompt": 0}])
def test_bad_arguments_of_a_model_are_refused(options, smollm2_path):
    with pytest.raises(ArgumentError):
        measure_model(smollm2_path, **options)


def test_what_the_process_said_is_told(tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF and no more")
    with pytest.raises(ModelError, match=r"broken\.gguf"):
        measure_model(path, rounds=1)

"""The loops that find the limits of the machine do the work that they count."""

import pytest

from rustllm._core import dispatch, peaks


@pytest.fixture(params=dispatch.available_levels())
def level(request):
    before = dispatch.current_level()
    dispatch.set_level(request.param)
    yield request.param
    dispatch.set_level(before)


def test_operations_grow_with_steps_and_threads(level):
    for kind in peaks.KINDS:
        if not peaks.has_peak(kind):
            continue
        one = peaks.compute(kind, 1)
        assert one > 0
        assert peaks.compute(kind, 50) == 50 * one
        assert peaks.compute(kind, 3, threads=2) in (3 * one, 6 * one)  # the pool may be busy


def test_every_level_has_the_two_kinds_that_kernels_use(level):
    assert peaks.has_peak("float32") and peaks.has_peak("int8")


def test_a_vector_does_more_in_a_step_than_a_number():
    counts = {}
    before = dispatch.current_level()
    for name in dispatch.available_levels():
        dispatch.set_level(name)
        counts[name] = peaks.compute("int8", 1)
    dispatch.set_level(before)
    if "avx512" in counts:
        assert counts["avx512"] == 2 * counts["avx2"]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_all_memory_is_read_whatever_the_threads(level, threads):
    stream = peaks.Stream(5 * 512 + 17)
    assert stream.nbytes == 5 * 512
    assert 1 <= stream.read(threads) <= threads


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no stream"):
        peaks.Stream(511)
    with pytest.raises(MemoryError):
        peaks.Stream(1 << 62)
    stream = peaks.Stream(512)
    for threads in (0, -1, 257):
        with pytest.raises(ValueError):
            stream.read(threads)
        with pytest.raises(ValueError):
            peaks.compute("int8", 1, threads)
    for steps in (0, -1, (1 << 40) + 1):
        with pytest.raises(ValueError):
            peaks.compute("float32", steps)
    with pytest.raises(ValueError):
        peaks.compute("float64", 1)
    if not peaks.has_peak("bfloat16"):
        with pytest.raises(ValueError, match="bfloat16"):
            peaks.compute("bfloat16", 1)

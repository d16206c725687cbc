"""The arithmetic of a roofline, and its picture."""

import json
import sys

import pytest

from rustllm.bench import KernelSpeed, Peaks, Roofline, draw_roofline, measure_peaks
from rustllm.errors import ArgumentError, MissingDependencyError, OutOfMemoryError

PEAKS = [Peaks(1, 30e9, {"int8": 400e9}), Peaks(2, 40e9, {"int8": 800e9})]


def kernel(name="Q8_0", group="matrix-vector", threads=1, **changes):
    values = {
        "kind": "int8",
        "seconds": 1e-3,
        "operations": 40e6,
        "n_bytes": 20e6,
        "read_bytes_per_second": 25e9,
        "peak_operations_per_second": 500e9,
    }
    return KernelSpeed(name, group, threads=threads, **{**values, **changes})


def test_a_kernel_that_moves_much_is_held_against_memory():
    it = kernel()
    assert it.intensity == 2
    assert it.limit == "memory" and it.bound == 50e9
    assert it.operations_per_second == pytest.approx(40e9)
    assert it.share == pytest.approx(0.8)
    assert it.bytes_per_second == pytest.approx(20e9)


def test_a_kernel_that_computes_much_is_held_against_the_peak():
    it = kernel(operations=250e6, n_bytes=1e6)
    assert it.limit == "compute" and it.bound == 500e9
    assert it.share == pytest.approx(0.5)


@pytest.mark.parametrize("field", ["seconds", "operations", "n_bytes", "read_bytes_per_second"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_nothing_in_no_time_is_no_kernel(field, value):
    with pytest.raises(ArgumentError):
        kernel(**{field: value})


def test_a_limit_that_a_kernel_saw_passed_is_raised():
    roofline = Roofline(PEAKS, [kernel(), kernel(threads=2, read_bytes_per_second=55e9)], {})
    assert [p.read_bytes_per_second for p in roofline.peaks] == [30e9, 55e9]
    assert [p.operations_per_second["int8"] for p in roofline.peaks] == [500e9, 800e9]


def test_what_is_written_can_be_computed_with():
    roofline = Roofline(PEAKS, [kernel()], {"cores": 2})
    facts = json.loads(roofline.to_json())
    assert facts["facts"] == {"cores": 2}
    (row,) = facts["kernels"]
    assert row["share_of_bound"] == pytest.approx(0.8) and row["limit"] == "memory"
    lines = str(roofline).splitlines()
    assert lines[0].startswith("1 thread: memory 30.0 GB/s") and "2 threads" in lines[1]
    assert lines[-1].split()[:2] == ["matrix-vector", "Q8_0"] and "80%" in lines[-1]


def test_limits_are_measured():
    one, two = measure_peaks([1, 2], repeats=1, stream_bytes=1 << 20)
    assert (one.threads, two.threads) == (1, 2)
    for peaks in (one, two):
        assert peaks.read_bytes_per_second > 1e6
        assert all(speed > 1e6 for speed in peaks.operations_per_second.values())


@pytest.mark.parametrize("threads", [[], [0], [257]])
def test_no_threads_measure_nothing(threads):
    with pytest.raises(ArgumentError):
        measure_peaks(threads)


def test_memory_that_cannot_be_had_is_told():
    with pytest.raises(OutOfMemoryError):
        measure_peaks([1], stream_bytes=1 << 62)
    with pytest.raises(ArgumentError):
        measure_peaks([1], stream_bytes=1)


def test_the_picture_has_every_kernel_and_is_the_same_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    kernels = [
        kernel(name, group, n, kind=kind)
        for name, group, kind in (
            ("Q8_0", "matrix-vector", "int8"),
            ("IQ4_NL", "matrix-matrix", "int8"),
            ("F16", "attention decode", "float32"),
        )
        for n in (1, 2)
    ]
    roofline = Roofline(PEAKS, kernels, {})
    for name in ("a.svg", "b.svg", "c.png"):
        draw_roofline(roofline, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    for word in ("Q8_0", "IQ4_NL", "attention decode", "memory 30 GB/s", "2 threads"):
        assert word in text
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_no_known_kind_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="neither"):
        draw_roofline(Roofline(PEAKS, [], {}), tmp_path / "a.gif")


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="plot"):
        draw_roofline(Roofline(PEAKS, [], {}), tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []

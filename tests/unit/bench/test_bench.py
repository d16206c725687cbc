"""The arithmetic of measurements, with a clock that tests control."""

import gc
import json

import pytest

from rustllm import bench
from rustllm.errors import ArgumentError, FileFormatError


class Clock:
    """Nanoseconds that pass only when work is done."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def work(self, *durations):
        """Return a function that takes these nanoseconds, one after the other, then the last."""
        left = list(durations)

        def run():
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_samples_are_seconds_a_call_and_warm_up_is_left_out():
    clock = Clock()
    result = bench.measure(
        clock.work(10**9, 1000), repeats=5, min_time=0, warmup=1, clock=clock, n_items=10
    )
    assert result.samples == pytest.approx((1e-6,) * 5)
    assert result.loops == 1
    assert result.spread == 0
    assert result.items_per_second == pytest.approx(1e7)
    assert result.bytes_per_second is None


def test_short_calls_are_repeated_until_a_sample_is_long_enough():
    clock = Clock()
    result = bench.measure(clock.work(100), min_time=1e-3, clock=clock)
    assert 1e-3 <= result.loops * 100e-9 <= 1e-2
    assert result.median == pytest.approx(100e-9)


def test_median_and_spread_of_known_samples():
    result = bench.Measurement("x", (1.0, 2.0, 3.0, 4.0, 100.0))
    assert result.median == 3.0
    assert result.best == 1.0
    assert result.spread == pytest.approx(2 / 3)
    again = bench.Measurement.from_dict(json.loads(result.to_json()))
    assert again == result


@pytest.mark.parametrize("samples", [(), (-1.0,), (float("nan"),), (1.0, float("inf"))])
def test_samples_that_cannot_be_are_refused(samples):
    with pytest.raises(ArgumentError, match="sample"):
        bench.Measurement("x", samples)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(2.5, "2.5 s"), (0.25, "250 ms"), (3e-5, "30 µs"), (4e-8, "40 ns"), (0.0, "0 ns")],
)
def test_a_measurement_in_a_line_has_a_unit_that_suits_it(seconds, shown):
    assert str(bench.Measurement("x", (seconds,))) == f"x: {shown} ± 0.0%"


def test_a_measurement_in_a_line_has_its_rates():
    result = bench.Measurement("read", (0.5, 0.5), n_items=1000, n_bytes=50_000_000)
    assert str(result) == "read: 500 ms ± 0.0%, 100.0 MB/s, 2,000 items/s"


def test_a_measurement_is_told_from_other_json():
    for values in ({}, {"name": "x", "samples": 3, "loops": 1}, {"name": "x", "samples": []}):
        with pytest.raises(FileFormatError):
            bench.Measurement.from_dict(values)


def test_candidates_are_timed_in_turn_and_ratios_are_of_the_rounds():
    clock = Clock()
    order = []

    def named(name, nanoseconds):
        work = clock.work(nanoseconds)

        def run():
            order.append(name)
            work()

        return run

    result = bench.compare(
        {"a": named("a", 100), "b": named("b", 250), "c": named("c", 50)},
        rounds=3,
        warmup=0,
        min_time=0,
        clock=clock,
    )
    assert order[3:] == list("abcbcacab")  # after one call each to calibrate
    assert result.ratio("a", "b").value == pytest.approx(2.5)
    assert result.ratio("b", "a").value == pytest.approx(0.4)
    assert result.fastest() == "c"
    values = json.loads(result.to_json())
    assert values["ratios"]["c"]["value"] == pytest.approx(0.5)
    assert "a is 2.50x" in str(result)


def test_a_machine_that_slows_down_does_not_change_the_ratio():
    clock = Clock()
    slowdown = [1]

    def work(nanoseconds):
        def run():
            clock.now += nanoseconds * slowdown[0]
            slowdown[0] += 1 if clock.now % 7 == 0 else 0

        return run

    result = bench.compare({"a": work(100), "b": work(300)}, rounds=21, min_time=0, clock=clock)
    ratio = result.ratio("a", "b")
    assert ratio.low <= 3 <= ratio.high + 0.2
    assert ratio.value == pytest.approx(3, rel=0.1)


def test_candidates_that_differ_are_no_comparison():
    with pytest.raises(ArgumentError, match="do not give the same"):
        bench.compare({"a": lambda: 1, "b": lambda: 2}, check=lambda x, y: x == y)


def test_collection_is_off_while_measuring_and_on_again_after():
    seen = []
    bench.measure(lambda: seen.append(gc.isenabled()), repeats=2, warmup=0, min_time=0)
    assert seen == [False] * 3
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        bench.measure(lambda: 1 / 0, warmup=0)
    assert gc.isenabled()


@pytest.mark.parametrize("options", [{"repeats": 0}, {"warmup": -1}, {"min_time": -1}])
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(ArgumentError):
        bench.measure(lambda: None, **options)
    with pytest.raises(ArgumentError):
        bench.compare({})

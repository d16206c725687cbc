"""parallel_map: results, order, bounds, errors at their position, and ends that leave no worker."""

import contextvars
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import get_all_start_methods

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT

from rustllm import error_context, parallel_map
from rustllm.errors import ArgumentError, FileFormatError, StateError
from rustllm.parallel import ParallelMap

MODES = ["threads", "inline"]
START_METHODS = [m for m in get_all_start_methods() if m != "fork"]


def workers():
    return [t for t in threading.enumerate() if t.name == "rustllm-worker"]


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    deadline = time.monotonic() + 5
    while workers() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert workers() == []


def triple(x):
    return 3 * x


def fail_at_three(x):
    if x == 3:
        raise FileFormatError("bad record", path="data", offset=3)
    return x


def slow(x):
    time.sleep(0.002 * ((x * 7) % 3))
    return x


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 40),
    workers=st.integers(1, 5),
    max_items=st.integers(1, 9),
    chunksize=st.integers(1, 4),
)
def test_ordered_results_are_those_of_map(mode, n, workers, max_items, chunksize):
    got = parallel_map(
        triple, range(n), workers=workers, mode=mode, max_items=max_items, chunksize=chunksize
    )
    assert list(got) == [3 * x for x in range(n)]
    assert got.progress.peak_in_flight <= max_items


@pytest.mark.parametrize("ordered", [True, False])
def test_uneven_work_gives_every_result_once(ordered):
    got = list(parallel_map(slow, range(60), workers=4, ordered=ordered))
    assert sorted(got) == list(range(60))
    if ordered:
        assert got == list(range(60))


def test_unordered_results_do_not_wait_for_a_slow_one():
    release = threading.Event()

    def work(x):
        if x == 0:
            assert release.wait(10)
        return x

    with parallel_map(work, range(4), workers=2, ordered=False, max_items=4) as results:
        assert sorted(itertools.islice(results, 3)) == [1, 2, 3]
        release.set()
        assert list(results) == [0]


@settings(max_examples=30, deadline=None)
@given(max_items=st.integers(1, 8), consumed=st.integers(1, 20), chunksize=st.integers(1, 5))
def test_nothing_is_pulled_beyond_the_bound_on_items(max_items, consumed, chunksize):
    pulled = 0

    def source():
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    with parallel_map(
        triple, source(), workers=2, max_items=max_items, chunksize=chunksize
    ) as results:
        assert pulled == 0
        for n in range(1, consumed + 1):
            next(results)
            assert pulled <= n - 1 + max_items
    assert pulled <= consumed + max_items - 1


def test_nothing_is_pulled_beyond_the_bound_on_bytes():
    def source():
        for i in range(100):
            yield bytes(1000 if i % 7 else 5000)

    with parallel_map(
        lambda b: b, source(), workers=3, max_items=1000, max_bytes=10_000
    ) as results:
        assert sum(len(r) for r in results) == 15 * 5000 + 85 * 1000
        assert 10_000 <= results.progress.peak_bytes <= 15_000
        assert results.progress.bytes_in_flight == 0


def test_results_count_towards_the_bound_on_bytes():
    started = []

    def blow_up(i):
        started.append(i)
        return np.zeros(100_000, np.uint8)

    with parallel_map(
        blow_up, range(50), workers=2, max_items=50, max_bytes=300_000, size_of=np.size
    ) as results:
        next(results)
        time.sleep(0.05)
        # Items weigh one byte each, so the first pull takes them all; this is the worst there is.
        assert results.progress.in_flight <= 50
    with parallel_map(
        blow_up, (bytes(100_000) for _ in range(50)), workers=2, max_items=50, max_bytes=300_000
    ) as results:
        for _ in results:
            assert results.progress.peak_bytes <= 400_000


def test_one_item_larger_than_the_bound_still_passes():
    got = parallel_map(len, [bytes(100), bytes(5)], workers=2, max_bytes=10)
    assert list(got) == [100, 5]


@pytest.mark.parametrize("mode", MODES)
def test_the_first_error_is_raised_at_its_position_and_ends_the_map(mode):
    results = parallel_map(fail_at_three, range(100), workers=4, mode=mode, chunksize=2)
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(FileFormatError) as caught:
        next(results)
    assert (caught.value.path, caught.value.offset) == ("data", 3)
    assert str(caught.value.frames[0]) == "mapping in parallel (item=3)"
    assert list(results) == []
    assert workers() == []


@pytest.mark.parametrize("mode", MODES)
def test_an_error_of_the_source_comes_after_the_results_before_it(mode):
    def source():
        yield from range(5)
        raise OSError("disk gone")

    results = parallel_map(triple, source(), workers=3, mode=mode)
    got = []
    with pytest.raises(OSError, match="disk gone"):
        for r in results:
            got.append(r)
    assert got == [0, 3, 6, 9, 12]
    assert list(results) == []


def test_after_an_error_nothing_more_is_pulled_and_queued_work_is_cancelled():
    pulled, ran = [], []

    def source():
        for i in itertools.count():
            pulled.append(i)
            yield i

    def work(i):
        ran.append(i)
        time.sleep(0.01)
        raise ValueError(i)

    results = parallel_map(work, source(), workers=1, max_items=10)
    with pytest.raises(ValueError, match="0"):
        next(results)
    assert len(pulled) == 10
    assert len(ran) < 10


def test_closing_early_joins_every_worker_and_runs_no_more_items():
    ran = []

    def work(i):
        ran.append(i)
        time.sleep(0.005)
        return i

    results = parallel_map(work, itertools.count(), workers=4, max_items=64)
    assert next(results) == 0
    results.close()
    assert workers() == []
    n = len(ran)
    time.sleep(0.03)
    assert len(ran) == n < 64
    results.close()
    with pytest.raises(StopIteration):
        next(results)


def test_an_interrupt_while_waiting_ends_the_map(monkeypatch):
    results = parallel_map(slow, itertools.count(), workers=3)
    next(results)

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(results, "_receive", interrupted)
        patch.setattr(results, "_fill", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_a_system_without_threads_to_spare_leaves_fewer_workers(mode, monkeypatch):
    start, started = threading.Thread.start, []

    def start_two(thread):
        if thread.name == "rustllm-worker":
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    assert list(parallel_map(triple, range(40), workers=4, mode=mode)) == list(range(0, 120, 3))
    assert len(started) == 2
    with pytest.raises(RuntimeError, match="new thread"):
        list(parallel_map(triple, range(4), workers=4, mode=mode))


def test_closing_ends_worker_processes_that_are_busy():
    results = parallel_map(time.sleep, [0, 60, 60], workers=2, mode="processes", chunksize=1)
    next(results)
    started = time.monotonic()
    results._stop(wait=False)  # what the end of the object does
    for thread in workers():
        thread.join(20)
    assert time.monotonic() - started < 20


def test_leaving_the_with_block_closes():
    with parallel_map(slow, itertools.count(), workers=3) as results:
        next(results)
    assert workers() == []


def test_dropping_the_iterator_lets_the_workers_go():
    results = parallel_map(slow, itertools.count(), workers=3)
    next(results)
    del results  # the fixture waits for the workers to be gone


def test_no_thread_starts_before_the_first_result_is_asked_for_nor_more_than_there_are_items():
    results = parallel_map(slow, range(2), workers=8)
    assert workers() == []
    next(results)
    assert len(workers()) <= 2
    results.close()


def test_the_context_of_the_caller_reaches_the_workers():
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("here")
    assert list(parallel_map(lambda _: variable.get(), range(4), workers=2)) == ["here"] * 4
    # and what a worker sets stays with that worker
    list(parallel_map(variable.set, range(4), workers=2))
    assert variable.get() == "here"


def test_two_consumers_at_once_are_refused():
    entered, release = threading.Event(), threading.Event()

    def work(x):
        entered.set()
        assert release.wait(10)
        return x

    results = parallel_map(work, range(2), workers=1)
    first = []
    consumer = threading.Thread(target=lambda: first.append(next(results)))
    consumer.start()
    assert entered.wait(10)
    with pytest.raises(StateError, match="another call"):
        next(results)
    release.set()
    consumer.join()
    assert first == [0]
    results.close()


def test_a_source_that_uses_the_map_it_feeds_is_refused():
    def source():
        yield 1
        yield next(results)

    results = parallel_map(triple, source(), workers=1, max_items=4)
    assert next(results) == 3
    with pytest.raises(StateError):
        next(results)


def test_maps_nest():
    def inner(n):
        return sum(parallel_map(triple, range(n), workers=2))

    assert list(parallel_map(inner, range(6), workers=3)) == [3 * sum(range(n)) for n in range(6)]


def test_eight_threads_each_with_a_map_of_their_own():
    def run(n):
        out[n] = list(parallel_map(triple, range(n, n + 50), workers=2, chunksize=3))

    out = {}
    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert out == {n: [3 * x for x in range(n, n + 50)] for n in range(8)}


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"max_items": 0},
        {"max_bytes": 0},
        {"chunksize": 0},
        {"mode": "fibres"},
    ],
)
def test_bounds_below_one_are_refused(options):
    with pytest.raises(ArgumentError):
        parallel_map(triple, [], **options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_refused_and_not_hung():
    results = parallel_map(triple, itertools.count(), workers=2)
    next(results)
    child = os.fork()
    if child == 0:
        try:
            next(results)
        except StateError:
            os._exit(7)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert next(results) == 3
    results.close()


def test_error_contexts_of_worker_and_consumer_meet_innermost_first():
    def work(x):
        with error_context("reading", record=x):
            return fail_at_three(x)

    for mode in MODES:
        with pytest.raises(FileFormatError) as caught, error_context("tokenizing", corpus="c4"):
            list(parallel_map(work, range(5), workers=2, mode=mode))
        frames = [frame.what for frame in caught.value.frames]
        assert frames == ["reading", "mapping in parallel", "tokenizing"]


@pytest.mark.parametrize("mode", MODES)
def test_stop_iteration_from_the_function_does_not_pass_for_the_end(mode):
    def work(x):
        return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(parallel_map(work, range(5), workers=2, mode=mode))


# -- processes: few tests, since starting one takes a tenth of a second ---------------------------


def die(x):
    os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("cannot be pickled")


def raise_unpicklable(x):
    raise Unpicklable("too odd to travel")


def return_unpicklable(x):
    return lambda: x


@pytest.mark.parametrize("start_method", START_METHODS)
def test_processes_give_the_same_results_in_order(start_method):
    results = parallel_map(
        os.fspath, map(str, range(40)), workers=2, mode="processes", chunksize=5,
        start_method=start_method,
    )  # fmt: skip
    assert list(results) == [str(n) for n in range(40)]


def test_large_items_and_results_pass_through_processes():
    big = np.arange(1 << 20, dtype=np.uint32)
    with parallel_map(np.sort, [big[::-1]] * 3, workers=2, mode="processes") as results:
        for got in results:
            assert np.array_equal(got, big)


def test_errors_come_back_from_processes_with_their_fields_and_trace():
    results = parallel_map(fail_at_three, range(9), workers=2, mode="processes", chunksize=2)
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(FileFormatError) as caught:
        next(results)
    assert caught.value.offset == 3
    notes = "\n".join(caught.value.__notes__)
    assert "item=3" in notes
    assert "fail_at_three" in notes


def test_what_cannot_be_pickled_is_an_error_and_not_a_hang():
    with pytest.raises(Exception, match="too odd to travel"):
        list(parallel_map(raise_unpicklable, [1], workers=1, mode="processes"))
    with pytest.raises(Exception, match="pickle|local object"):
        list(parallel_map(return_unpicklable, [1], workers=1, mode="processes"))
    with pytest.raises(Exception, match="pickle|local object"):
        list(parallel_map(str, [lambda: 1], workers=1, mode="processes"))
    with pytest.raises(Exception, match="pickle|local object|lambda"):
        list(parallel_map(lambda x: x, [1], workers=1, mode="processes"))


def test_a_worker_process_that_dies_is_an_error_that_says_so():
    with pytest.raises(StateError, match="-9 at items 0 to 1") as caught:
        list(parallel_map(die, [1, 2], workers=1, mode="processes", chunksize=2))
    assert caught.value.exitcode == -9


def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from rustllm import parallel_map\n"
        "list(parallel_map(abs, range(3), workers=1, mode='processes'))\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()
    assert any(line.startswith("rustllm.errors.StateError: a worker process") for line in last)
    assert "__name__ == '__main__'" in result.stderr


@pytest.mark.parametrize("mode", ["threads", "processes"])
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_is_prompt_although_a_worker_sleeps(mode, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "from rustllm import parallel_map\n"
        "if __name__ == '__main__':\n"
        f"    with parallel_map(time.sleep, [0.0] + [60.0] * 9, workers=2, mode={mode!r}) as r:\n"
        "        next(r)\n"
        "        print('ready', flush=True)\n"
        "        list(r)\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(script)], env=environment, **pipes) as child:
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.1)
        start = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=30)
    assert time.monotonic() - start < 15
    assert b"KeyboardInterrupt" in stderr
    assert child.returncode != 0


def test_the_result_is_a_parallel_map():
    assert isinstance(parallel_map(triple, []), ParallelMap)

import gc
import threading

import pytest

from rustllm import Arena, errors
from rustllm.allocators import Allocator, Counted, FailAfter, Limited, Tracked


def test_the_arena_and_every_wrapper_are_allocators():
    arena = Arena()
    for one in (arena, Limited(arena, 1), Counted(arena), Tracked(arena), FailAfter(arena, 1)):
        assert isinstance(one, Allocator)


def test_limit_counts_bytes_as_asked_for_until_they_are_taken_back():
    limited = Limited(Arena(), 100)
    with limited.scope() as inner:
        assert inner is limited
        limited.alloc(60)
        with pytest.raises(errors.MemoryLimitError) as caught:
            limited.alloc_array((5, 3), "float32")
        assert (caught.value.requested, caught.value.limit) == (60, 100)
    limited.alloc(100)
    limited.reset()
    limited.alloc_array(25, "float32")
    assert limited.n_bytes == 100
    with pytest.raises(errors.ArgumentError):
        Limited(Arena(), -1)


def test_a_request_refused_further_inside_does_not_count():
    limited = Limited(FailAfter(Arena(), 0, times=1), 100)
    with pytest.raises(errors.OutOfMemoryError):
        limited.alloc(100)
    for bad in (-1, -1000):
        with pytest.raises(errors.ArgumentError):
            limited.alloc(bad)
    limited.alloc(100)
    assert limited.n_bytes == 100


def test_counts_tell_sizes_failures_and_peak():
    counted = Counted(Limited(Arena(), 1000))
    counted.alloc(0)
    counted.alloc(64)
    counted.alloc(65)
    with counted.scope():
        counted.alloc_array(100, "float64")
    with pytest.raises(errors.MemoryLimitError):
        counted.alloc(1000)
    counts = counted.counts
    assert counts.by_size == {1: 1, 64: 1, 128: 1, 1024: 1}
    assert (counts.n_allocations, counts.n_failures) == (4, 1)
    assert (counts.n_bytes, counts.peak_bytes, counts.total_bytes) == (129, 929, 929)
    counted.reset()
    assert (counted.counts.n_bytes, counted.counts.n_resets) == (0, 1)


def test_tracking_names_the_place_that_still_holds_memory():
    tracked = Tracked(Arena())

    def leaky():
        return tracked.alloc_array(10)

    kept = leaky()
    dropped = tracked.alloc(5)
    del dropped
    gc.collect()
    (record,) = tracked.live()
    assert record.n_bytes == 80
    assert "in leaky" in record.stack
    with pytest.raises(errors.LiveViewError, match="1 allocations") as caught:
        tracked.check()
    assert "in leaky" in caught.value.hint
    assert caught.value.n_bytes == 80
    del kept, record
    tracked.check()


def test_fail_after_refuses_the_requests_it_was_told_to():
    failing = FailAfter(Arena(), 2, times=2)
    outcomes = []
    for _ in range(6):
        try:
            failing.alloc(8)
            outcomes.append(True)
        except errors.OutOfMemoryError:
            outcomes.append(False)
    assert outcomes == [True, True, False, False, True, True]


def test_wrappers_count_exactly_under_eight_threads():
    counted = Counted(Limited(Tracked(Arena(), depth=1), 8 * 200 * 10))
    start = threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(200):
            counted.alloc(10)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.counts.n_bytes == 16_000
    with pytest.raises(errors.MemoryLimitError):
        counted.alloc(1)

import gc
import pickle
import threading
import weakref

import numpy as np
import pytest

from rustllm import TokenPool, errors
from rustllm._core.alloc import fail_after, heap_stats


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 80, 81, 1000, 1025, (1 << 20) + 1])
def test_a_lease_is_a_writable_buffer_of_n_tokens(n):
    lease = TokenPool().lease(n)
    view = memoryview(lease)
    assert (view.format, view.shape, view.itemsize, view.readonly) == ("I", (n,), 4, False)
    assert len(lease) == n
    assert lease.nbytes == 4 * n
    array = lease.array
    assert (array.dtype, array.shape) == (np.uint32, (n,))
    assert array.ctypes.data % 64 == 0 or n == 0
    array[:] = np.arange(n)
    assert lease.tolist() == list(range(n))


def test_size_classes_grow_by_at_most_a_quarter_and_never_fall_short():
    pool = TokenPool()
    previous = 0
    for n in [*range(1, 3000), *(1 << k for k in range(12, 25)), *((1 << k) + 1 for k in (12, 23))]:
        capacity = pool.lease(n).capacity
        assert capacity >= n
        assert capacity <= max(64, n * 1.25 + 1)
        if n < 3000:
            assert capacity >= previous
            previous = capacity


def test_the_same_memory_serves_the_next_lease_of_its_class():
    pool = TokenPool()
    with pool.lease(1000) as lease:
        address = lease.array.ctypes.data
    with pool.lease(900) as lease:
        assert lease.array.ctypes.data == address
    assert pool.stats.n_reused == 1


def test_a_second_release_raises():
    lease = TokenPool().lease(10)
    lease.release()
    assert lease.is_released
    with pytest.raises(errors.DoubleReleaseError):
        lease.release()


def test_leaving_the_block_after_a_release_inside_it_is_fine():
    pool = TokenPool()
    with pool.lease(10) as lease:
        lease.release()
    assert pool.stats.n_leased == 0


def test_a_released_lease_is_stale():
    lease = TokenPool().lease(10)
    empty = TokenPool().lease(0)
    lease.release()
    empty.release()
    for use in (
        memoryview,
        lambda lease: lease.tolist(),
        lambda lease: lease[0],
        lambda lease: lease.resize(3),
    ):
        with pytest.raises(errors.StaleHandleError):
            use(lease)
    for one in (lease, empty):
        with pytest.raises((errors.StaleHandleError, BufferError)):
            _ = one.array
    assert lease.capacity == 0
    assert "released" in repr(lease)


def test_memory_under_a_live_array_is_not_lent_again():
    pool = TokenPool()
    lease = pool.lease(100)
    array = lease.array
    array[:] = 7
    lease.release()
    assert pool.stats.n_deferred == 1
    with pool.lease(100) as other:
        other.array[:] = 1
    assert (array == 7).all()
    del array
    stats = pool.stats
    assert (stats.n_deferred, stats.n_leased, stats.n_idle) == (0, 0, 2)


def test_release_raises_on_live_views_when_asked_and_changes_nothing():
    pool = TokenPool()
    lease = pool.lease(100)
    array = lease.array
    with pytest.raises(errors.LiveViewError) as caught:
        lease.release(on_live="raise")
    assert (caught.value.n_views, caught.value.n_bytes) == (1, 400)
    assert not lease.is_released
    array[:] = 1
    del array
    lease.release(on_live="raise")
    with pytest.raises(errors.ArgumentError):
        pool.lease(1).release(on_live="wait")


def test_a_dropped_lease_returns_its_memory_and_is_counted():
    pool = TokenPool()
    pool.lease(10)
    array = pool.lease(10).array
    assert pool.stats.n_dropped == 1
    array[:] = 3
    del array
    assert pool.stats.n_dropped == 2
    assert pool.stats.n_leased == 0


def test_arrays_outlive_the_pool():
    gc.collect()
    before = heap_stats()[:2]
    pool = TokenPool()
    array = pool.lease(1000).array
    array[:] = 9
    del pool
    gc.collect()
    assert (array == 9).all()
    del array
    assert heap_stats()[:2] == before


def test_resize_keeps_the_tokens_and_refuses_while_seen():
    pool = TokenPool()
    lease = pool.lease(10)
    lease.array[:] = range(10)
    lease.resize(64)
    assert lease.capacity == 64
    lease.resize(5000)
    assert lease.tolist()[:10] == list(range(10))
    assert len(lease) == 5000
    lease.resize(3)
    assert lease.tolist() == [0, 1, 2]
    array = lease.array
    with pytest.raises(errors.LiveViewError):
        lease.resize(4)
    assert array.tolist() == [0, 1, 2]


def test_limit_bounds_what_is_held_and_idle_memory_gives_way():
    pool = TokenPool(limit=10_000)
    leases = [pool.lease(64) for _ in range(30)]
    for lease in leases:
        lease.release()
    big = pool.lease(2000)
    stats = pool.stats
    assert stats.held_bytes <= 10_000
    assert stats.n_idle < 30
    with pytest.raises(errors.MemoryLimitError) as caught:
        pool.lease(1000)
    assert (caught.value.requested, caught.value.limit) == (1000, 10_000)
    big.release()
    pool.lease(1000)
    with pytest.raises(errors.MemoryLimitError):
        TokenPool(limit=0).lease(0)


@pytest.mark.parametrize("n", [1 << 60, 1 << 62, 1 << 64, 1 << 90])
def test_sizes_beyond_the_address_space_are_refused(n):
    with pytest.raises(errors.OutOfMemoryError):
        TokenPool().lease(n)


@pytest.mark.parametrize("n", [-1, 1.5, "3", None])
def test_sizes_that_are_no_counts_are_refused(n):
    pool = TokenPool()
    with pytest.raises(errors.ArgumentError):
        pool.lease(n)
    if n is not None:
        with pytest.raises(errors.ArgumentError):
            TokenPool(limit=n)


def test_buffers_above_the_largest_class_go_back_to_the_system():
    pool = TokenPool()
    with pool.lease((1 << 24) + 1) as lease:
        assert lease.capacity == (1 << 24) + 1
    stats = pool.stats
    assert (stats.held_bytes, stats.n_idle) == (0, 0)
    assert stats.peak_bytes > 1 << 26


def test_idle_memory_is_bounded_on_its_own():
    pool = TokenPool(max_idle=20_000)
    leases = [pool.lease(n) for n in (1_000, 2_000, 4_000, 100)]
    for lease in leases:
        lease.release()
    stats = pool.stats
    assert (stats.n_leased, stats.n_idle) == (0, 3)  # 4,000 tokens would have been too much
    assert stats.held_bytes == stats.idle_bytes <= 20_000
    with pool.lease(2_000):
        assert pool.stats.n_reused == 1
    none = TokenPool(max_idle=0)
    none.lease(10).release()
    assert none.stats.held_bytes == 0
    with pytest.raises(errors.ArgumentError):
        TokenPool(max_idle=-1)


def test_trim_and_zeroing():
    pool = TokenPool()
    with pool.lease(100) as lease:
        lease.array[:] = 1
    with pool.lease(100, zeroed=True) as lease:
        assert not lease.array.any()
    assert pool.trim() > 400
    assert pool.stats.held_bytes == 0


def test_leases_cannot_be_made_by_hand_nor_pickled():
    lease = TokenPool().lease(1)
    with pytest.raises(TypeError):
        type(lease)()
    with pytest.raises(TypeError):
        pickle.dumps(lease)
    assert weakref.ref(lease)() is lease


def test_a_used_pool_cannot_be_initialised_again():
    pool = TokenPool()
    pool.lease(1)
    with pytest.raises(errors.ArgumentError):
        pool.__init__(limit=1)


def test_every_failing_allocation_leaves_the_pool_whole():
    gc.collect()
    before = heap_stats()[:2]
    for n in range(100):
        pool = TokenPool()
        kept = []
        with fail_after(n, times=1) as failing:
            try:
                kept.append(pool.lease(10, zeroed=True))
                for size in (100, 1000, 10_000):
                    kept.append(pool.lease(size, zeroed=True))
                    kept[0].resize(size + 1)
                    assert not any(kept[0].tolist()[:10])
            except errors.OutOfMemoryError:
                pass
        assert pool.stats.n_leased == len(kept)
        kept.clear()
        stats = pool.stats
        assert (stats.n_leased, stats.leased_bytes) == (0, 0)
        assert stats.held_bytes == stats.idle_bytes
        pool.lease(10).release()
        if not failing.n_failed:
            break
    else:
        pytest.fail("still failing after 100 allocations")
    assert n >= 5
    del pool
    assert heap_stats()[:2] == before


def test_eight_threads_share_one_pool():
    pool = TokenPool(limit=1 << 22)
    start = threading.Barrier(8)
    wrong = []

    def work(worker):
        rng = np.random.default_rng(worker)
        start.wait()
        for step in range(400):
            lease = pool.lease(int(rng.integers(0, 3000)))
            array = lease.array
            array[:] = worker * 1000 + step
            if step % 3 == 0:
                lease.release()
            if not (array == worker * 1000 + step).all():
                wrong.append((worker, step))
            if step % 50 == 0:
                pool.trim()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    stats = pool.stats
    assert (stats.n_leased, stats.n_deferred, stats.leased_bytes) == (0, 0, 0)
    assert stats.n_leases == 8 * 400


def test_eight_threads_releasing_one_lease_release_it_once():
    for _ in range(50):
        pool = TokenPool()
        lease = pool.lease(10)
        start = threading.Barrier(8)
        outcomes = []

        def work(lease=lease, start=start, outcomes=outcomes):
            start.wait()
            try:
                lease.release()
                outcomes.append("released")
            except errors.DoubleReleaseError:
                outcomes.append("refused")

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["refused"] * 7 + ["released"]
        assert pool.stats.n_idle == 1

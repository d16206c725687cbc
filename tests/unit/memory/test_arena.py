import gc
import os
import pickle
import shutil
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from paths import ROOT

from rustllm import Arena, errors
from rustllm._core.alloc import POISONING, fail_after, heap_stats


def exact(n_bytes):
    """Sizes are exact but in builds with redzones."""
    return pytest.approx(n_bytes, abs=1 << 20) if POISONING else n_bytes


def test_a_buffer_is_writable_memory_of_the_size_and_alignment_asked_for():
    arena = Arena(chunk_size=4096)
    for align in (1, 2, 16, 64, 256, 4096):
        buffer = arena.alloc(33, align=align)
        assert buffer.address % align == 0
        assert len(buffer) == buffer.nbytes == 33
        view = memoryview(buffer)
        assert (view.format, view.shape, view.strides, view.readonly) == ("B", (33,), (1,), False)
        view[:] = bytes(range(33))
        assert bytes(buffer) == bytes(range(33))
        buffer[0] = 9
        buffer[1:3] = b"xy"
        assert (buffer[0], bytes(buffer[1:3])) == (9, b"xy")


def test_allocations_do_not_overlap_within_and_across_chunks():
    arena = Arena(chunk_size=64)
    views = [np.frombuffer(arena.alloc(n), np.uint8) for n in range(1, 200)]
    for n, view in enumerate(views):
        view[:] = n % 251
    for n, view in enumerate(views):
        assert (view == n % 251).all()
    assert arena.stats.n_chunks > 1


def test_zero_bytes_are_a_valid_request_even_with_a_limit_of_zero():
    arena = Arena(limit=0)
    buffer = arena.alloc(0)
    assert bytes(buffer) == b""
    assert arena.stats.held_bytes == 0
    with pytest.raises(errors.MemoryLimitError):
        arena.alloc(1)


@pytest.mark.parametrize("align", [0, 3, 12, 8192, 1 << 40])
def test_an_alignment_that_is_no_power_of_two_up_to_4096_is_refused(align):
    arena = Arena()
    with pytest.raises(errors.ArgumentError, match="power of two"):
        arena.alloc(8, align=align)
    arena.alloc(8)
    with pytest.raises(errors.ArgumentError, match="power of two"):
        arena.alloc(8, align=align)


@pytest.mark.parametrize("n", [-1, -(1 << 80)])
def test_a_negative_size_is_refused(n):
    with pytest.raises(errors.ArgumentError):
        Arena().alloc(n)
    with pytest.raises(errors.ArgumentError):
        Arena().alloc_array((n, 2))
    with pytest.raises(errors.ArgumentError):
        Arena(chunk_size=n)
    with pytest.raises(errors.ArgumentError):
        Arena(limit=n)


@pytest.mark.parametrize("n", [1 << 62, 1 << 63, (1 << 64) - 1, 1 << 64, 1 << 100])
def test_sizes_beyond_the_address_space_are_refused_without_overflow(n):
    arena = Arena()
    with pytest.raises(errors.OutOfMemoryError):
        arena.alloc(n)
    with pytest.raises(errors.OutOfMemoryError):
        arena.alloc_array(n, "int8")
    assert arena.stats.used_bytes == 0


def test_a_shape_whose_product_overflows_is_refused():
    for shape in [(1 << 32, 1 << 32), (3, 1 << 62), (1 << 21,) * 3, (1 << 61,)]:
        with pytest.raises(errors.OutOfMemoryError):
            Arena().alloc_array(shape, "float64")
    for shape in [(1 << 32, 0, 1 << 32), (0, 1 << 62)]:
        with pytest.raises(errors.OutOfMemoryError):
            Arena().alloc_array(shape, "float64")
    assert Arena().alloc_array((1 << 32, 0), "float64").shape == (1 << 32, 0)


@pytest.mark.parametrize("value", ["8", 1.5, None])
def test_a_size_that_is_no_integer_is_refused(value):
    with pytest.raises(errors.ArgumentError):
        Arena().alloc(value)


def test_numpy_integers_are_sizes():
    assert len(Arena(chunk_size=np.int64(128)).alloc(np.uint16(7))) == 7


@pytest.mark.parametrize(
    "dtype", ["float32", "int8", "complex128", "<U3", [("a", "i4"), ("b", "f8")], "M8[s]", ">i2"]
)
@pytest.mark.parametrize("shape", [(), 0, 7, (2, 3), (0, 3), (1,) * 8])
def test_arrays_have_the_shape_and_type_asked_for_and_live_in_the_arena(shape, dtype):
    arena = Arena()
    array = arena.alloc_array(shape, dtype, zeroed=True)
    assert array.shape == np.empty(shape, dtype).shape
    assert array.dtype == np.dtype(dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.ctypes.data % 64 == 0
    assert (array == np.zeros(shape, dtype)).all()
    assert arena.stats.n_views == 1


@pytest.mark.parametrize("dtype", ["O", [("a", "O")], "(2,)f4", "V0"])
def test_types_that_cannot_live_in_raw_memory_are_refused(dtype):
    with pytest.raises(errors.ArgumentError):
        Arena().alloc_array(3, dtype)


def test_limit_bounds_all_memory_held_and_its_error_carries_the_numbers():
    arena = Arena(chunk_size=1024, limit=4096)
    arena.alloc(3000)
    with pytest.raises(errors.MemoryLimitError) as caught:
        arena.alloc(2000)
    assert (caught.value.requested, caught.value.limit) == (2000, 4096)
    arena.alloc(500)
    assert arena.stats.held_bytes <= 4096
    arena.reset()
    assert len(arena.alloc(4096)) == 4096
    assert arena.stats.held_bytes <= 4096


def test_retired_memory_counts_against_the_limit_until_its_views_die():
    arena = Arena(chunk_size=1024, limit=4096)
    array = arena.alloc_array(4000, "u1")
    arena.reset()
    with pytest.raises(errors.MemoryLimitError):
        arena.alloc(1000)
    del array
    arena.alloc(4096)


def test_reset_keeps_live_views_and_hands_out_other_memory():
    arena = Arena(chunk_size=1024)
    array = arena.alloc_array(100, "int64")
    array[:] = np.arange(100)
    arena.reset()
    assert arena.stats.n_retired == 1
    for _ in range(50):
        np.frombuffer(arena.alloc(900), np.uint8)[:] = 255
    assert (array == np.arange(100)).all()
    del array
    stats = arena.stats
    assert (stats.n_retired, stats.retired_bytes) == (0, 0)


def test_views_outlive_the_arena():
    arena = Arena()
    array = arena.alloc_array(1000, "int32")
    array[:] = 7
    buffer = arena.alloc(5)
    part = array[10:20]
    del array, arena
    gc.collect()
    assert (part == 7).all()
    memoryview(buffer)[:] = b"abcde"
    assert bytes(buffer) == b"abcde"


def test_all_memory_returns_to_the_system():
    gc.collect()
    before = heap_stats()
    for _ in range(100):
        arena = Arena(chunk_size=256)
        views = [arena.alloc_array(50, "f4") for _ in range(20)]
        buffers = [arena.alloc(50) for _ in range(20)]
        arena.reset()
        views.append(arena.alloc_array(5000))
        del arena, views, buffers
    gc.collect()
    assert heap_stats()[:2] == before[:2]


def test_a_buffer_without_views_is_stale_after_a_reset():
    arena = Arena()
    buffer = arena.alloc(8)
    arena.reset()
    assert buffer.is_stale
    assert "stale" in repr(buffer)
    for use in (memoryview, bytes, lambda b: b[0], lambda b: b.address, np.asarray):
        with pytest.raises((errors.StaleHandleError, BufferError, TypeError)) as caught:
            use(buffer)
        assert isinstance(caught.value, errors.StaleHandleError) or use is np.asarray
    with pytest.raises(errors.StaleHandleError):
        buffer[0] = 1


def test_a_retired_buffer_takes_no_new_view_but_keeps_the_old():
    arena = Arena()
    buffer = arena.alloc(8)
    view = memoryview(buffer)
    view[:] = b"12345678"
    arena.reset()
    with pytest.raises(errors.StaleHandleError):
        memoryview(buffer)
    assert view[2:4].tobytes() == b"34"
    view.release()
    assert arena.stats.retired_bytes == 0


def test_reset_raises_on_live_views_when_asked_and_changes_nothing():
    arena = Arena()
    array = arena.alloc_array(100, "u1")
    view = memoryview(arena.alloc(10))
    before = arena.stats
    with pytest.raises(BufferError) as caught:
        arena.reset(on_live="raise")
    error = caught.value
    assert isinstance(error, errors.LiveViewError)
    assert (error.n_views, error.n_bytes, error.n_pins) == (2, 110, 0)
    assert arena.stats == before
    again = pickle.loads(pickle.dumps(error))
    assert again.n_views == 2
    del array
    view.release()
    arena.reset(on_live="raise")
    assert arena.stats.used_bytes == 0


def test_an_unknown_policy_is_refused():
    with pytest.raises(errors.ArgumentError, match="on_live"):
        Arena().reset(on_live="wait")


def test_scope_takes_back_what_was_allocated_inside_only():
    arena = Arena(chunk_size=256)
    outer = arena.alloc(100)
    used = arena.stats.used_bytes
    with arena.scope() as inner:
        assert inner is arena
        buffers = [arena.alloc(100) for _ in range(20)]
    assert arena.stats.used_bytes == used
    assert all(buffer.is_stale for buffer in buffers)
    assert not outer.is_stale
    memoryview(outer)[:] = bytes(100)


def test_scope_keeps_what_a_live_view_sees_and_reuses_it_when_the_view_is_gone():
    arena = Arena(chunk_size=4096)
    arena.alloc(0)
    before = arena.stats.used_bytes
    with arena.scope():
        used = arena.stats.used_bytes
        with arena.scope():
            arena.alloc(100)
            kept = np.frombuffer(arena.alloc(100), np.uint8)
            kept[:] = 5
            arena.alloc(1000)
        assert used < arena.stats.used_bytes < 1000 or POISONING
        np.frombuffer(arena.alloc(500), np.uint8)[:] = 1
        assert (kept == 5).all()
        del kept
    assert arena.stats.used_bytes == before


def test_scope_in_a_loop_does_not_grow_while_an_older_view_lives():
    arena = Arena(chunk_size=4096)
    array = arena.alloc_array(10)
    for _ in range(100):
        with arena.scope():
            arena.alloc_array(300)
    assert arena.stats.n_chunks == 1
    assert array.shape == (10,)


def test_scope_raises_on_live_views_when_asked():
    arena = Arena()
    with pytest.raises(errors.LiveViewError), arena.scope(on_live="raise"):
        array = arena.alloc_array(3)
    array[:] = 1
    del array
    arena.reset(on_live="raise")


def test_reset_inside_a_scope_leaves_it_nothing_to_do():
    arena = Arena()
    with arena.scope():
        arena.alloc(10)
        arena.reset()
        after = arena.alloc(10)
    assert not after.is_stale


def test_a_scope_object_can_be_used_again_but_not_inside_itself():
    arena = Arena()
    scope = arena.scope()
    for _ in range(2):
        with scope:
            arena.alloc(10)
            with pytest.raises(errors.StateError):
                scope.__enter__()
    assert arena.stats.used_bytes == 0


def test_marks_of_a_rolled_back_part_and_of_other_arenas_are_stale():
    arena = Arena()
    first = arena.mark()
    arena.alloc(10)
    second = arena.mark()
    arena.rollback(first)
    arena.alloc(100)
    with pytest.raises(errors.StaleHandleError):
        arena.rollback(second)
    arena.rollback(first)
    arena.reset()
    with pytest.raises(errors.StaleHandleError):
        arena.rollback(first)
    with pytest.raises(errors.StaleHandleError):
        Arena().rollback(arena.mark())


def test_pin_keeps_memory_in_place_through_a_reset():
    arena = Arena(chunk_size=1024)
    with arena.pin():
        buffer = arena.alloc(16)
        address = buffer.address
        with pytest.raises(errors.LiveViewError) as caught:
            arena.reset(on_live="raise")
        assert caught.value.n_pins == 1
        arena.reset()
        assert buffer.is_stale
        addresses = {arena.alloc(16).address for _ in range(100)}
        assert address not in addresses
        assert arena.stats.n_pins == 1
    arena.reset()
    assert arena.stats.n_pins == 0
    assert arena.stats.idle_bytes == arena.stats.held_bytes


def test_pin_keeps_memory_in_place_through_a_scope():
    arena = Arena(chunk_size=1024)
    with arena.pin():
        with arena.scope():
            addresses = {arena.alloc(100).address for _ in range(30)}
        with arena.scope():
            again = {arena.alloc(100).address for _ in range(30)}
        assert not addresses & again


def test_a_dropped_pin_unpins():
    arena = Arena()
    pin = arena.pin()
    pin.__enter__()
    pin.__exit__(None, None, None)
    pin.__exit__(None, None, None)
    assert arena.stats.n_pins == 0
    pin.__enter__()
    assert arena.stats.n_pins == 1
    del pin
    gc.collect()
    assert arena.stats.n_pins == 0


def test_close_gives_everything_back_and_refuses_more():
    gc.collect()
    before = heap_stats().n_bytes
    with Arena() as arena:
        arena.alloc(100)
        array = arena.alloc_array(10, zeroed=True)
    assert arena.is_closed
    arena.close()
    with pytest.raises(errors.StateError, match="closed"):
        arena.alloc(1)
    assert "closed" in repr(arena)
    assert array.sum() == 0
    del array, arena
    assert heap_stats().n_bytes <= before


def test_trim_gives_idle_chunks_back():
    arena = Arena(chunk_size=1000)
    arena.alloc(5000)
    arena.reset()
    assert arena.trim() == 5000
    assert arena.stats.held_bytes == 0
    assert arena.trim() == 0


def test_stats_tell_use_peak_and_counts():
    arena = Arena(chunk_size=1 << 20)
    arena.alloc(1000, align=1)
    arena.alloc(24, align=1)
    view = memoryview(arena.alloc(8, align=1))
    stats = arena.stats
    assert stats.used_bytes == exact(1032)
    assert (stats.n_buffers, stats.n_live, stats.n_views, stats.n_chunks) == (3, 1, 1, 1)
    view.release()
    arena.reset()
    stats = arena.stats
    assert stats.used_bytes == 0
    assert stats.peak_bytes == exact(1032)
    assert (stats.n_resets, stats.limit, stats.idle_bytes) == (1, None, 1 << 20)


def test_chunks_double_up_to_sixteen_mebibytes():
    arena = Arena(chunk_size=1 << 22)
    sizes, held = [], 0
    while len(sizes) < 5:
        arena.alloc(1 << 20)
        if arena.stats.held_bytes > held:
            sizes.append(arena.stats.held_bytes - held)
            held = arena.stats.held_bytes
    assert sizes == [1 << 22, 1 << 23, 1 << 24, 1 << 24, 1 << 24]


def test_a_used_arena_cannot_be_initialised_again():
    arena = Arena()
    arena.alloc(1)
    with pytest.raises(errors.StateError):
        arena.__init__(chunk_size=1)


def test_buffers_cannot_be_made_by_hand_nor_pickled_and_take_weak_references():
    arena = Arena()
    buffer = arena.alloc(1)
    with pytest.raises(TypeError):
        type(buffer)()
    with pytest.raises(TypeError):
        pickle.dumps(buffer)
    with pytest.raises(TypeError):
        pickle.dumps(arena)
    assert weakref.ref(buffer)() is buffer
    assert weakref.ref(arena)() is arena


@pytest.mark.parametrize("size", [64, 4096, 1 << 16])
def test_every_failing_allocation_leaves_the_arena_whole(size):
    def work(arena):
        done = []
        try:
            for n in (10, 100, 1000, 10_000, 100_000):
                with arena.scope():
                    arena.alloc(n)
                done.append(arena.alloc_array(n, "u1"))
                done[-1][:] = n % 251
            arena.reset()
            arena.alloc(50_000)
        finally:
            for array in done:
                assert (array == len(array) % 251).all()

    gc.collect()
    before = heap_stats()
    for n in range(100):
        arena = None
        with fail_after(n, times=1) as failing:
            try:
                arena = Arena(chunk_size=size)
                work(arena)
            except errors.OutOfMemoryError:
                pass
        if arena is not None:
            arena.reset()
            stats = arena.stats
            assert stats.used_bytes == stats.n_live == stats.n_views == 0
            assert stats.idle_bytes + stats.retired_bytes == stats.held_bytes
            work(arena)
            del arena
        if not failing.n_failed:
            break
    else:
        pytest.fail("still failing after 100 allocations")
    assert n > 3
    gc.collect()
    assert heap_stats()[:2] == before[:2]


def test_eight_threads_share_one_arena():
    arena = Arena(chunk_size=512)
    start = threading.Barrier(8)
    wrong = []

    def work(worker):
        start.wait()
        rng = np.random.default_rng(worker)
        kept = []
        for step in range(300):
            array = arena.alloc_array(int(rng.integers(1, 400)), "u1")
            array[:] = worker * 31 % 251
            kept.append(array)
            if step % 50 == 49:
                wrong.extend(a for a in kept if not (a == worker * 31 % 251).all())
                kept.clear()
                arena.reset()
            elif step % 17 == 0:
                with arena.pin():
                    arena.alloc(3)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    arena.reset()
    stats = arena.stats
    assert (stats.used_bytes, stats.n_views, stats.n_retired, stats.n_pins) == (0, 0, 0, 0)


STALE_READS = {
    "arena": """
from rustllm import Arena
arena = Arena()
address = arena.alloc(64).address
arena.reset()
""",
    "scope": """
from rustllm import Arena
arena = Arena()
arena.alloc(1)
with arena.scope():
    address = arena.alloc(64).address
""",
    "overrun": """
from rustllm import Arena
arena = Arena()
first, second = arena.alloc(16), arena.alloc(16)
address = first.address + 16
""",
    "pool": """
from rustllm import TokenPool
pool = TokenPool()
with pool.lease(100) as lease:
    address = lease.array.ctypes.data
""",
}


SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
TOOL = [] if SANITIZED else ["valgrind", "--quiet", "--error-exitcode=99"]


@pytest.mark.skipif(
    not POISONING, reason="needs a build that poisons (tests/run_asan.sh, tests/run_valgrind.sh)"
)
@pytest.mark.skipif(bool(TOOL) and not shutil.which("valgrind"), reason="needs valgrind")
@pytest.mark.parametrize("case", STALE_READS)
def test_reads_of_memory_taken_back_are_seen(case):
    touch = "import ctypes\nprint('before', flush=True)\nctypes.string_at(address, 8)\n"
    done = subprocess.run(
        [*TOOL, sys.executable, "-c", STALE_READS[case] + touch],
        cwd=ROOT,
        env={**os.environ, "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "before\n"
    assert done.returncode != 0
    assert ("use-after-poison" if SANITIZED else "Invalid read") in done.stderr

"""Python's own allocator fails at the n-th request, for every n: MemoryError or success.

C memory fails in the tests beside the objects, through `fail_after`.
"""

import gc

import numpy as np
import pytest

from rustllm import Arena, Cow, TextSlice, TokenPool
from rustllm._core.alloc import heap_stats
from rustllm.errors import StateError, error_context, error_frames
from rustllm.memory import ByteView, Interner

_testcapi = pytest.importorskip("_testcapi")
if not hasattr(_testcapi, "set_nomemory"):
    pytest.skip("this interpreter cannot fail on purpose", allow_module_level=True)


def sweep(act):
    """Run `act` with the n-th allocation failing, for n = 1, 2, ... until none fails."""
    act()
    n_failed = 0
    for n in range(1, 400):
        failed = False
        _testcapi.set_nomemory(n, n + 1)
        try:
            act()
        except MemoryError:
            failed = True
        finally:
            _testcapi.remove_mem_hooks()
        n_failed += failed
        if not failed and n > 30:
            break
    assert n_failed > 0
    return n_failed


def test_arena():
    gc.collect()
    before = heap_stats()[:2]
    arena = Arena(chunk_size=256)

    def act(arena=arena):
        with arena.scope():
            kept = [arena.alloc(n) for n in (10, 100, 1000)]
            memoryview(kept[1])[:] = b"x" * 100
            mark = arena.mark()
            arena.alloc(5)
            arena.rollback(mark)

    sweep(act)
    stats = arena.stats
    assert (stats.n_live, stats.n_views, stats.n_pins) == (0, 0, 0)
    arena.reset()
    assert arena.stats.used_bytes == 0
    del arena, act
    gc.collect()
    assert heap_stats()[:2] == before


def test_pool():
    gc.collect()
    before = heap_stats()[:2]
    pool = TokenPool()

    def act(pool=pool):
        lease = pool.lease(100, zeroed=True)
        view = memoryview(lease)
        view[0] = 7
        view.release()
        lease.resize(1000)
        lease.release()

    sweep(act)
    stats = pool.stats
    assert (stats.n_leased, stats.leased_bytes, stats.n_deferred) == (0, 0, 0)
    assert stats.held_bytes == stats.idle_bytes
    del pool, act
    gc.collect()
    assert heap_stats()[:2] == before


def test_views():
    text = TextSlice("naïve café\nwith words\n")
    data = b"some,data,in,fields"

    def act():
        assert [len(line.split()) for line in text.lines()] == [2, 2]
        assert ByteView(data).partition(b",")[0] == b"some"
        assert {text[0:2]: 1} == {text[0:2]: 1}
        assert hash(text[6:]) == hash(text[6:])

    sweep(act)
    assert text == "naïve café\nwith words\n"


def test_interner_keeps_texts_and_numbers_in_step():
    interner = Interner()
    numbers = iter(range(10**6))
    words = []

    def act():
        word = TextSlice(f"word{next(numbers)}")
        words.append(word)
        assert interner.id(word) == interner.id(word)

    sweep(act)
    assert [interner.id(word) for word in words] == [interner.id(str(word)) for word in words]
    assert sorted(interner.id(interner.text(n)) for n in range(len(interner))) == list(
        range(len(interner))
    )


def test_cow():
    source = np.arange(10)

    def act():
        cow = Cow(source)
        cow.to_mut()[0] = 5
        assert cow.view[0] == 5

    sweep(act)
    gc.collect()
    assert source.flags.writeable
    assert source[0] == 0


def test_error_context():
    def act():
        try:
            with error_context("loading", name="x"):
                raise StateError("busy")
        except StateError as error:
            assert len(error_frames(error)) == 1
            assert str(error) == "busy"

    sweep(act)

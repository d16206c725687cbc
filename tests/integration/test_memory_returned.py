"""Ten thousand cycles of everything leave no memory, thread or descriptor behind."""

import gc
import itertools
import os
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import rustllm
from rustllm import TokenIterator, parallel_map, serialize, stream, windows
from rustllm.testing import BigramModel, ByteTokenizer
from rustllm.types import Tokens

CYCLES = 10_000
TOKENIZER = ByteTokenizer(["<end>"])
MODEL = BigramModel.fit("the cat sat on the mat. ")
ARRAY = np.arange(64, dtype=np.uint32)
ITEMS = list(range(64))


def window_views():
    list(windows(ARRAY, 8))


def window_tuples():
    list(windows(iter(ITEMS), 8, last="pad"))


def unfinished_windows():
    next(windows(iter(ITEMS), 8))


def chunk_stream():
    list(TokenIterator(ARRAY).skip(3).where(lambda x: x % 2 == 0).chunk(5))


def tees():
    a, b = stream.tee(iter(ITEMS))
    list(itertools.islice(a, 5)), list(itertools.islice(b, 3))


def containers():
    serialize.loads(serialize.dumps({"ids": ARRAY, "name": "x"}))


def refused_container():
    with pytest.raises(rustllm.RustLLMError):
        serialize.loads(b"\x89RLLM\r\n\x1a" + bytes(40))


def encode_decode():
    TOKENIZER.decode(TOKENIZER.encode("some text<end>", allowed_special="all"))


def checked_tokens():
    Tokens.unchecked(ARRAY).check(256).decode(TOKENIZER)


def generation():
    list(MODEL.generate("the", max_tokens=3, seed=1))


def errors_with_context():
    try:
        with rustllm.error_context("cycling", n=1):
            TOKENIZER.decode([999])
    except rustllm.RustLLMError as error:
        str(error)


def arenas():
    arena = rustllm.Arena()
    kept = arena.alloc_array((16,), np.uint32)
    arena.reset()
    del kept


def pools():
    pool = rustllm.TokenPool()
    with pool.lease(100):
        pass


def maps():
    list(parallel_map(abs, range(4), workers=2))


def maps_closed_early():
    with parallel_map(abs, itertools.count(), workers=2) as results:
        next(results)


def prefetches():
    with stream.prefetch(itertools.count()) as ahead:
        next(ahead)


SLOW = {maps: 20, maps_closed_early: 20, prefetches: 20, generation: 5}  # threads, or long


def resident():
    """Bytes the process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors():
    """Number of open files."""
    return len(list(Path("/proc/self/fd").iterdir()))


CASES = [
    window_views, window_tuples, unfinished_windows, chunk_stream, tees, containers,
    refused_container, encode_decode, checked_tokens, generation, errors_with_context, arenas,
    pools, maps, maps_closed_early, prefetches,
]  # fmt: skip


@pytest.mark.parametrize("cycle", CASES, ids=lambda c: c.__name__)
def test_nothing_is_left(cycle):
    n = CYCLES // SLOW.get(cycle, 1)
    for _ in range(n // 10 + 5):  # caches fill, allocators settle
        cycle()
    gc.collect()
    threads = threading.active_count()
    tracemalloc.start()
    grown = []
    few = max(n // 10, 50)
    for _ in range(4):
        traced = tracemalloc.get_traced_memory()[0]
        for _ in range(few):
            cycle()
        gc.collect()
        grown.append(tracemalloc.get_traced_memory()[0] - traced)
    tracemalloc.stop()
    # What leaks, leaks every time; what is only kept for reuse stops growing.
    assert min(grown) < 8 * few, grown
    if sys.platform == "linux":
        files, grown = descriptors(), []
        for _ in range(3):
            before = resident()
            for _ in range(n // 3 + 1):
                cycle()
            gc.collect()
            grown.append(resident() - before)
        # Less than 100 bytes a cycle, and a megabyte for what the C library keeps for itself.
        assert min(grown) < n // 3 * 100 + 2**20, grown
        assert descriptors() <= files
    assert threading.active_count() <= threads

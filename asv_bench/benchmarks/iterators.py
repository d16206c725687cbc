"""Windows, chunks, token streams and parallel maps, each beside what one would use instead."""

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rustllm import TokenIterator, chunks, parallel_map, stream, windows
from rustllm.bench import compare
from rustllm.iterators import batched

try:
    import more_itertools
except ImportError:
    more_itertools = None

N = 100_000
NOT_MEASURED = float("nan")  # asv shows it as n/a
WORDS = [f"word{i}" for i in range(20_000)]


def drain(items):
    """Use up an iterator at the speed of C."""
    deque(items, maxlen=0)


def sliding_recipe(items, size):
    """The recipe of the documentation of itertools."""
    items = iter(items)
    window = deque(itertools.islice(items, size - 1), maxlen=size)
    for item in items:
        window.append(item)
        yield tuple(window)


def chunk_recipe(items, size):
    """``itertools.batched`` as it is written before Python 3.12."""
    items = iter(items)
    while chunk := tuple(itertools.islice(items, size)):
        yield chunk


def ratio(ours, peer):
    """How many times faster ours is, in interleaved rounds."""
    return compare({"ours": ours, "peer": peer}, rounds=7).ratio("ours", "peer").value


class Windows:
    """Windows over an iterator of Python objects, and over an array."""

    params = [4, 64]
    param_names = ["size"]

    def setup(self, size):
        self.items = list(range(N))
        self.array = np.arange(N, dtype=np.uint32)

    def time_iterator(self, size):
        drain(windows(iter(self.items), size))

    def time_array_rows(self, size):
        drain(windows(self.array, size))

    def time_array_view(self, size):
        windows(self.array, size).full.sum()

    def time_make(self, size):
        windows(self.array, size)

    def track_iterator_times_recipe(self, size):
        return ratio(
            lambda: drain(windows(iter(self.items), size)),
            lambda: drain(sliding_recipe(self.items, size)),
        )

    def track_iterator_times_more_itertools(self, size):
        if more_itertools is None:
            return NOT_MEASURED

        return ratio(
            lambda: drain(windows(iter(self.items), size)),
            lambda: drain(more_itertools.windowed(self.items, size)),
        )

    def track_make_times_numpy(self, size):
        view = np.lib.stride_tricks.sliding_window_view
        return ratio(lambda: windows(self.array, size), lambda: view(self.array, size))


class Chunks:
    """Chunks of an iterator and of an array."""

    params = [4, 1024]
    param_names = ["size"]

    def setup(self, size):
        self.items = list(range(N))
        self.array = np.arange(N, dtype=np.uint32)

    def time_iterator(self, size):
        drain(chunks(iter(self.items), size))

    def time_array(self, size):
        drain(chunks(self.array, size))

    def track_iterator_times_recipe(self, size):
        return ratio(
            lambda: drain(chunks(iter(self.items), size)),
            lambda: drain(chunk_recipe(self.items, size)),
        )

    def track_iterator_times_more_itertools(self, size):
        if more_itertools is None:
            return NOT_MEASURED

        return ratio(
            lambda: drain(chunks(iter(self.items), size)),
            lambda: drain(more_itertools.chunked(self.items, size)),
        )

    def track_array_times_slicing(self, size):
        array = self.array
        return ratio(
            lambda: drain(chunks(array, size)),
            lambda: drain(array[i : i + size] for i in range(0, len(array), size)),
        )


class TokenStream:
    """A chain of steps over ids."""

    def setup(self):
        self.array = np.arange(1_000_000, dtype=np.uint32)

    def time_skip_where_take_chunk(self):
        ids = TokenIterator(self.array).skip(10).where(lambda x: x % 7 != 0).take(500_000)
        drain(ids.chunk(2048))

    def time_items(self):
        drain(TokenIterator(self.array))

    def time_batched_by_tokens(self):
        drain(batched(WORDS, tokens=512))

    def track_items_times_iterating_the_array(self):
        return ratio(lambda: drain(TokenIterator(self.array)), lambda: drain(self.array))


def nothing(item):
    return item


def hash_block(block):
    from zlib import crc32

    return crc32(block)


class ParallelMap:
    """Overhead on empty work, and throughput on work that releases the GIL."""

    params = [1, 2]
    param_names = ["workers"]

    def setup(self, workers):
        self.items = list(range(5_000))
        self.blocks = [bytes(1 << 18)] * 64

    def time_overhead(self, workers):
        drain(parallel_map(nothing, self.items, workers=workers))

    def time_overhead_in_chunks(self, workers):
        drain(parallel_map(nothing, self.items, workers=workers, chunksize=64))

    def time_checksums(self, workers):
        drain(parallel_map(hash_block, self.blocks, workers=workers))

    def _executor(self, function, items, workers):
        with ThreadPoolExecutor(workers) as pool:
            drain(pool.map(function, items))

    def track_overhead_times_executor(self, workers):
        return ratio(
            lambda: drain(parallel_map(nothing, self.items, workers=workers)),
            lambda: self._executor(nothing, self.items, workers),
        )

    def track_overhead_in_chunks_times_executor(self, workers):
        return ratio(
            lambda: drain(parallel_map(nothing, self.items, workers=workers, chunksize=64)),
            lambda: self._executor(nothing, self.items, workers),
        )

    def track_checksums_times_executor(self, workers):
        return ratio(
            lambda: drain(parallel_map(hash_block, self.blocks, workers=workers)),
            lambda: self._executor(hash_block, self.blocks, workers),
        )

    def peakmem_endless_source(self, workers):
        results = parallel_map(len, (bytes(100_000) for _ in range(2_000)), workers=workers)
        drain(results)


class Streams:
    """Combinators that move single items."""

    def time_prefetch(self):
        drain(stream.prefetch(range(20_000), 16))

    def time_interleave(self):
        drain(stream.interleave(range(50_000), range(50_000)))

    def time_tee(self):
        a, b = stream.tee(range(20_000))
        drain(zip(a, b))

    def track_tee_times_itertools(self):
        def both(tee):
            a, b = tee(range(20_000))
            drain(zip(a, b))

        return ratio(lambda: both(stream.tee), lambda: both(itertools.tee))

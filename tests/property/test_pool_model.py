"""The token pool against a plain model: a list of lists of ids."""

import gc

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rustllm import TokenPool, errors
from rustllm._core.alloc import heap_stats

LIMIT = 60_000


class Entry:
    def __init__(self, lease, content):
        self.lease, self.content, self.view, self.is_released = lease, content, None, False


class PoolModel(RuleBasedStateMachine):
    entries = Bundle("entries")

    def __init__(self):
        super().__init__()
        gc.collect()
        self.heap = heap_stats()[:2]
        self.pool = TokenPool(limit=LIMIT)
        self.known = []
        self.counter = 0
        self.n_dropped = 0

    @rule(target=entries, n=st.integers(0, 4000), zeroed=st.booleans())
    def lease(self, n, zeroed):
        try:
            lease = self.pool.lease(n, zeroed=zeroed)
        except errors.MemoryLimitError:
            assert self.pool.stats.leased_bytes + 5 * n + 400 > LIMIT
            return Entry(None, [])
        if zeroed:
            assert lease.tolist() == [0] * n
        self.counter += 1
        content = [self.counter * 1_000_003 % (1 << 32)] * n
        lease.array[:] = content
        entry = Entry(lease, content)
        self.known.append(entry)
        return entry

    @rule(entry=entries, strict=st.booleans())
    def release(self, entry, strict):
        if entry.lease is None:
            return
        try:
            entry.lease.release(on_live="raise" if strict else "retire")
        except errors.DoubleReleaseError:
            assert entry.is_released
        except errors.LiveViewError as error:
            assert strict
            assert entry.view is not None
            assert error.n_views >= 1
        else:
            assert not entry.is_released
            entry.is_released = True

    @rule(entry=entries)
    def view(self, entry):
        if entry.lease is None:
            return
        try:
            view = memoryview(entry.lease)
        except errors.StaleHandleError:
            assert entry.is_released
        else:
            assert not entry.is_released
            entry.view = np.frombuffer(view, np.uint32)[:] if len(view) else view

    @rule(entry=entries)
    def drop_view(self, entry):
        entry.view = None

    @rule(entry=entries, n=st.integers(0, 4000))
    def resize(self, entry, n):
        if entry.lease is None:
            return
        try:
            entry.lease.resize(n)
        except errors.StaleHandleError:
            assert entry.is_released
        except errors.LiveViewError:
            assert entry.view is not None
        except errors.MemoryLimitError:
            assert n > entry.lease.capacity
        else:
            fill = entry.content[0] if entry.content else 5
            entry.lease.array[len(entry.content) :] = fill
            entry.content = [fill] * n

    @rule(entry=consumes(entries))
    def drop(self, entry):
        if entry.lease is not None and not entry.is_released:
            self.n_dropped += 1
        self.known = [other for other in self.known if other is not entry]
        entry.view = entry.lease = None

    @rule()
    def trim(self):
        self.pool.trim()
        assert self.pool.stats.idle_bytes == 0

    @invariant()
    def contents_are_as_written_and_apart(self):
        spans = []
        for entry in self.known:
            if not entry.is_released:
                assert entry.lease.tolist() == entry.content
            if entry.view is not None:
                assert entry.view.tolist() == entry.content
            if entry.content and (entry.view is not None or not entry.is_released):
                array = entry.lease.array if not entry.is_released else np.asarray(entry.view)
                spans.append((array.ctypes.data, array.ctypes.data + array.nbytes))
        spans.sort()
        for (_, end), (start, _) in zip(spans, spans[1:]):
            assert end <= start

    @invariant()
    def statistics_add_up(self):
        stats = self.pool.stats
        deferred = sum(e.is_released and e.view is not None for e in self.known)
        assert stats.held_bytes == stats.idle_bytes + stats.leased_bytes <= LIMIT
        assert stats.n_leased == sum(not e.is_released for e in self.known) + deferred
        assert stats.n_deferred == deferred
        assert stats.n_dropped == self.n_dropped
        assert stats.peak_bytes >= stats.leased_bytes

    def teardown(self):
        for entry in self.known:
            entry.view = entry.lease = None
        self.known.clear()
        assert self.pool.stats.n_leased == 0
        del self.pool
        gc.collect(0)
        assert heap_stats()[:2] == self.heap


TestPoolModel = PoolModel.TestCase
TestPoolModel.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)

"""The arena against a plain model: a dictionary of byte strings."""

import gc

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rustllm import Arena, errors
from rustllm._core.alloc import heap_stats

LIMIT = 20_000


class ArenaModel(RuleBasedStateMachine):
    """Each allocation is `[handle, view or None, content, is_stale]`."""

    allocations = Bundle("allocations")

    def __init__(self):
        super().__init__()
        gc.collect()
        self.heap = heap_stats()[:2]
        self.arena = Arena(chunk_size=128, limit=LIMIT)
        self.live = []
        self.marks = []
        self.pins = []
        self.pinned = set()
        self.counter = 0

    @rule(
        target=allocations,
        n=st.integers(0, 600),
        align=st.sampled_from([1, 4, 16, 64, 512, 4096]),
    )
    def alloc(self, n, align):
        try:
            handle = self.arena.alloc(n, align=align)
        except errors.MemoryLimitError as error:
            assert error.requested == n
            held = self.arena.stats
            assert held.held_bytes - held.idle_bytes + n > LIMIT or held.idle_bytes == 0
            return [None, None, b"", True]
        assert handle.address % align == 0
        self.counter += 1
        content = bytes([self.counter % 251]) * n
        memoryview(handle)[:] = content
        entry = [handle, None, content, False]
        self.live.append(entry)
        return entry

    @rule(entry=allocations, array=st.booleans())
    def view(self, entry, array):
        if entry[0] is None:
            return
        try:
            view = memoryview(entry[0])
        except errors.StaleHandleError:
            assert entry[3]
            return
        assert not entry[3]
        if entry[1] is None:
            entry[1] = np.frombuffer(view, np.uint8)[:] if array and view.nbytes else view[:]

    @rule(entry=allocations)
    def drop_view(self, entry):
        entry[1] = None

    @rule(entry=consumes(allocations))
    def drop(self, entry):
        entry[1] = None
        entry[0] = None
        self.live = [other for other in self.live if other is not entry]

    @rule()
    def mark(self):
        self.marks.append((self.arena.mark(), list(self.live)))

    @rule(data=st.data(), strict=st.booleans())
    def rollback(self, data, strict):
        if not self.marks:
            return
        depth = data.draw(st.integers(0, len(self.marks) - 1))
        mark, kept = self.marks[depth]
        self.take_back(
            [e for e in self.live if not any(e is k for k in kept)],
            strict,
            lambda on_live: self.arena.rollback(mark, on_live=on_live),
        ) and self.marks.__delitem__(slice(depth + 1, None))

    @rule(strict=st.booleans())
    def reset(self, strict):
        if self.take_back(list(self.live), strict, lambda p: self.arena.reset(on_live=p)):
            self.marks.clear()

    def take_back(self, entries, strict, act):
        seen = [e for e in self.live if e in entries and e[1] is not None]
        try:
            act("raise" if strict else "retire")
        except errors.LiveViewError as error:
            assert strict
            assert error.n_pins == len(self.pins)
            assert error.n_views or error.n_pins
            if any(not e[3] for e in seen):
                assert error.n_views >= 1
            return False
        assert not strict or not (self.pins or any(not e[3] for e in seen))
        for entry in entries:
            entry[3] = True
        return True

    @rule()
    def pin(self):
        pin = self.arena.pin()
        pin.__enter__()
        self.pins.append(pin)

    @rule()
    def unpin(self):
        if self.pins:
            self.pins.pop().__exit__(None, None, None)

    @rule()
    def trim(self):
        self.arena.trim()

    @rule()
    def collect(self):
        gc.collect(0)

    @invariant()
    def contents_are_as_written(self):
        spans = []
        for handle, view, content, is_stale in self.live:
            if handle is None:
                continue
            assert handle.is_stale == is_stale
            if view is not None:
                assert bytes(view) == content
            if not is_stale:
                assert bytes(handle) == content
                spans.append((handle.address, handle.address + len(content)))
            elif view is not None and len(content):
                address = np.frombuffer(view, np.uint8).ctypes.data
                spans.append((address, address + len(content)))
        spans = sorted(span for span in spans if span[0] < span[1])
        for (_, end), (start, _) in zip(spans, spans[1:]):
            assert end <= start

    @invariant()
    def statistics_add_up(self):
        stats = self.arena.stats
        usable = [e for e in self.live if not e[3]]
        assert stats.held_bytes <= LIMIT
        assert stats.used_bytes >= sum(len(e[2]) for e in usable)
        assert stats.peak_bytes >= stats.used_bytes
        assert stats.n_live == len(usable)
        assert stats.n_pins == len(self.pins)
        assert stats.idle_bytes + stats.retired_bytes <= stats.held_bytes
        if not self.pins and not any(e[3] and e[1] is not None for e in self.live):
            assert stats.n_retired == 0

    def teardown(self):
        for entry in self.live:
            entry[0] = entry[1] = None
        self.pins.clear()
        self.live.clear()
        self.marks.clear()
        self.arena.reset(on_live="raise")
        del self.arena
        gc.collect(0)
        assert heap_stats()[:2] == self.heap


TestArenaModel = ArenaModel.TestCase
TestArenaModel.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)

"""Copy-on-write wrappers against plain byte strings."""

import gc

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rustllm import Cow


class Entry:
    def __init__(self, cow, content, source):
        self.cow, self.content, self.source = cow, bytearray(content), source
        self.is_borrowed = True
        self.is_frozen = False


class CowModel(RuleBasedStateMachine):
    entries = Bundle("entries")

    def __init__(self):
        super().__init__()
        self.entries_alive = []
        self.sources = []

    def add(self, entry):
        self.entries_alive.append(entry)
        return entry

    @rule(target=entries, content=st.binary(max_size=40), array=st.booleans(), freeze=st.booleans())
    def borrow(self, content, array, freeze):
        source = np.frombuffer(bytearray(content), np.uint8)[:] if array and content else content
        self.sources.append((source, content))
        entry = Entry(Cow(source, freeze=freeze), content, source)
        entry.is_frozen = freeze
        return self.add(entry)

    @rule(target=entries, entry=entries, freeze=st.booleans())
    def borrow_again(self, entry, freeze):
        again = Entry(Cow(entry.source, freeze=freeze), bytes(entry.source), entry.source)
        again.is_frozen = freeze
        return self.add(again)

    @rule(target=entries, entry=entries)
    def clone(self, entry):
        clone = Entry(entry.cow.clone(), entry.content, entry.source)
        clone.is_borrowed, clone.is_frozen = entry.is_borrowed, entry.is_frozen
        return self.add(clone)

    @rule(entry=entries, at=st.integers(0, 39), value=st.integers(0, 255))
    def write(self, entry, at, value):
        mine = entry.cow.to_mut()
        entry.is_borrowed = False
        if at < len(entry.content):
            mine[at] = value
            entry.content[at] = value

    @rule(entry=entries)
    def own(self, entry):
        owned = entry.cow.to_owned()
        assert bytes(owned) == entry.content
        owned[:] = bytes(len(owned)) if isinstance(owned, bytearray) else 0

    @rule(entry=consumes(entries))
    def drop(self, entry):
        self.entries_alive = [other for other in self.entries_alive if other is not entry]
        entry.cow = None
        gc.collect(0)

    @rule(entry=entries)
    def read(self, entry):
        assert np.asarray(entry.cow).tobytes() == entry.content

    @invariant()
    def contents_are_as_written_and_sources_untouched(self):
        for entry in self.entries_alive:
            assert bytes(entry.cow) == bytes(entry.cow.view) == entry.content
            assert entry.cow.is_borrowed == entry.is_borrowed
        for source, content in self.sources:
            assert bytes(source) == content
            if isinstance(source, np.ndarray):
                frozen = any(
                    e.source is source and e.is_borrowed and e.is_frozen for e in self.entries_alive
                )
                assert source.flags.writeable == (not frozen)


TestCowModel = CowModel.TestCase
TestCowModel.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)

"""Memory that cannot be had, at every request for it: a typed error, and all is usable after."""

import mmap
import subprocess
import sys

import numpy as np
import pytest

import rustllm
from rustllm._core.alloc import fail_after
from rustllm.errors import OutOfMemoryError

from .tiny import tiny_model

IDS = np.random.default_rng(8).integers(0, 83, 390)


class Failing:
    """Stands in for the module `mmap`: mappings fail after some have succeeded."""

    def __init__(self):
        self.left = None
        self.asked = 0

    def mmap(self, *args, **kwargs):
        self.asked += 1
        if self.left is not None:
            if self.left == 0:
                raise OSError(12, "Cannot allocate memory")
            self.left -= 1
        return mmap.mmap(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(mmap, name)


@pytest.fixture
def memory(monkeypatch):
    failing = Failing()
    monkeypatch.setattr("rustllm._core.zeroed.mmap", failing)
    return failing


def requests(memory, run):
    """How many mappings a run asks for."""
    before = memory.asked
    run()
    return memory.asked - before


@pytest.mark.parametrize("n_vocab", [83, 20_000])  # many scores have pages of their own
@pytest.mark.parametrize("exact", [False, True])
def test_a_segment_that_cannot_be_had_leaves_the_state_as_it_was(memory, n_vocab, exact):
    model = tiny_model(n_vocab=n_vocab, exact=exact, threads=2)
    fresh = model.new_state()
    expected = [model.forward(IDS[:5], fresh), model.forward(IDS[5:], fresh)]
    probe = model.new_state()
    model.forward(IDS[:5], probe)
    n = requests(memory, lambda: model.forward(IDS[5:], probe))
    assert n >= 3  # segments two to four of 390 positions
    for left in range(n):
        state = model.new_state()
        assert np.array_equal(model.forward(IDS[:5], state), expected[0])
        memory.left = left
        with pytest.raises(OutOfMemoryError, match="bytes"):
            model.forward(IDS[5:], state)
        memory.left = None
        assert state.position == 5
        assert np.array_equal(model.forward(IDS[5:], state), expected[1])


def test_the_first_token_of_all_is_no_exception(memory):
    model = tiny_model()
    state = model.new_state()
    memory.left = 0
    with pytest.raises(OutOfMemoryError):
        model.forward(IDS[:3], state)
    memory.left = None
    assert state.position == 0 and state.nbytes == 0
    assert np.array_equal(model.forward(IDS[:3], state), model.forward(IDS[:3], model.new_state()))


def test_a_copy_on_write_that_cannot_be_had_harms_neither_fork(memory):
    model = tiny_model()
    state = model.new_state()
    model.forward(IDS[:200], state)
    twin = state.fork()
    alone = model.new_state()
    model.forward(IDS[:200], alone)
    expected = model.forward(IDS[200:210], alone)
    memory.left = 0
    for each in (state, twin):
        with pytest.raises(OutOfMemoryError):
            model.forward(IDS[200:210], each)
        assert each.position == 200
    memory.left = None
    assert np.array_equal(model.forward(IDS[200:210], twin), expected)
    assert np.array_equal(model.forward(IDS[200:210], state), expected)


def test_of_a_batch_no_state_moves(memory):
    model = tiny_model()
    parts = [IDS[:100], IDS[50:300], IDS[7:8]]

    def states():
        made = [model.new_state() for _ in parts]
        for state in made:
            model.forward(IDS[:60], state)
        return made

    expected = model.forward_batch(parts, states())
    ready = states()
    n = requests(memory, lambda: model.forward_batch(parts, ready))
    assert n >= 3
    for left in range(n):
        held = states()
        memory.left = left
        with pytest.raises(OutOfMemoryError):
            model.forward_batch(parts, held)
        memory.left = None
        assert [state.position for state in held] == [60, 60, 60]
        assert np.array_equal(model.forward_batch(parts, held), expected)


def test_scratch_memory_that_cannot_be_had_is_asked_for_again():
    expected = None
    failures = 0
    for left in range(40):
        model = tiny_model(threads=2)
        state = model.new_state()
        with fail_after(left) as failing:
            try:
                scores = model.forward(IDS[:40], state)
            except OutOfMemoryError:
                scores = None
        failures += failing.n_failed > 0
        if scores is None:
            assert failing.n_failed and state.position == 0
            scores = model.forward(IDS[:40], state)
        expected = scores if expected is None else expected
        assert np.array_equal(scores, expected)
        if not failing.n_failed:
            break
    assert failures and not failing.n_failed  # every request has failed once


def test_a_saved_state_that_does_not_fit_leaves_the_old_one(memory, tmp_path):
    model = tiny_model()
    state, other = model.new_state(), model.new_state()
    model.forward(IDS[:300], state)
    state.save(tmp_path / "state")
    model.forward(IDS[:4], other)
    for left in (0, 1, 2):
        memory.left = left
        with pytest.raises(OutOfMemoryError):
            other.load(tmp_path / "state")
        assert other.position == 4
    memory.left = None
    other.load(tmp_path / "state")
    assert np.array_equal(model.forward([1], other), model.forward([1], state))


def test_weights_that_do_not_fit_are_told_and_the_next_load_works(memory, smollm2_path):
    memory.left = 0
    with pytest.raises(OutOfMemoryError):
        rustllm.load_model(smollm2_path, threads=2)
    memory.left = None
    model = rustllm.load_model(smollm2_path, threads=2)
    assert np.isfinite(model.forward([1, 2], model.new_state())).all()


LIMITED = """
import resource, sys
import numpy as np
import rustllm
from rustllm.errors import OutOfMemoryError

model = rustllm.load_model(sys.argv[1], threads=2)
state = model.new_state(2048)
ids = np.arange(300, 2300) % model.config.n_vocab
model.forward(ids[:200], state)
expected = model.forward(ids[200:400], state.fork())
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
failures = 0
for more in range(0, 24 << 20, 4 << 20):
    resource.setrlimit(resource.RLIMIT_AS, (size + more, hard))
    try:
        model.forward(ids[200:], state)
    except OutOfMemoryError:
        failures += 1
    assert state.position == 200, state.position
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
assert failures == 6, failures
assert np.array_equal(model.forward(ids[200:400], state), expected)
print("usable")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
def test_a_process_at_its_limit_of_memory_can_go_on(smollm2_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(smollm2_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "usable\n", done.stderr

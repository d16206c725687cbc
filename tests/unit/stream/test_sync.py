"""The combinators for plain iterables, against lists and itertools."""

import gc
import itertools
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm import stream
from rustllm.errors import ArgumentError, MemoryLimitError, StateError

lists = st.lists(st.lists(st.integers(), max_size=8), max_size=4)


def readers():
    return [t for t in threading.enumerate() if t.name == "rustllm-reader"]


@pytest.fixture(autouse=True)
def no_reader_is_left():
    yield
    deadline = time.monotonic() + 5
    while readers() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert readers() == []


def counted(n=None):
    """Return an endless or finite source and the list of what was pulled from it."""
    pulled = []

    def source():
        for i in itertools.count() if n is None else range(n):
            pulled.append(i)
            yield i

    return source(), pulled


def test_pipe_sends_a_source_through_stages_lazily():
    source, pulled = counted()
    out = stream.pipe(
        source, lambda s: (x * 2 for x in s), lambda s: itertools.islice(s, 3), enumerate
    )
    assert pulled == []
    assert list(out) == [(0, 0), (1, 2), (2, 4)]
    assert pulled == [0, 1, 2]
    assert list(stream.pipe([1, 2])) == [1, 2]


@given(lists)
def test_zip_longest_is_that_of_itertools(sources):
    expected = list(itertools.zip_longest(*sources, fillvalue="x"))
    assert list(stream.zip_longest(*sources, fill="x")) == expected


@given(lists, st.integers(1, 4))
def test_interleave_takes_turns(sources, size):
    expected, rest = [], [list(s) for s in sources]
    while any(rest):
        for s in rest:
            expected += s[:size]
            del s[:size]
    assert list(stream.interleave(*sources, size=size)) == expected


def test_interleave_pulls_only_what_it_gives():
    source, pulled = counted()
    out = stream.interleave(source, itertools.repeat("x"), size=2)
    assert list(itertools.islice(out, 5)) == [0, 1, "x", "x", 2]
    assert pulled == [0, 1, 2]
    with pytest.raises(ArgumentError):
        stream.interleave([], size=0)


@settings(max_examples=25, deadline=None)
@given(lists, st.integers(1, 3))
def test_merge_gives_every_item_once_and_keeps_each_source_in_order(sources, n):
    tagged = [[(i, x) for x in s] for i, s in enumerate(sources)]
    got = list(stream.merge(*tagged, n=n))
    for i, s in enumerate(tagged):
        assert [x for x in got if x[0] == i] == s
    assert len(got) == sum(map(len, sources))


def test_merge_does_not_wait_for_a_source_that_does():
    release = threading.Event()

    def slow():
        assert release.wait(10)
        yield "slow"

    merged = stream.merge(slow(), "abc")
    assert [next(merged) for _ in range(3)] == ["a", "b", "c"]
    release.set()
    assert list(merged) == ["slow"]


@pytest.mark.parametrize("n", [1, 3])
def test_prefetch_reads_ahead_up_to_its_bound_and_no_further(n):
    source, pulled = counted()
    ahead = stream.prefetch(source, n)
    time.sleep(0.01)
    assert pulled == []  # no thread before the first next
    for taken in range(1, 6):
        assert next(ahead) == taken - 1
        deadline = time.monotonic() + 5
        while len(pulled) < taken + n and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.005)
        assert len(pulled) == taken + n
    ahead.close()
    assert readers() == []
    assert list(ahead) == []


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_prefetch_changes_nothing(items, n):
    assert list(stream.prefetch(items, n)) == items


def test_an_error_of_the_source_comes_after_the_items_before_it():
    def source():
        yield 1
        yield 2
        raise OSError("gone")

    ahead = stream.prefetch(source(), 5)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(ahead)
    assert readers() == []
    assert list(ahead) == []


def test_leaving_the_block_or_dropping_the_stream_ends_the_threads():
    with stream.merge(itertools.count(), itertools.count()) as merged:
        next(merged)
        assert len(readers()) == 2
    assert readers() == []
    dropped = stream.prefetch(itertools.count())
    next(dropped)
    del dropped
    gc.collect()  # the fixture waits for the thread


def test_bounds_below_one_are_refused():
    for call in (stream.merge, stream.prefetch):
        with pytest.raises(ArgumentError):
            call([], n=0)
    with pytest.raises(ArgumentError):
        stream.tee([], lag=0)
    with pytest.raises(ArgumentError):
        stream.tee([], -1)
    for bad in ((0, 1), (1, 0), (-1, 1), (float("nan"), 1)):
        with pytest.raises(ArgumentError):
            stream.rate([], bad[0], burst=bad[1])


@given(st.lists(st.integers(), max_size=12), st.lists(st.integers(0, 2), max_size=60))
def test_every_branch_of_a_tee_gives_every_item(items, order):
    branches = stream.tee(iter(items), 3, lag=100)
    got = [[], [], []]
    for b in order:
        got[b].extend(itertools.islice(branches[b], 1))
    for b in range(3):
        got[b].extend(branches[b])
    assert got == [items, items, items]


def test_a_branch_too_far_ahead_is_refused_and_loses_nothing():
    source, pulled = counted(6)
    fast, slow = stream.tee(source, lag=2)
    assert [next(fast), next(fast)] == [0, 1]
    with pytest.raises(MemoryLimitError) as caught:
        next(fast)
    assert caught.value.branch == 1
    assert pulled == [0, 1]
    assert next(slow) == 0
    assert next(fast) == 2
    slow.close()
    assert list(slow) == []
    assert list(fast) == [3, 4, 5]


def test_a_branch_that_is_dropped_counts_no_more():
    fast, slow = stream.tee(range(50), lag=2)
    del slow
    assert list(fast) == list(range(50))


def test_a_tee_keeps_no_item_that_all_have_read():
    class Thing:
        pass

    a, b = stream.tee(Thing() for _ in range(3))
    next(a), next(b)
    gc.collect()
    assert not any(type(o) is Thing for o in gc.get_objects())


def test_an_error_of_the_source_reaches_every_branch_at_its_place():
    def source():
        yield 1
        raise KeyError("lost")

    for branch in stream.tee(source()):
        assert next(branch) == 1
        with pytest.raises(KeyError):
            next(branch)


def test_a_source_that_asks_its_own_tee_is_refused():
    def source():
        yield 1
        yield next(b)

    a, b = stream.tee(source())
    next(a), next(b)
    with pytest.raises(StateError):
        next(a)


def test_eight_threads_share_a_tee_and_lose_nothing():
    def slow():
        for i in range(4_000):
            if i % 500 == 0:
                time.sleep(0.001)  # lets another thread ask while this one reads
            yield i

    branches = stream.tee(slow(), 4, lag=1 << 20)
    got = [[] for _ in range(8)]
    barrier = threading.Barrier(8)

    def read(thread):
        barrier.wait()
        got[thread].extend(branches[thread // 2])

    threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pair in zip(got[::2], got[1::2], strict=True):
        assert sorted(pair[0] + pair[1]) == list(range(4_000))
        assert all(part == sorted(part) for part in pair)


def test_a_branch_closed_while_the_source_runs_gets_nothing_more():
    def source():
        yield 1
        b.close()
        yield 2

    a, b = stream.tee(source())
    assert list(a) == [1, 2]
    assert list(b) == []


def test_items_let_go_may_close_the_other_branch():
    class Thing:
        def __del__(self):
            b.close()

    a, b = stream.tee((Thing() for _ in range(300)), lag=1_000)
    for item in a:
        del item
    b.close()
    assert list(a) == list(b) == []


def test_a_tee_in_a_cycle_is_collected():
    class Holder(list):
        pass

    holder = Holder()
    holder.extend(stream.tee(iter([holder, 1, 2])))
    next(holder[0])
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None


def test_a_branch_is_made_by_tee_only_and_names_its_item_type():
    with pytest.raises(TypeError, match="made by"):
        stream.Branch()
    assert stream.Branch[int].__origin__ is stream.Branch
    assert list(stream.Branch.__new__(stream.Branch)) == []


class Clock:
    def __init__(self):
        self.now = 100.0
        self.slept = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds
        self.slept += seconds


@given(
    costs=st.lists(st.floats(0, 20), max_size=20),
    per_second=st.floats(0.1, 1000),
    burst=st.floats(0.5, 10),
    pauses=st.lists(st.floats(0, 3), min_size=20, max_size=20),
)
def test_rate_never_gives_out_more_than_burst_plus_time_allows(costs, per_second, burst, pauses):
    clock = Clock()
    start = clock.now
    out = stream.rate(
        costs, per_second, burst=burst, cost=lambda c: c, clock=clock, sleep=clock.sleep
    )
    spent = 0.0
    for pause, cost in zip(pauses, out):
        # before a cost larger than the bucket, only a full bucket is asked for
        assert spent + min(cost, burst) <= burst + (clock.now - start) * per_second + 1e-3
        spent += cost
        clock.now += pause


def test_rate_does_not_wait_where_it_need_not():
    clock = Clock()
    assert list(stream.rate(range(5), 10, burst=5, clock=clock, sleep=clock.sleep)) == list(
        range(5)
    )
    assert clock.slept == 0
    list(stream.rate(range(11), 10, clock=clock, sleep=clock.sleep))
    assert clock.slept == pytest.approx(1.0)
    with pytest.raises(ArgumentError):
        list(stream.rate([1], 1, cost=lambda _: -1))

"""Windows and chunks against the plainest definition, over arrays and over iterators."""

import array
import gc
import itertools
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm import chunks, windows
from rustllm._core.grouping import Last, TupleGroups
from rustllm.errors import ArgumentError, OutOfRangeError
from rustllm.iterators import TokenIterator


def groups_by_definition(items, size, stride, last, fill):
    out, seen = [], 0
    for start in range(0, len(items), stride):
        group = list(items[start : start + size])
        if len(group) == size:
            out.append(group)
        elif start + len(group) > seen:  # holds an item no group had before
            if last == "keep":
                out.append(group)
            elif last == "pad":
                out.append(group + [fill] * (size - len(group)))
            break
        else:
            break
        seen = start + size
    return out


shapes = {
    "items": st.lists(st.integers(0, 1000), max_size=40),
    "size": st.integers(1, 12),
    "stride": st.integers(1, 15),
    "last": st.sampled_from(["drop", "keep", "pad"]),
}


@given(**shapes)
def test_windows_of_an_iterator_are_those_of_the_definition(items, size, stride, last):
    got = windows(iter(items), size, stride=stride, last=last, fill=-1)
    assert [list(g) for g in got] == groups_by_definition(items, size, stride, last, -1)


@given(**shapes)
def test_windows_of_an_array_are_those_of_the_definition(items, size, stride, last):
    got = windows(np.array(items, dtype=np.int64), size, stride=stride, last=last, fill=-1)
    expected = groups_by_definition(items, size, stride, last, -1)
    assert [g.tolist() for g in got] == expected
    assert [got[i].tolist() for i in range(len(got))] == expected
    assert [g.tolist() for g in got[::-1]] == expected[::-1]


@given(**shapes, cuts=st.lists(st.integers(0, 40), max_size=6))
def test_windows_across_blocks_are_those_of_the_whole(items, size, stride, last, cuts):
    borders = [0, *sorted(min(c, len(items)) for c in cuts), len(items)]
    blocks = [np.array(items[a:b], dtype=np.uint32) for a, b in itertools.pairwise(borders)]
    got = TokenIterator.from_blocks(blocks).window(size, stride=stride, last=last, fill=7)
    assert [g.tolist() for g in got] == groups_by_definition(items, size, stride, last, 7)


@given(
    st.lists(st.integers(), max_size=40),
    st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    st.sampled_from([{}, {"drop_last": True}, {"pad": -1}]),
)
def test_chunks_cover_the_items_and_repeat_the_overlap(items, shape, options):
    size, overlap = shape
    got = [list(c) for c in chunks(iter(items), size, overlap=overlap, **options)]
    last = "drop" if "drop_last" in options else "pad" if options else "keep"
    assert got == groups_by_definition(items, size, size - overlap, last, -1)
    if not options and items:
        assert got[0] + [x for c in got[1:] for x in c[overlap:]] == items


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 8), st.integers(1, 8))
def test_a_group_pulls_exactly_the_items_it_needs(items, size, stride):
    pulled = 0

    def source():
        nonlocal pulled
        for item in items:
            pulled += 1
            yield item

    for index, _ in enumerate(windows(source(), size, stride=stride)):
        assert pulled == index * stride + size


def test_array_windows_are_views_that_keep_the_array_alive_and_cannot_be_written():
    ids = np.arange(1000, dtype=np.uint32)
    view = windows(ids, 10)
    assert np.shares_memory(view[3], ids)
    assert np.shares_memory(view.full, ids)
    with pytest.raises(ValueError, match="read-only"):
        view[3][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        view.full[3, 0] = 1
    one = view[5]
    del ids, view
    gc.collect()
    assert one.tolist() == list(range(5, 15))


def test_rows_of_a_matrix_are_grouped_whole_and_strides_are_kept():
    matrix = np.arange(24).reshape(6, 4)
    got = windows(matrix[::2, ::-1], 2)
    assert got.full.shape == (2, 2, 4)
    assert got[1].tolist() == matrix[::2, ::-1][1:3].tolist()
    backwards = windows(np.arange(5)[::-1], 2, last="pad", stride=3, fill=9)
    assert [g.tolist() for g in backwards] == [[4, 3], [1, 0]]
    padded = chunks(matrix, 4, pad=0)
    assert padded[-1].tolist() == [*matrix[4:].tolist(), [0] * 4, [0] * 4]


@pytest.mark.parametrize(
    "source",
    [b"abcde", bytearray(b"abcde"), memoryview(b"abcde"), array.array("B", b"abcde")],
)
def test_buffers_are_grouped_as_arrays(source):
    assert [bytes(c) for c in chunks(source, 2)] == [b"ab", b"cd", b"e"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: windows([], 0),
        lambda: windows([], 1, stride=0),
        lambda: windows([], 1, last="gone"),
        lambda: chunks([], -1),
        lambda: chunks([], 3, overlap=3),
        lambda: chunks([], 3, overlap=-1),
        lambda: chunks([], 3, drop_last=True, pad=0),
        lambda: windows(np.array(5), 1),
        lambda: windows([], sys.maxsize + 1),
    ],
)
def test_shapes_that_make_no_sense_are_refused(call):
    with pytest.raises(ArgumentError):
        call()


def test_there_is_no_group_beyond_the_last():
    view = chunks(np.arange(5), 2)
    assert view[-1].tolist() == [4]
    for index in (3, -4):
        with pytest.raises(OutOfRangeError):
            view[index]


def test_a_huge_size_takes_memory_for_what_there_is_only():
    assert list(chunks(range(5), 2**40)) == [(0, 1, 2, 3, 4)]
    assert list(windows(range(5), 2**40)) == []
    assert len(windows(np.arange(5), 2**40)) == 0
    big = list(chunks(range(10_000), 5_000, overlap=1_000))
    assert [c[0] for c in big] == [0, 4_000, 8_000]
    assert big[1] == tuple(range(4_000, 9_000))


def test_an_error_of_the_source_ends_the_groups():
    def source():
        yield 1
        yield 2
        yield 3
        raise KeyError("lost")

    got = chunks(source(), 2)
    assert next(got) == (1, 2)
    with pytest.raises(KeyError):
        next(got)
    assert list(got) == []


def test_a_source_that_asks_for_its_own_group_is_refused():
    def source():
        yield 1
        yield next(got)

    got = windows(source(), 2)
    with pytest.raises(ValueError, match="part of"):
        next(got)


def test_groups_keep_no_item_alive_and_lose_no_reference():
    class Thing:
        pass

    things = [Thing() for _ in range(20)]
    before = [sys.getrefcount(t) for t in things]
    refs = [weakref.ref(t) for t in things]
    for size, stride, last in itertools.product((1, 3, 7), (1, 2, 9), Last):
        for _ in TupleGroups(iter(things), size, stride, last):
            pass
        unfinished = TupleGroups(iter(things), size, stride, last)
        next(unfinished)
        del unfinished
    del _
    assert [sys.getrefcount(t) for t in things] == before
    del things
    gc.collect()
    assert not any(ref() for ref in refs)

"""TokenIterator against lists: any chain of methods gives what lists would."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm import TokenIterator
from rustllm.errors import (
    ArgumentError,
    FileFormatError,
    FileMissingError,
    OutOfRangeError,
)
from rustllm.testing import ByteTokenizer
from rustllm.types import TokenBatch

ids = st.lists(st.integers(0, 50), max_size=40)


def odd(x):
    return x % 2 == 1


steps = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 45)),
    st.tuples(st.just("skip"), st.integers(0, 20)),
    st.tuples(st.just("step_by"), st.integers(1, 5)),
    st.tuples(st.just("where"), st.just(odd)),
    st.tuples(st.just("filter"), st.just(odd)),
    st.tuples(st.just("map"), st.just(lambda x: x + 1)),
    st.tuples(st.just("take_while"), st.just(lambda x: x < 40)),
    st.tuples(st.just("skip_while"), st.just(lambda x: x < 10)),
    st.tuples(st.just("inspect"), st.just(lambda x: None)),
    st.tuples(st.just("dedup"), st.none()),
    st.tuples(st.just("next"), st.none()),
    st.tuples(st.just("peek"), st.none()),
    st.tuples(st.just("chain"), st.just(np.array([3, 3, 4], dtype=np.uint32))),
)


def by_list(items, step, value):
    match step:
        case "take":
            return items[:value]
        case "skip":
            return items[value:]
        case "step_by":
            return items[::value]
        case "where" | "filter":
            return [x for x in items if value(x)]
        case "map":
            return [value(x) for x in items]
        case "take_while":
            return list(itertools.takewhile(value, items))
        case "skip_while":
            return list(itertools.dropwhile(value, items))
        case "dedup":
            return [k for k, _ in itertools.groupby(items)]
        case "next":
            return items[1:]
        case "chain":
            return items + value.tolist()
    return items


def sources(items, cuts):
    borders = [0, *sorted(min(c, len(items)) for c in cuts), len(items)]
    blocks = [np.array(items[a:b], dtype=np.uint16) for a, b in itertools.pairwise(borders)]
    yield TokenIterator(iter(items))
    yield TokenIterator(np.array(items, dtype=np.int64))
    yield TokenIterator.from_blocks(iter(blocks))
    yield TokenIterator(TokenBatch.from_sequences(blocks))


@settings(max_examples=150)
@given(ids, st.lists(st.integers(0, 40), max_size=4), st.lists(steps, max_size=5))
def test_any_chain_of_methods_gives_what_lists_give(items, cuts, chain):
    expected = items
    for step, value in chain:
        expected = by_list(expected, step, value)
    for ends in ("to_list", "to_numpy", "count"):
        for iterator in sources(items, cuts):
            for step, value in chain:
                if step == "next":
                    next(iterator, None)
                elif step == "peek":
                    iterator.peek()
                elif value is None:
                    iterator = getattr(iterator, step)()
                else:
                    iterator = getattr(iterator, step)(value)
            got = getattr(iterator, ends)()
            if ends == "count":
                assert got == len(expected)
            elif ends == "to_numpy":
                assert got.dtype == np.uint32
                assert got.tolist() == expected
            else:
                assert got == expected


@given(ids)
def test_the_ends_agree_with_the_builtins(items):
    def make():
        return TokenIterator(np.array(items, dtype=np.uint32))

    assert make().fold(lambda a, b: a * 3 + b, 1) == TokenIterator(items).fold(
        lambda a, b: a * 3 + b, 1
    )
    assert make().first(-1) == (items[0] if items else -1)
    assert make().last(-1) == (items[-1] if items else -1)
    assert make().any(odd) == any(map(odd, items))
    assert make().all(odd) == all(map(odd, items))
    assert make().find(odd) == next(filter(odd, items), None)
    assert make().enumerate(1).to_list() == list(enumerate(items, 1))
    assert make().zip("abc").to_list() == list(zip(items, "abc"))
    assert make().scan(lambda a, b: a + b, 0).to_list() == list(itertools.accumulate(items))
    assert make().flat_map(lambda x: [x, x]).to_list() == [x for x in items for _ in "ab"]
    assert TokenIterator([items, items]).flatten().to_list() == items * 2
    assert make().batch(3).to_list() == [items[i : i + 3] for i in range(0, len(items), 3)]
    seen = []
    make().for_each(seen.append)
    assert seen == items
    if items:
        assert make().nth(len(items) - 1) == items[-1]
    with pytest.raises(OutOfRangeError):
        make().nth(len(items))


def test_nothing_is_read_before_it_is_asked_for_and_no_more_than_needed():
    pulled = []

    def source():
        for i in itertools.count():
            pulled.append(i)
            yield i

    chain = TokenIterator(source()).map(lambda x: x).filter(odd).skip(1).take(2)
    assert pulled == []
    assert chain.to_list() == [3, 5]
    assert pulled == list(range(6))


def test_blocks_are_read_one_at_a_time():
    made = []

    def blocks():
        for i in range(5):
            made.append(i)
            yield np.full(3, i, dtype=np.uint32)

    chain = TokenIterator.from_blocks(blocks()).skip(4).take(4).chunk(2)
    assert made == []
    assert next(chain).tolist() == [1, 1]
    assert made == [0, 1]
    assert next(chain).tolist() == [2, 2]
    assert made == [0, 1, 2]


def test_an_array_is_not_copied_on_its_way():
    array = np.arange(100, dtype=np.uint32)
    assert np.shares_memory(TokenIterator(array).skip(3).take(50).to_numpy(), array)
    for window in TokenIterator(array).window(7):
        assert np.shares_memory(window, array)


def test_texts_are_encoded_as_they_are_needed():
    asked = []

    def texts():
        for text in ("ab", "", "c", "never"):
            asked.append(text)
            yield text

    stream = TokenIterator.from_texts(ByteTokenizer(), texts(), separator=0)
    assert stream.take(5).to_list() == [97, 98, 0, 0, 99]
    assert asked == ["ab", "", "c"]


@pytest.mark.parametrize("dtype", ["uint16", "<u4", ">u2", "int64"])
def test_files_are_mapped(tmp_path, dtype):
    array = np.arange(1000).astype(dtype)
    array.tofile(tmp_path / "ids.bin")
    np.save(tmp_path / "ids.npy", array)
    assert TokenIterator.from_file(tmp_path / "ids.bin", dtype).to_list() == list(range(1000))
    assert TokenIterator.from_file(tmp_path / "ids.npy").skip(990).to_list() == list(
        range(990, 1000)
    )
    offset = 10 * array.itemsize
    assert TokenIterator.from_file(tmp_path / "ids.bin", dtype, offset=offset).first() == 10


def test_files_that_hold_no_ids_are_refused(tmp_path):
    path = tmp_path / "odd.bin"
    path.write_bytes(b"abc")
    with pytest.raises(FileFormatError, match="whole number"):
        TokenIterator.from_file(path, "uint16")
    with pytest.raises(FileFormatError, match=r"no \.npy file"):
        TokenIterator.from_file(path)
    with pytest.raises(ArgumentError):
        TokenIterator.from_file(path, "float32")
    with pytest.raises(ArgumentError):
        TokenIterator.from_file(path, "uint8", offset=4)
    with pytest.raises(FileMissingError):
        TokenIterator.from_file(tmp_path / "none", "uint8")
    np.save(tmp_path / "floats.npy", np.ones(3))
    with pytest.raises(FileFormatError, match="flat array of integers"):
        TokenIterator.from_file(tmp_path / "floats.npy")
    whole = (tmp_path / "floats.npy").read_bytes()
    for n in range(6, len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(FileFormatError):
            TokenIterator.from_file(path)
    path.write_bytes(b"")
    assert TokenIterator.from_file(path, "uint16").to_list() == []


def test_blocks_that_are_no_ids_are_refused():
    for block in (np.ones(3), np.ones((2, 2), int)):
        with pytest.raises(ArgumentError):
            TokenIterator(block).to_list()
    with pytest.raises(ArgumentError):
        TokenIterator([2**40]).to_numpy()
    with pytest.raises(ArgumentError):
        TokenIterator([-1]).to_numpy()
    with pytest.raises(ArgumentError):
        TokenIterator([]).take(-1)

"""Batches, stages and shapes: what the type checker cannot see, checked at run time."""

import pickle
import threading
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm.errors import ArgumentError, OutOfRangeError, StateError
from rustllm.testing import ByteTokenizer
from rustllm.types import (
    Encoded,
    FixedMatrix,
    FixedWindow,
    TokenBatch,
    Tokens,
    Unchecked,
    as_token_array,
)

sequences = st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=6), max_size=8)


@given(sequences, st.slices(8))
def test_a_batch_is_a_sequence_of_its_sequences(items, cut):
    batch = TokenBatch.from_sequences(items)
    assert batch.tolist() == items
    assert [batch[i].tolist() for i in range(-len(items), len(items))] == items * 2
    assert batch[cut].tolist() == items[cut]
    assert batch.lengths().tolist() == list(map(len, items))
    assert pickle.loads(pickle.dumps(batch)) == batch
    assert batch.n_tokens == sum(map(len, items))


def test_a_sequence_of_a_batch_is_a_read_only_view():
    ids = np.arange(5, dtype=np.uint32)
    batch = TokenBatch(ids, np.array([0, 2, 5]))
    assert np.shares_memory(batch[1], ids)
    with pytest.raises(ValueError, match="read-only"):
        batch[1][0] = 1
    ids[0] = 9  # the owner may still write
    with pytest.raises(OutOfRangeError):
        batch[2]


@pytest.mark.parametrize(
    "offsets", [[], [0], [1, 3], [0, 2], [0, 4], [0, 2, 1, 3], [-1, 3], [[0, 3]], [0.0, 3.0]]
)
def test_offsets_that_break_the_rules_are_refused(offsets):
    with pytest.raises(ArgumentError):
        TokenBatch(np.zeros(3, np.uint32), np.array(offsets))


def test_ids_of_the_wrong_type_are_refused():
    with pytest.raises(ArgumentError):
        TokenBatch(np.zeros(3), np.array([0, 3]))
    with pytest.raises(ArgumentError):
        TokenBatch(np.zeros((1, 3), np.uint32), np.array([0, 1]))


@pytest.mark.parametrize(
    "bad", [[-1], [2**32], [1.5], ["a"], [[1]], np.zeros((2, 2), int), [2**70]]
)
def test_what_is_no_id_is_refused(bad):
    with pytest.raises(ArgumentError):
        as_token_array(bad)


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_ids_of_any_container_become_one_array(ids):
    for source in (ids, tuple(ids), iter(ids), np.array(ids, dtype=np.uint64)):
        array = as_token_array(source)
        assert array.dtype == np.uint32
        assert array.tolist() == ids
    assert as_token_array(array) is array


@given(st.lists(st.integers(0, 300), max_size=10))
def test_tokens_are_encoded_once_every_id_is_in_the_vocabulary(ids):
    tokens = Tokens.unchecked(ids)
    assert tokens.stage is Unchecked
    wrong = [i for i, id in enumerate(ids) if id >= 256]
    if wrong:
        with pytest.raises(OutOfRangeError) as caught:
            tokens.check(256)
        assert caught.value.index == wrong[0]
    else:
        checked = tokens.check(256)
        assert checked.stage is Encoded
        assert checked.decode(ByteTokenizer()) == bytes(ids).decode("utf-8", "replace")
        assert hash(checked) == hash(Tokens.unchecked(ids).check(256))
        assert checked != tokens


def test_tokens_are_made_by_their_constructors_only():
    with pytest.raises(StateError):
        Tokens()
    with pytest.raises(ArgumentError):
        Tokens.unchecked([-1])


def test_a_sized_class_is_made_once_also_by_eight_threads():
    found = []
    barrier = threading.Barrier(8)

    def make():
        barrier.wait()
        found.append(FixedWindow[Literal[977]])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(found)) == 1
    assert found[0].__name__ == "FixedWindow[977]"
    assert issubclass(found[0], FixedWindow)


def test_windows_over_ids_are_views_of_the_right_size():
    ids = np.arange(10, dtype=np.uint32)
    got = list(FixedWindow[Literal[4]].over(ids, stride=3))
    assert [w.ids.tolist() for w in got] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert all(np.shares_memory(w.ids, ids) for w in got)
    assert all(type(w) is FixedWindow[Literal[4]] for w in got)
    assert list(got[0]) == [0, 1, 2, 3]
    assert {got[0], FixedWindow[Literal[4]](range(4))} == {got[0]}


def test_sizes_that_are_none_are_refused():
    for wrong in (Literal[-1], Literal["x"], Literal[1, 2], Literal[True]):
        with pytest.raises(ArgumentError):
            FixedWindow[wrong]
    with pytest.raises(ArgumentError, match="needs its sizes"):
        FixedWindow([1])
    with pytest.raises(ArgumentError):
        FixedMatrix[Literal[2], Literal[2]]([1, 2])


def test_matrices_that_fit_are_added_and_multiplied_as_numpy_does():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    m = FixedMatrix[Literal[2], Literal[3]](a)
    assert np.array_equal((m @ m.T).values, a @ a.T)
    assert (m @ m.T).shape == (2, 2)
    assert np.array_equal((m + m).values, a + a)
    assert type(m.T.T) is type(m)
    with pytest.raises(TypeError):
        m @ a


def test_shapes_that_do_not_go_together_are_refused_in_words():
    two, three = FixedWindow[Literal[2]]([1, 2]), FixedWindow[Literal[3]]([1, 2, 3])
    with pytest.raises(ArgumentError, match="windows of 2 and 3"):
        two.matches(three)
    assert two.matches(FixedWindow[Literal[2]]([1, 5])).tolist() == [True, False]
    assert two.slide(9) == FixedWindow[Literal[2]]([2, 9])
    assert two != [1, 2] and "[1, 2]" in repr(two)
    wide = FixedMatrix[Literal[1], Literal[2]]([[1, 2]])
    with pytest.raises(ArgumentError, match=r"\(1, 2\) and \(1, 2\) cannot be multiplied"):
        wide @ wide
    with pytest.raises(ArgumentError, match="cannot be added"):
        wide + wide.T
    with pytest.raises(TypeError):
        wide + 1
    with pytest.raises(TypeError):
        wide @ np.ones((2, 1))
    assert (wide + wide).values.tolist() == [[2.0, 4.0]]
    assert "[[1.0, 2.0]]" in repr(wide)


def test_tokens_are_added_within_a_stage_and_keep_the_larger_vocabulary():
    small = Tokens.unchecked([1]).check(10)
    both = small + Tokens.encode(ByteTokenizer(), "a")
    assert (both.ids.tolist(), both.stage) == ([1, 97], Encoded)
    assert both.n_vocab == ByteTokenizer().n_vocab
    with pytest.raises(StateError, match="check both or neither"):
        small + Tokens.unchecked([2])
    with pytest.raises(TypeError):
        small + [2]
    assert small != [1] and len(small) == 1
    assert repr(small) == "Tokens[Encoded](1 ids)"

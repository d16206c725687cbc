import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm.errors import ArgumentError, MemoryLimitError
from rustllm.iterators import batched

items = st.lists(st.text("ab", max_size=9), max_size=30)


@given(items, st.integers(1, 5))
def test_batches_by_count_are_slices(items, count):
    expected = [items[i : i + count] for i in range(0, len(items), count)]
    assert list(batched(items, count)) == expected


@given(items, st.integers(1, 12), st.one_of(st.none(), st.integers(1, 4)), st.booleans())
def test_batches_keep_order_and_bounds_and_are_as_full_as_can_be(items, tokens, count, padded):
    def cost(batch):
        lengths = [len(x) for x in batch]
        return len(lengths) * max(lengths) if padded else sum(lengths)

    batches = list(batched(items, count, tokens=tokens, padded=padded))
    assert [x for batch in batches for x in batch] == items
    for batch in batches:
        assert len(batch) == 1 or cost(batch) <= tokens
        assert count is None or len(batch) <= count
    for batch, following in zip(batches, batches[1:]):
        full = count is not None and len(batch) == count
        assert full or cost([*batch, following[0]]) > tokens


def test_an_item_over_the_budget_travels_alone_or_is_an_error():
    assert list(batched(["aaaa", "a"], tokens=2)) == [["aaaa"], ["a"]]
    with pytest.raises(MemoryLimitError) as caught:
        list(batched(["a", "aaaa"], tokens=2, oversize="raise"))
    assert caught.value.index == 1


def test_bounds_that_make_no_sense_are_refused_at_the_call():
    for options in ({}, {"count": 0}, {"tokens": 0}, {"count": 1, "oversize": "drop"}):
        with pytest.raises(ArgumentError):
            batched([], **options)
    with pytest.raises(ArgumentError):
        list(batched([1], tokens=3, length=lambda item: -1))


def test_the_source_is_at_most_one_item_ahead():
    pulled = []
    source = (pulled.append(i) or "ab" for i in range(10))
    batches = batched(source, tokens=4)
    assert next(batches) == ["ab", "ab"]
    assert len(pulled) == 3
    by_count = batched((pulled.append(i) or "ab" for i in range(10)), 2)
    pulled.clear()
    next(by_count)
    assert len(pulled) == 2

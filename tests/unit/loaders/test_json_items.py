"""A JSON array is read an item at a time: what json.loads says, however it comes in pieces."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm.errors import FileFormatError, MemoryLimitError
from rustllm.loaders.json_items import json_items
from rustllm.loaders.records import stream_records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def pieces(text, n):
    return [text[i : i + n] for i in range(0, len(text), n)]


@given(st.lists(VALUES), st.integers(1, 40), st.sampled_from([None, 0, 3]), st.booleans())
def test_items_are_those_of_json_loads(values, n, indent, ascii):
    text = json.dumps(values, indent=indent, ensure_ascii=ascii)
    assert list(json_items(pieces(text, n), "x", 1 << 20)) == values


@given(st.lists(VALUES, min_size=1), st.integers(1, 40), st.data())
def test_a_damaged_array_is_an_error_where_json_loads_has_one(values, n, data):
    text = json.dumps(values)
    at = data.draw(st.integers(0, len(text) - 1))
    text = data.draw(st.sampled_from([text[:at], text[:at] + "}" + text[at:], text + ","]))
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(FileFormatError):
            list(json_items(pieces(text, n), "x", 1 << 20))
        return
    found = list(json_items(pieces(text, n), "x", 1 << 20))
    assert found == (expected if isinstance(expected, list) else [expected])


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("", 0),
        ("[", 1),
        ("[1,", 3),
        ("[1,]", 3),
        ("[1 2]", 3),
        ("[1]]", 3),
        ('["ßß", tru]', 9),
        ('{"a": 1} 2', 9),
        ('["a', 1),
    ],
)
@pytest.mark.parametrize("n", [1, 2, 100])
def test_errors_tell_the_byte(text, offset, n):
    with pytest.raises(FileFormatError) as told:
        list(json_items(pieces(text, n), "x", 100))
    assert told.value.offset == offset


@pytest.mark.parametrize("text", ["[" * 200_000, "[" + "9" * 5000 + "]"])
def test_what_python_refuses_is_a_typed_error(text):
    with pytest.raises(FileFormatError, match="cannot be read"):
        list(json_items(pieces(text, 1 << 16), "x", 1 << 30))


def test_an_item_is_bounded_and_an_array_is_not():
    text = json.dumps(["x" * 50] * 100)
    assert len(list(json_items(pieces(text, 10), "x", 60))) == 100
    with pytest.raises(MemoryLimitError):
        list(json_items(pieces('["' + "x" * 1000, 10), "x", 60))


def test_no_more_than_an_item_is_held():
    given_out = 0

    def source():
        nonlocal given_out
        yield "["
        for i in range(1000):
            given_out = i
            yield '{"a": "' + "x" * 3000 + '"},'
        yield "{}]"

    for i, _ in enumerate(json_items(source(), "x", 1 << 20)):
        assert given_out <= i + 2


def test_a_malformed_item_is_told_at_once():
    def source():
        yield '[{"a": 1}, {"a" 1}'
        yield " " * 100
        raise AssertionError("read on behind the mistake")

    with pytest.raises(FileFormatError, match="':'") as told:
        list(json_items(source(), "x", 1 << 20))
    assert told.value.offset == 16


def test_records_of_an_array_in_another_encoding():
    data = json.dumps([{"text": "ß語"}, {"text": ""}], ensure_ascii=False).encode("utf-16")
    assert list(stream_records(io.BytesIO(data), "json")) == [{"text": "ß語"}, {"text": ""}]

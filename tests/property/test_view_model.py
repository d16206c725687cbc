"""Views against bytes and str, and the UTF-8 check against Python's decoder."""

import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rustllm import TextSlice
from rustllm._core import dispatch
from rustllm._core.utf8 import is_ascii, valid_utf8_length
from rustllm.memory import ByteView

LEVELS = dispatch.available_levels()
small = st.binary(max_size=30)
lines = st.text(alphabet="ab\n\r \té", max_size=40)
fields = st.lists(st.sampled_from([b"a", b"b", b",", b";;", b" ", b"\t", b"\x1c"])).map(b"".join)


@pytest.fixture(params=LEVELS)
def level(request):
    before = dispatch.current_level()
    dispatch.set_level(request.param)
    yield request.param
    dispatch.set_level(before)


def valid_length(data):
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(data)


PIECES = [
    "a" * 64,
    "a" * 31,
    "é",
    "日",
    "🙂",
    "\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
]
BAD = [
    b"\x80",
    b"\xbf\xbf",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xc3",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xe6\x97",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf0\x9f\x99",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xff",
]
utf8ish = st.lists(
    st.one_of(st.sampled_from([p.encode() for p in PIECES]), st.sampled_from(BAD), small),
    max_size=12,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(data=utf8ish)
def test_every_level_agrees_with_the_decoder(data):
    before = dispatch.current_level()
    expected = valid_length(data)
    try:
        for name in LEVELS:
            dispatch.set_level(name)
            assert valid_utf8_length(data) == expected
            assert is_ascii(data) == data.isascii()
    finally:
        dispatch.set_level(before)
    assert valid_utf8_length(data, reference=True) == expected


def test_every_bad_sequence_is_found_at_every_place_of_a_block(level):
    for bad in [*BAD, *(p.encode()[:-1] for p in PIECES[2:] if len(p.encode()) > 1)]:
        for before in [*range(70), *range(120, 132), 250, 255, 256, 257]:
            for after in (b"", b"a", b"a" * 70, "é".encode() * 40, b"a" * 300):
                data = b"a" * before + bad + after
                assert valid_utf8_length(data) == valid_length(data), (before, bad, after)


def test_every_character_is_valid_at_every_place_of_a_block(level):
    for character in PIECES[2:]:
        for before in range(130):
            data = b"a" * before + character.encode() * 40 + b"a" * 3
            assert valid_utf8_length(data) == len(data)


def test_every_code_point_is_valid_and_every_pair_of_bytes_judged_as_python_does(level):
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)])).encode()
    assert valid_utf8_length(everything) == len(everything)
    pad = b"a" * 40
    for first in range(0x80, 0x100):
        for second in range(0, 0x100, 3):
            data = pad + bytes((first, second)) + pad
            assert valid_utf8_length(data) == valid_length(data)


@given(text=lines, keepends=st.booleans())
@example(text="\r\n\r", keepends=True)
def test_lines_are_those_of_bytes_splitlines(text, keepends):
    data = text.encode()
    assert [bytes(x) for x in ByteView(data).splitlines(keepends)] == data.splitlines(keepends)
    assert [bytes(x) for x in TextSlice(text).lines(keepends=keepends)] == data.splitlines(keepends)


@given(
    data=fields, separator=st.sampled_from([None, b",", b";", b";;", b"ab"]), n=st.integers(-1, 4)
)
def test_fields_are_those_of_bytes_split(data, separator, n):
    assert [bytes(x) for x in ByteView(data).split(separator, n)] == data.split(separator, n)
    if separator is not None:
        assert [bytes(x) for x in ByteView(data).partition(separator)] == [
            *data.partition(separator)
        ]
        assert ByteView(data).count(separator) == data.count(separator)


@given(data=fields, chars=st.one_of(st.none(), st.binary(max_size=3)))
def test_stripping_is_that_of_bytes(data, chars):
    view = ByteView(data)
    assert view.strip(chars) == data.strip(chars)
    assert view.lstrip(chars) == data.lstrip(chars)
    assert view.rstrip(chars) == data.rstrip(chars)


@given(
    data=fields,
    needle=st.binary(max_size=2) | fields,
    bounds=st.tuples(*[st.none() | st.integers(-9, 9)] * 2),
)
def test_searching_is_that_of_bytes(data, needle, bounds):
    view = ByteView(data)
    assert view.find(needle, *bounds) == data.find(needle, *bounds)
    assert (needle in view) == (needle in data)
    assert view.startswith(needle) == data.startswith(needle)
    assert view.endswith(needle) == data.endswith(needle)


@given(left=small, right=small)
def test_comparison_and_hash_are_those_of_bytes(left, right):
    assert (ByteView(left) == right) == (left == right)
    assert (ByteView(left) < ByteView(right)) == (left < right)
    assert (ByteView(left) >= right) == (left >= right)
    assert hash(ByteView(left)) == hash(left)


@given(data=small, start=st.none() | st.integers(-40, 40), stop=st.none() | st.integers(-40, 40))
def test_slices_are_those_of_bytes(data, start, stop):
    assert ByteView(data)[start:stop] == data[start:stop]
    assert ByteView(data, start, stop) == data[start:stop]


@given(text=st.text(max_size=60))
def test_text_round_trips(text):
    view = TextSlice(text.encode())
    assert str(view) == text
    assert view == text
    assert hash(view) == hash(text)
    assert view.n_chars == len(text)

"""UTF-8 as strings of every width, against what CPython makes of it."""

import random
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm._core.dispatch import available_levels, current_level, set_level
from rustllm._core.from_utf8 import decode_lines, decode_utf8, read_utf8


@pytest.fixture(params=available_levels())
def level(request):
    before = current_level()
    set_level(request.param)
    yield request.param
    set_level(before)


def check(text):
    found = decode_utf8(text.encode())
    assert found == text
    # Equal strings of another width would compare and hash as different.
    assert hash(found) == hash(text) and found.__sizeof__() == text.encode().decode().__sizeof__()


@pytest.mark.parametrize("widest", [0x7F, 0xFF, 0x7FF, 0xFFFF, 0x10FFFF])
def test_every_level_reads_every_width_at_every_length(level, widest):
    pick = random.Random(widest)
    legal = [*range(0xD800), *range(0xE000, 0x110000)]
    legal = [c for c in legal if c <= widest]
    pools = [
        [pick.randrange(0x80) for _ in range(50)],
        [pick.choice(legal[:0x700]) for _ in range(50)],
        [pick.choice(legal) for _ in range(200)] + [0],
        [0x20] * 40 + [widest],
    ]
    for n in [*range(140), 255, 256, 257, 1000]:
        for pool in pools:
            text = "".join(map(chr, pick.choices(pool, k=n)))
            check(text)
            check(text + chr(widest))
            check(chr(widest) + text)


def test_every_code_point_is_read_right_at_every_level(level):
    for start in range(0, 0x110000, 0x1000):
        check("".join(chr(c) for c in range(start, start + 0x1000) if not 0xD800 <= c < 0xE000))


def test_long_text_is_read_without_the_gil(level):
    for unit in ("plain ", "d\xe9j\xe0 ", "\u4e2d\u6587 ", "\U0001f3c3 "):
        check(unit * 30_000)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=6),
            st.text(max_size=6).map(str.encode),
            st.sampled_from(
                [
                    b"x" * 70,
                    "\u4e2d".encode() * 30,
                    b"\xc0\x80",
                    b"\xed\xa0\x80",
                    b"\xf4\x90\x80\x80",
                    b"\xe4\xb8",
                ]
            ),
        ),
        max_size=12,
    ).map(b"".join),
    st.sampled_from(["strict", "replace", "ignore", "backslashreplace", "surrogateescape"]),
)
@settings(max_examples=1000, deadline=None)
def test_what_is_not_utf8_goes_to_the_handler(data, errors):
    try:
        want = data.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        with pytest.raises(UnicodeDecodeError) as caught:
            decode_utf8(data, errors)
        assert (caught.value.start, caught.value.end) == (error.start, error.end)
        assert caught.value.reason == error.reason
    else:
        assert decode_utf8(data, errors) == want


def test_an_unknown_handler_is_named():
    with pytest.raises(LookupError, match="nonesuch"):
        decode_utf8(b"\xff" * 20, "nonesuch")


def slow_lines(data):
    lines = data.decode().split("\n")
    return [line.removesuffix("\r") for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


PIECES = st.sampled_from(
    [b"\n", b"\r\n", b"\r", b"a", b"word " * 5, "\u4e2d".encode() * 9, b"\xff", b"\xe4\xb8", b""]
)


@given(st.lists(PIECES, max_size=14).map(b"".join), st.data())
@settings(max_examples=1000, deadline=None)
def test_lines_are_those_of_the_text_cut_at_its_line_ends(data, draw):
    n = draw.draw(st.integers(0, len(data)))
    try:
        want = slow_lines(data[:n])
    except UnicodeDecodeError as error:
        with pytest.raises(UnicodeDecodeError) as caught:
            decode_lines(data, n)
        assert (caught.value.start, caught.value.end) == (error.start, error.end)
    else:
        found = decode_lines(data, n)
        assert found == want
        assert [line.__sizeof__() for line in found] == [line.__sizeof__() for line in want]


@pytest.mark.parametrize("n", [-1, 4])
def test_more_bytes_than_there_are_hold_no_lines(n):
    with pytest.raises(IndexError):
        decode_lines(b"a\nb", n)


@pytest.mark.parametrize("text", ["a", "plain " * 999, "d\xe9j\xe0 " * 99, "\u4e2d\U0001f3c3" * 99])
def test_a_file_is_read_into_its_text(text):
    data = text.encode()
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"..." + data + b"\xff")
        for n in (len(data), len(data) + 1, len(data) + 2):
            file.seek(3)
            if n == len(data):
                found = read_utf8(file, n)
                assert found == text and hash(found) == hash(text)
                assert found.__sizeof__() == data.decode().__sizeof__()
            elif n == len(data) + 1:
                assert read_utf8(file, n, "replace") == text + "\ufffd"
                file.seek(3)
                with pytest.raises(UnicodeDecodeError) as caught:
                    read_utf8(file, n)
                assert caught.value.start == len(data)
            else:
                assert read_utf8(file, n) is None


def test_what_could_keep_the_memory_is_not_read_from():
    with tempfile.TemporaryFile() as file, pytest.raises(TypeError):
        read_utf8(file, 1)
    with tempfile.TemporaryFile(buffering=0) as file, pytest.raises(ValueError, match="at least 1"):
        read_utf8(file, 0)

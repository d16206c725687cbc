"""Strings of every width as UTF-8."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm._core.dispatch import available_levels, current_level, set_level
from rustllm._core.text import utf8

CHARS = st.one_of(
    st.characters(), st.sampled_from("aé中🏃\ud800\udc00\udfff\x00\x7f\x80\u07ff\uffff")
)


@given(st.lists(CHARS, max_size=80).map("".join) | st.text("abc \xe9", max_size=80))
@settings(max_examples=400, deadline=None)
def test_surrogates_are_joined_or_replaced_and_the_rest_is_utf8(text):
    want = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    assert utf8(text) == want


@pytest.fixture(params=available_levels())
def level(request):
    before = current_level()
    set_level(request.param)
    yield request.param
    set_level(before)


@pytest.mark.parametrize("widest", [0x7F, 0xFF, 0xFFFF, 0x10FFFF])
def test_every_level_writes_the_same_at_every_length(level, widest):
    pick = random.Random(widest)
    pools = [
        [chr(pick.randrange(0x80)) for _ in range(50)],
        [chr(pick.randrange(min(widest, 0x7FF) + 1)) for _ in range(50)],
        [chr(pick.randrange(widest + 1)) for _ in range(200)] + ["\0"],
    ]
    for n in [*range(70), 127, 128, 129, 500]:
        for pool in pools:
            text = "".join(pick.choices(pool, k=n)) + chr(widest)
            want = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
            assert utf8(text) == want


def test_every_code_point_is_written_right_at_every_level(level):
    for start in range(0, 0x110000, 0x1000):
        text = "".join(chr(c) for c in range(start, start + 0x1000) if not 0xD800 <= c < 0xE000)
        assert utf8(text) == text.encode()

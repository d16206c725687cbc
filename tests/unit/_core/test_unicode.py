"""The character tables against the expression engine of tiktoken."""

import pytest

from rustllm._core import unicode

CHARS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def test_the_version_is_pinned():
    assert unicode.UNICODE_VERSION == "16.0.0"


@pytest.mark.parametrize("name", ["Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "N", "M", "P", "S", "Zs"])
def test_categories_are_those_of_tiktoken(name):
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([i]): i for i in range(256)}
    only = tiktoken.Encoding(
        name, pat_str=rf"\p{{{name}}}", mergeable_ranks=ranks, special_tokens={}
    )
    matched = bytes(only.encode_ordinary("".join(CHARS))).decode()
    assert matched == "".join(c for c in CHARS if unicode.category(c).startswith(name))


def test_white_space_is_that_of_tiktoken():
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([i]): i for i in range(256)}
    only = tiktoken.Encoding("s", pat_str=r"\s", mergeable_ranks=ranks, special_tokens={})
    matched = bytes(only.encode_ordinary("".join(CHARS))).decode()
    space = unicode.CharClass.SPACE
    assert matched == "".join(c for c in CHARS if unicode.char_class(c) == space)

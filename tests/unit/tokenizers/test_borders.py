"""Pretokens cut where no token reaches across: the same ids as merging them whole."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm._core.dispatch import available_levels, current_level, set_level
from rustllm.tokenizers.encoding import Encoding

CHARS = "\u4e2d\u6587\u5b57\u6f22\u3042\u30ab\U00020000\U0001f3c3\u0e01\u00e9a"


def ranks_of(seed, n):
    """Tokens that merging makes, of whole characters and of their pieces, in an order of chance."""
    pick = random.Random(seed)
    tokens = [bytes([b]) for b in range(256)]
    known = set(tokens)
    stream = "".join(pick.choices(CHARS, k=4000)).encode()
    while len(tokens) < 256 + n:
        start = pick.randrange(len(stream) - 30)
        # Two neighbours in the text, each the longest token there or a shorter one.
        parts = []
        for _ in range(2):
            size = max(k for k in range(1, 13) if stream[start : start + k] in known)
            size = pick.choice(
                [k for k in range(1, size + 1) if stream[start : start + k] in known]
            )
            parts.append(stream[start : start + size])
            start += size
        joined = b"".join(parts)
        if joined not in known and len(joined) <= 12:
            known.add(joined)
            tokens.append(joined)
    return {token: rank for rank, token in enumerate(tokens)}


@pytest.fixture(params=available_levels())
def level(request):
    before = current_level()
    set_level(request.param)
    yield request.param
    set_level(before)


@pytest.mark.parametrize("seed", range(6))
def test_parts_merge_as_the_whole_does(level, seed):
    pick = random.Random(seed)
    enc = Encoding(
        "borders", pat_str="cl100k", mergeable_ranks=ranks_of(seed, 20 << seed), special_tokens={}
    )
    for n in [*range(1, 40), 70, 95, 130, 400, 1500]:
        # Letters only, so that the text is one pretoken; more than once, from the cache as well.
        text = "".join(pick.choices([c for c in CHARS if c.isalpha()], k=n))
        want = enc._encoder.encode_piece(text.encode(), reference=True).tolist()
        for _ in range(2):
            assert enc.encode_ordinary(text) == want
        data = bytearray(text.encode())
        data[pick.randrange(len(data))] = pick.randrange(256)
        assert b"".join(map(enc.id_to_bytes, enc._encode_bytes(bytes(data)))) == bytes(data)


ENCODINGS = [
    Encoding("b", pat_str="cl100k", mergeable_ranks=ranks_of(seed, 300), special_tokens={})
    for seed in range(4)
]


@given(st.text(CHARS, min_size=1, max_size=60), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_any_text_of_wide_characters(text, which):
    enc = ENCODINGS[which]
    ids = enc.encode_ordinary(text)
    assert enc.decode(ids) == text
    if text.isalpha():
        assert ids == enc._encoder.encode_piece(text.encode(), reference=True).tolist()


def test_a_part_that_is_a_token_merging_does_not_make_is_merged():
    # No two of its bytes are a token, so the character is one only where it is all of a pretoken.
    char = "\u4e2d".encode()
    ranks = {bytes([i]): i for i in range(256)} | {char: 256}
    enc = Encoding("odd", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={})
    text = "\u6587\u4e2d\u6587\u4e2d"
    for _ in range(3):
        assert enc.encode_ordinary("\u4e2d") == [256]
        assert enc.encode_ordinary(text) == [*text.encode()]

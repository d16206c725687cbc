"""The reader of rank files against one in Python, on whole and on damaged files."""

import base64
import binascii

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from rustllm._core.vocab import MAX_VOCAB

from rustllm._core.rank_file import parse_ranks


def slowly(data: bytes) -> "tuple[dict[int, bytes], int]":
    """Tokens by rank, and the number of the first line that is wrong."""
    found: dict[int, bytes] = {}
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    twice = 0
    for number, line in enumerate(lines, 1):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        try:
            text, rank = line.split(b" ")
            token = base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            return {}, number
        # Python's decoder lets bits stand that no byte takes.
        if not token or base64.b64encode(token) != text:
            return {}, number
        if not rank.isdigit() or int(rank) >= MAX_VOCAB:
            return {}, number
        if int(rank) in found:
            twice = twice or number
        found[int(rank)] = token
    # A rank given twice is seen once everything has been read.
    return ({}, twice) if twice else (found, 0)


TOKENS = st.dictionaries(st.integers(0, 500), st.binary(min_size=1, max_size=20), min_size=1)
PIECES = st.sampled_from(
    [b"YQ==", b"YWI=", b"YWJj", b"YWJjZA==", b"=", b"==", b"Y", b" ", b"\n", b"\r\n", b"\r", b"0"]
    + [b"1", b"7", b"99999999999999999999", b"2097151", b"YR==", b"YWJ=", b"\x00", b"\xff", b"-"]
)


def same(data: bytes) -> None:
    blob, ends, order, bad = parse_ranks(data)
    tokens, expected = slowly(data)
    if expected:
        assert bad == expected
        return
    assert bad == 0
    assert order.tolist() == sorted(tokens)
    assert len(ends) == max(tokens, default=-1) + 2
    assert {int(r): blob[ends[r] : ends[r + 1]] for r in order} == tokens
    assert ends[-1] == len(blob) and np.all(np.diff(ends.astype(np.int64)) >= 0)


@given(TOKENS, st.booleans(), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_files_in_and_out_of_order(tokens, ascending, end, open_ended):
    ranks = sorted(tokens) if ascending else list(tokens)
    data = b"".join(base64.b64encode(tokens[r]) + b" %d" % r + end for r in ranks)
    same(data[: -len(end)] if open_ended else data)


@given(st.lists(PIECES, max_size=12).map(b"".join))
@example(b"")
@example(b"YQ== 0\nYWI= 1\n\r\n\nYQ== 2")
@example(b"YWJ= 0\n")
@example(b"YR== 0\n")
@example(b"YQ==YQ== 0\n")
@example(b"YQ== 0 \n")
@example(b" 0\n")
@example(b"YQ")
@example(b"YQ==")
@example(b"\r")
def test_damaged_files_are_refused_at_their_line(data):
    same(data)


@given(TOKENS, st.data())
def test_one_byte_changed(tokens, draw):
    data = bytearray(b"".join(base64.b64encode(t) + b" %d\n" % r for r, t in tokens.items()))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] = draw.draw(st.integers(0, 255))
    same(bytes(data))

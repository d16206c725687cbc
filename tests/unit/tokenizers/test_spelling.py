"""Ids to bytes, from lists and arrays, against the tokens joined one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm.errors import UnknownTokenError
from rustllm.tokenizers.encoding import Encoding

# Tokens of every length up to 40, three longer; ids 296 to 399 are not in use.
TOKENS = {bytes([b]): b for b in range(256)}
TOKENS |= {bytes([65 + n % 26]) * n: 254 + n for n in range(2, 42)}
TOKENS |= {b"\xe4\xb8\xad" * 100: 400, b"z" * 5000: 401}
ENC = Encoding("spell", pat_str="cl100k", mergeable_ranks=TOKENS, special_tokens={"<s>": 402})
BYTES = {id: token for token, id in TOKENS.items()} | {402: b"<s>"}
USED = sorted(BYTES)


class Index:
    """Something that is an integer, in its own way."""

    def __init__(self, value, then=None):
        self.value, self.then = value, then

    def __index__(self):
        if self.then:
            self.then()
        return self.value


def joined(ids):
    return b"".join(BYTES[int(i)] for i in ids)


@pytest.mark.parametrize("n", [0, 1, 2, 255, 256, 257, 511, 512, 513, 5000, 40_000])
def test_lists_and_arrays_of_any_length_spell_their_tokens(n):
    draw = np.random.default_rng(n)
    # Long tokens are few, or everything takes long; then some stretches of nothing else.
    ids = draw.choice(USED[:-3], n)
    ids[draw.random(n) < 0.01] = 401
    want = joined(ids)
    kinds = [ids.tolist(), tuple(ids.tolist()), list(ids), iter(ids.tolist())]
    kinds += [ids.astype(t) for t in (np.uint32, np.int64, np.uint16, ">u4")]
    kinds += [np.repeat(ids.astype(np.uint32), 2)[::2]]
    for kind in kinds:
        assert ENC.decode_bytes(kind) == want
    assert ENC.decode(ids.astype(np.uint32)) == want.decode("utf-8", "replace")
    assert ENC.decode(ids.tolist()) == want.decode("utf-8", "replace")


def test_nothing_but_long_tokens():
    for id in (401, 400, 280):
        assert ENC.decode_bytes([id] * 700) == joined([id] * 700)
        assert ENC.decode_bytes(np.full(700, id, np.uint32)) == joined([id] * 700)


@given(
    st.lists(
        st.sampled_from([0, 65, 255, 270, 295, 399, 400, 402, 403, 2**31, 2**32, 2**70, -1]),
        max_size=20,
    ),
    st.sampled_from([0, 255, 256, 600]),
)
@settings(max_examples=300, deadline=None)
def test_the_first_id_that_is_not_in_use_is_named(ids, before):
    ids = [70] * before + ids
    wrong = [i for i in ids if i not in BYTES]
    kinds = [ids]
    if all(0 <= i < 2**32 for i in ids):
        kinds.append(np.array(ids, np.uint32))
    for kind in kinds:
        if wrong:
            with pytest.raises(UnknownTokenError) as caught:
                ENC.decode(kind)
            assert str(wrong[0]) in str(caught.value)
        else:
            assert ENC.decode_bytes(kind) == joined(ids)


def test_integers_of_other_kinds_are_taken_and_other_things_refused():
    assert ENC.decode_bytes([True, np.uint8(66), Index(67), 68]) == b"\x01BCD"
    for bad in (1.5, "a", None):
        with pytest.raises(TypeError):
            ENC.decode([65, bad])
        with pytest.raises(TypeError):
            ENC.decode(np.array([65, 1.5]))


def test_a_list_that_changes_under_the_reader_is_noticed():
    ids = [65] * 1000
    ids[300] = Index(66, ids.clear)
    with pytest.raises(RuntimeError, match="changed its size"):
        ENC.decode(ids)

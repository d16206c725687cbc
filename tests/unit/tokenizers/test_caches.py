"""What the caches of pretokens give is what merging gives, however full they are."""

import random

import numpy as np
import pytest

from rustllm._core import dispatch
from rustllm.tokenizers import Encoding

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(params=dispatch.available_levels())
def level(request):
    before = dispatch.current_level()
    dispatch.set_level(request.param)
    yield request.param
    dispatch.set_level(before)


def new_encoding():
    ranks = {bytes([i]): i for i in range(256)}
    for i, pair in enumerate(["th", "he", "in", "the", " t", " the", "an", "ing"]):
        ranks[pair.encode()] = 256 + i
    return Encoding("toy", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={})


def words_of(n, shortest, longest, seed=1):
    pick = random.Random(seed)
    return ["".join(pick.choices(LETTERS, k=pick.randint(shortest, longest))) for _ in range(n)]


def expected(enc, words):
    pieces = [enc._encoder.encode_piece((" " + word).encode(), reference=True) for word in words]
    return np.concatenate(pieces)


@pytest.mark.parametrize(("shortest", "longest"), [(1, 3), (1, 14), (4, 40), (90, 110)])
def test_a_second_reading_gives_what_the_first_gave(level, shortest, longest):
    enc = new_encoding()
    words = words_of(3000, shortest, longest)
    text = " " + " ".join(words)
    want = expected(enc, words)
    for _ in range(3):
        assert np.array_equal(enc.encode_to_numpy(text), want)
        assert enc.encode_ordinary(text) == want.tolist()


def test_a_buffer_that_overflows_is_emptied_and_its_ids_are_forgotten(level):
    enc = new_encoding()
    words = words_of(20_000, 9, 14)
    text = " " + " ".join(words)
    want = enc.encode_to_numpy(text)
    for seed in range(2, 5):  # of some 18 words of memory each, beyond the 4 M that there are
        other = " " + " ".join(words_of(100_000, 13, 14, seed))
        assert enc.decode_bytes(enc.encode_to_numpy(other)) == other.encode()
    assert np.array_equal(enc.encode_to_numpy(text), want)
    assert np.array_equal(want[: len(expected(enc, words[:500]))], expected(enc, words[:500]))


def test_a_key_at_the_end_of_a_text_holds_nothing_behind_it(level):
    enc = new_encoding()
    for n in range(1, 40):
        text = (" the thin hen" * 4)[:n]
        assert enc.decode(enc.encode_to_numpy(text)) == text
        assert np.array_equal(enc.encode_to_numpy(text), enc.encode_to_numpy(text + "\n")[:-1])


def test_threads_that_start_late_learn_from_those_that_read(level):
    enc = new_encoding()
    words = words_of(30_000, 1, 30)
    texts = [" " + " ".join(words[i : i + 200]) for i in range(0, len(words), 200)]
    alone = [enc.encode_to_numpy(text) for text in texts]
    want = np.concatenate(alone)
    for threads in (2, 5, 8):
        flat = enc.encode_batch_flat(texts, threads)
        assert np.array_equal(flat.ids, want)
    assert np.array_equal(want, expected(enc, words))

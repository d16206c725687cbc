"""Batches, counts, long texts and threads give what one call a text gives."""

import os
import threading

import numpy as np
import pytest

from rustllm.errors import ArgumentError, DisallowedSpecialTokenError
from rustllm.tokenizers import Encoding

WORDS = ["the", " cat", " sat", "\n\n", " 12345", "'s", " naïve", " 中文字", "🏃", "  ", "x" * 200]


@pytest.fixture(scope="module")
def enc():
    ranks = {bytes([i]): i for i in range(256)}
    for extra in (
        b"th",
        b"the",
        b" c",
        b" ca",
        b" cat",
        b"xx",
        b"xxxx",
        b"\xe4\xb8",
        b"\xe4\xb8\xad",
    ):
        ranks[extra] = len(ranks)
    return Encoding("toy", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={"<|e|>": 999})


@pytest.fixture(scope="module")
def texts():
    pick = np.random.default_rng(5)
    return ["".join(pick.choice(WORDS, size=n)) for n in pick.integers(0, 200, size=300)]


@pytest.mark.parametrize("threads", [None, 1, 2, 5])
def test_a_batch_is_its_texts_one_by_one(enc, texts, threads):
    want = [enc.encode_ordinary(text) for text in texts]
    flat = enc.encode_batch_flat(texts, threads)
    assert [part.tolist() for part in flat] == want
    assert enc.encode_batch(texts, threads) == want
    assert enc.encode_ordinary_batch(texts, num_threads=threads) == want
    assert enc.count_batch(texts, threads).tolist() == [len(ids) for ids in want]
    assert enc.encode_batch(iter(texts), threads) == want


def test_an_empty_batch_is_empty(enc):
    flat = enc.encode_batch_flat([])
    assert (len(flat.ids), flat.offsets.tolist()) == (0, [0])
    assert enc.encode_batch_flat(["", ""]).offsets.tolist() == [0, 0, 0]


def test_a_batch_names_the_first_text_that_spells_a_special_token(enc, texts):
    with pytest.raises(DisallowedSpecialTokenError) as caught:
        enc.encode_batch_flat([*texts, "é<|e|>", "<|e|>"], 4)
    assert caught.value.position == 1
    assert enc.encode_batch(["<|e|>"], allowed_special="all") == [[999]]


def test_a_batch_of_something_else_is_refused(enc):
    with pytest.raises(TypeError):
        enc.encode_batch("text")
    with pytest.raises(TypeError):
        enc.encode_batch(["text", b"bytes"])
    with pytest.raises(ArgumentError):
        enc.encode_batch(["text"], 0)


@pytest.mark.parametrize("kind", ["words", "no cut", "wide"])
def test_a_long_text_gives_the_ids_of_its_pieces_in_one(enc, texts, kind):
    text = {"words": "".join(texts) * 40, "no cut": "x" * 1_500_000, "wide": "中文" * 250_000}[kind]
    assert len(text.encode()) > 1 << 20
    ids = enc.encode_to_numpy(text)
    assert enc.decode_bytes(ids) == text.encode()
    # With a special token to look for, the text is encoded in one piece.
    assert np.array_equal(ids, enc.encode_to_numpy(text, allowed_special="all"))


def test_a_text_of_several_windows_gives_the_ids_of_one(enc, texts):
    # Cut anywhere: in runs of spaces and letters, between surrogates, without any place to cut.
    parts = ["".join(texts), " \n" * 40_000, "é" * 900_000, "a😀 b\n  c " * 90_000, "x" * 5000]
    text = "".join(parts[i % 5] for i in range(20))
    assert len(text) > 3 << 21
    data = text.encode()
    ids = enc.encode_to_numpy(text)
    assert np.array_equal(ids, enc.encode_to_numpy(text, allowed_special="all"))
    assert np.array_equal(ids, enc._encoder.encode_bytes(data))
    assert enc.count(text) == len(ids)
    assert enc.decode(ids) == text
    ascii_text = ("word " * 9 + "\n" * 5 + "  x's") * 80_000
    assert np.array_equal(
        enc.encode_to_numpy(ascii_text), enc._encoder.encode_bytes(ascii_text.encode())
    )


@pytest.mark.parametrize("char", ["a", "é", "中", "😀"])
@pytest.mark.parametrize("at", [0, (1 << 21) - 3, 1 << 21, 3_000_000, 5_000_000 - 5])
def test_a_special_token_is_found_wherever_it_is_in_a_long_text(enc, char, at):
    text = (char + "b c ") * 1_250_000
    text = text[:at] + "<|e|>" + text[at + 5 :]
    with pytest.raises(DisallowedSpecialTokenError) as caught:
        enc.encode_to_numpy(text)
    assert caught.value.position == at


def test_a_surrogate_pair_over_the_border_of_a_window_is_one_character(enc):
    pair = "\ud83d\ude00"
    for before in ((1 << 21) - 2, (1 << 21) - 1):
        text = "ab " * (before // 3) + "c" * (before % 3) + pair + " d" * 600_000
        assert enc.decode(enc.encode_to_numpy(text)) == text.replace(pair, "😀")


def test_threads_share_an_encoder(enc, texts):
    want = [enc.encode_ordinary(text) for text in texts]
    wrong = []

    def run():
        for _ in range(3):
            if [enc.encode_ordinary(text) for text in texts] != want:
                wrong.append(1)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_encodes(enc, texts):
    want = enc.encode_batch(texts, 2)
    child = os.fork()
    if child == 0:
        os._exit(0 if enc.encode_batch(texts, 2) == want else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

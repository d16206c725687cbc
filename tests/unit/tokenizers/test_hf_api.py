"""as_hf(): answers like tokenizers.Tokenizer, with truncation and padding said in each call."""

import json

import pytest
from paths import SHARED, needs_shared

from rustllm.errors import ArgumentError, UnknownTokenError
from rustllm.tokenizers.tokenizer_json import load

pytestmark = needs_shared
NAMES = ("bert_base_cased", "gpt2", "llama2")
PAIRS = [
    ("The quick brown fox jumps over the lazy dog, naïvely.", None),
    ("Who wrote it? 日本語", "Nobody knows, so it goes on and on."),
    ("short", "a rather longer second text that has to be cut"),
    ("", ""),
]


@pytest.fixture(scope="module", params=NAMES)
def both(request):
    tokenizers = pytest.importorskip("tokenizers")
    path = SHARED / "conformance/models/tokenizers" / f"{request.param}.json"
    return load(path).as_hf(), tokenizers.Tokenizer.from_file(str(path))


def columns(encoding):
    return (
        encoding.ids, encoding.tokens, encoding.offsets, encoding.word_ids, encoding.type_ids,
        encoding.attention_mask, encoding.special_tokens_mask, encoding.sequence_ids,
        [columns(part) for part in encoding.overflowing],
    )  # fmt: skip


@pytest.mark.parametrize(("text", "second"), PAIRS)
@pytest.mark.parametrize("add", [True, False])
def test_texts_and_pairs_are_encoded_alike(both, text, second, add):
    mine, peer = both
    expected = peer.encode(text, second, add_special_tokens=add)
    assert columns(mine.encode(text, second, add_special_tokens=add)) == columns(expected)


@pytest.mark.parametrize("stride", [0, 2])
@pytest.mark.parametrize("length", [5, 8, 13])
@pytest.mark.parametrize("direction", ["right", "left"])
def test_one_text_is_truncated_alike(both, length, stride, direction):
    mine, peer = both
    text = PAIRS[0][0]
    peer.enable_truncation(length, stride=stride, direction=direction)
    try:
        expected = peer.encode(text)
    finally:
        peer.no_truncation()
    got = mine.encode(text, max_length=length, stride=stride, direction=direction)
    assert columns(got) == columns(expected)


@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("length", [9, 14])
def test_the_texts_of_a_pair_are_cut_alike(both, strategy, length):
    mine, peer = both
    for text, second in PAIRS[1:3]:
        peer.enable_truncation(length, strategy=strategy)
        try:
            expected = peer.encode(text, second)
        except Exception:
            with pytest.raises(ArgumentError):
                mine.encode(text, second, max_length=length, strategy=strategy)
            continue
        finally:
            peer.no_truncation()
        got = mine.encode(text, second, max_length=length, strategy=strategy)
        assert columns(got)[:-1] == columns(expected)[:-1]


@pytest.mark.parametrize("direction", ["right", "left"])
def test_batches_are_padded_alike(both, direction):
    mine, peer = both
    peer.enable_padding(direction=direction, pad_id=3, pad_type_id=1, pad_token="!",
                        pad_to_multiple_of=8)  # fmt: skip
    try:
        expected = peer.encode_batch([PAIRS[0][0], PAIRS[1], "x"])
    finally:
        peer.no_padding()
    how = {"pad_direction": direction, "pad_id": 3, "pad_type_id": 1, "pad_token": "!"}
    texts = [PAIRS[0][0], PAIRS[1], "x"]
    got = mine.encode_batch(texts, padding=True, pad_to_multiple_of=8, **how)
    assert [columns(one) for one in got] == [columns(one) for one in expected]
    assert len(mine.encode("x", pad_to=20)) == 20


def test_tokens_words_and_characters_map_onto_each_other(both):
    mine, peer = both
    text, second = PAIRS[1]
    a, b = mine.encode(text, second), peer.encode(text, second)
    assert len(a) == len(b) and repr(a) == f"Encoding(num_tokens={len(a)})"
    for i in range(len(a)):
        assert a.token_to_word(i) == a.word_ids[i] == a.words[i]
        assert a.token_to_sequence(i) == a.sequence_ids[i]
        assert a.token_to_chars(i) == b.token_to_chars(i)
    for sequence in (0, 1):
        for position in range(8):
            assert a.char_to_token(position, sequence) == b.char_to_token(position, sequence)
            assert a.char_to_word(position, sequence) == b.char_to_word(position, sequence)
            assert a.word_to_tokens(position, sequence) == b.word_to_tokens(position, sequence)
            assert a.word_to_chars(position, sequence) == b.word_to_chars(position, sequence)
    assert a.n_sequences == 2


def test_decoding_and_the_vocabulary_are_alike(both):
    mine, peer = both
    ids = peer.encode(*PAIRS[1]).ids
    for skip in (True, False):
        assert mine.decode(ids, skip) == peer.decode(ids, skip_special_tokens=skip)
    assert mine.decode_batch([ids, []]) == peer.decode_batch([ids, []])
    assert mine.get_vocab() == peer.get_vocab()
    assert mine.get_vocab_size(False) == peer.get_vocab_size(False)
    assert mine.token_to_id("zzzzzz?") is None and mine.id_to_token(10**7) is None
    assert mine.id_to_token(300) == peer.id_to_token(300)
    assert {*mine.get_added_tokens_decoder()} == {*peer.get_added_tokens_decoder()}
    for is_pair in (False, True):
        assert mine.num_special_tokens_to_add(is_pair) == peer.num_special_tokens_to_add(is_pair)
    assert json.loads(mine.to_str())["model"] == json.loads(mine.to_str(pretty=True))["model"]
    with pytest.raises(UnknownTokenError):
        mine.decode([10**7])


WORDS = ["The", "quick", "brown,", "fox", "naïvely", "", "日本語"]


@pytest.mark.parametrize("second", [None, ["Nobody", "knows."]])
@pytest.mark.parametrize("add", [True, False])
def test_texts_that_are_words_already_are_encoded_alike(both, second, add):
    mine, peer = both
    options = {"is_pretokenized": True, "add_special_tokens": add}
    got = mine.encode(WORDS, second, **options)
    assert columns(got) == columns(peer.encode(WORDS, second, **options))
    batch = [WORDS, WORDS[:2]] if second is None else [(WORDS, second), (second, WORDS)]
    expected = peer.encode_batch(batch, **options)
    assert [*map(columns, mine.encode_batch(batch, **options))] == [*map(columns, expected)]


def test_an_item_of_a_batch_is_a_text_or_a_pair(both):
    mine, peer = both
    (got,) = mine.encode_batch([("alone",)])
    assert columns(got) == columns(peer.encode("alone"))
    with pytest.raises(ArgumentError, match="not 3"):
        mine.encode_batch([("a", "b", "c")])


def test_what_cannot_be_done_is_an_argument_error(both):
    mine, _ = both
    with pytest.raises(ArgumentError):
        mine.encode("x", is_pretokenized=True)
    with pytest.raises(ArgumentError):
        mine.encode(PAIRS[0][0], max_length=4, stride=9)

"""What a tokenizer gets for free from three methods."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm.errors import (
    ArgumentError,
    DisallowedSpecialTokenError,
    UnknownTokenError,
    UnsupportedError,
)
from rustllm.testing import ByteTokenizer
from rustllm.traits import Tokenizer

END = "<end>"
PLAIN = ByteTokenizer()
SPECIAL = ByteTokenizer([END, "<end>>", "<pad>"])

text_with_specials = st.lists(
    st.one_of(st.text(max_size=5), st.sampled_from([END, "<end>>", "<pad>", "<"])), max_size=8
).map("".join)


def test_a_tokenizer_without_the_three_methods_cannot_be_made():
    class Half(Tokenizer):
        n_vocab = 3

    with pytest.raises(TypeError, match="abstract"):
        Half()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_decode_undoes_encode(text):
    assert PLAIN.decode(PLAIN.encode(text)) == text
    assert PLAIN.count(text) == len(text.encode())


def test_a_special_token_in_text_is_an_error_unless_the_call_says_otherwise():
    with pytest.raises(DisallowedSpecialTokenError) as caught:
        SPECIAL.encode("ab<pad>")
    assert (caught.value.token, caught.value.position) == ("<pad>", 2)
    assert SPECIAL.encode("a<pad>", allowed_special={"<pad>"}) == [97, 258]
    assert SPECIAL.encode("<pad>", disallowed_special=()) == list(b"<pad>")
    assert SPECIAL.encode("<pad>", disallowed_special={END}) == list(b"<pad>")
    assert SPECIAL.encode_ordinary(END) == list(END.encode())


def test_the_longest_of_two_specials_that_begin_alike_wins():
    assert SPECIAL.encode("<end>>", allowed_special="all") == [257]
    assert SPECIAL.encode("<end>>", allowed_special={END}, disallowed_special=()) == [256, 62]


@given(text_with_specials)
def test_encoding_with_all_specials_allowed_splits_at_each_and_decodes_back(text):
    ids = SPECIAL.encode_to_numpy(text, allowed_special="all")
    assert ids.dtype == np.uint32
    back = SPECIAL.decode_bytes(ids)
    assert back == SPECIAL.decode_bytes(SPECIAL.encode_ordinary(text))
    expected = []
    rest = text
    while rest:
        for special, id in (("<end>>", 257), (END, 256), ("<pad>", 258)):
            if rest.startswith(special):
                expected.append(id)
                rest = rest[len(special) :]
                break
        else:
            expected.extend(PLAIN.encode_ordinary(rest[0]))
            rest = rest[1:]
    assert ids.tolist() == expected


@given(st.lists(st.text(max_size=20), max_size=12), st.sampled_from([None, 1, 3]))
def test_a_batch_is_the_loop_for_any_number_of_threads(texts, threads):
    batch = PLAIN.encode_batch_flat(texts, threads)
    assert batch.tolist() == [PLAIN.encode(text) for text in texts]
    assert batch.lengths().tolist() == PLAIN.count_batch(texts).tolist()
    assert PLAIN.encode_batch(texts, threads) == batch.tolist()


def test_a_batch_refuses_no_threads():
    with pytest.raises(ArgumentError):
        PLAIN.encode_batch(["a"], 0)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_offsets_name_the_characters_each_byte_came_from(text):
    ids, offsets = PLAIN.encode_with_offsets(text)
    expected = [(i, i + 1) for i, char in enumerate(text) for _ in char.encode()]
    assert offsets.tolist() == [list(pair) for pair in expected]
    assert offsets.shape == (len(ids), 2)


def test_offsets_are_refused_where_the_ids_do_not_spell_the_text():
    class Lower(ByteTokenizer):
        def _encode_ordinary_to_numpy(self, text):
            return super()._encode_ordinary_to_numpy(text.lower())

    with pytest.raises(UnsupportedError):
        Lower().encode_with_offsets("A")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_stream_decoder_gives_whole_characters_and_in_the_end_the_whole_text(text):
    decoder = PLAIN.stream_decoder()
    pieces = [decoder.push(id) for id in PLAIN.encode(text)]
    assert "".join(pieces) + decoder.finish() == text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


@given(st.lists(st.integers(0, 255)))
def test_stream_decoder_agrees_with_decode_on_bytes_that_are_no_text(ids):
    decoder = PLAIN.stream_decoder()
    assert "".join(map(decoder.push, ids)) + decoder.finish() == PLAIN.decode(ids)


def test_unknown_ids_and_tokens_are_errors_that_are_key_errors():
    with pytest.raises(KeyError):
        PLAIN.decode([256])
    with pytest.raises(UnknownTokenError):
        PLAIN.bytes_to_id(b"ab")
    assert "ab" not in PLAIN
    assert "a" in PLAIN
    assert 97 not in PLAIN


def test_tokens_know_their_id_bytes_and_kind():
    tokens = list(SPECIAL.tokens())
    assert len(tokens) == SPECIAL.n_vocab
    assert tokens[97].text == "a"
    assert not tokens[97].is_special
    assert tokens[256].is_special
    assert SPECIAL.encode_single_token(END) == 256
    assert SPECIAL.token(97) == tokens[97] != tokens[98]
    assert len({SPECIAL.token(97), tokens[97]}) == 1


class Holes(ByteTokenizer):
    """Id 5 is not in use."""

    def id_to_bytes(self, id):
        if id == 5:
            raise UnknownTokenError("no token has the id 5")
        return super().id_to_bytes(id)


def test_ids_that_are_not_in_use_are_passed_over():
    tokenizer = Holes([END])
    assert [token.id for token in tokenizer.tokens()] == [*range(5), *range(6, 257)]
    assert [token.is_special for token in tokenizer.tokens()][-1:] == [True]
    assert tokenizer.encode_single_token(b"\x06") == 6
    with pytest.raises(UnknownTokenError):
        tokenizer.encode_single_token(b"\x05")
    assert b"\x06" in tokenizer and b"\x05" not in tokenizer and 6 not in tokenizer

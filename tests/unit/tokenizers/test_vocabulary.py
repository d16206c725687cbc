"""Vocabulary and WhitespaceTokenizer: values that change into new values."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm.errors import (
    ArgumentError,
    DisallowedSpecialTokenError,
    FileFormatError,
    UnknownTokenError,
)
from rustllm.tokenizers.trainer import BpeTrainer
from rustllm.tokenizers.vocabulary import Vocabulary
from rustllm.tokenizers.whitespace import WhitespaceTokenizer

TOKENS = st.lists(st.binary(min_size=1, max_size=6), unique=True, max_size=20)


def test_ids_are_positions_and_holes_stay_holes():
    vocabulary = Vocabulary(["a", None, b"\xff"])
    assert vocabulary["a"] == 0 and vocabulary[b"\xff"] == 2 and vocabulary[2] == b"\xff"
    assert 1 not in vocabulary and -1 not in vocabulary and "b" not in vocabulary
    assert len(vocabulary) == 2 and vocabulary.n_vocab == 3
    assert list(vocabulary) == [b"a", b"\xff"]
    with pytest.raises(UnknownTokenError):
        vocabulary[1]
    with pytest.raises(UnknownTokenError):
        vocabulary["b"]


def test_bad_vocabularies_are_refused():
    for tokens, special in ((["a", "a"], ()), ([""], ()), (["a"], ["b"])):
        with pytest.raises(ArgumentError):
            Vocabulary(tokens, special)


@given(TOKENS, TOKENS)
def test_extending_keeps_ids_and_adds_each_token_once(first, more):
    old = Vocabulary(first)
    new = old.extend(more, special=True)
    assert all(new[token] == old[token] for token in first)
    assert set(new.tokens()) == {*first, *more}
    assert new.special == {new[token] for token in more}
    assert old.special == frozenset()


@given(TOKENS, TOKENS)
def test_merging_joins_and_comparing_tells_the_difference(first, second):
    left, right = Vocabulary(first), Vocabulary(second, second[:2])
    both = left.merge(right)
    assert set(both.tokens()) == {*first, *second}
    assert both.special == {both[token] for token in second[:2]}
    difference = left.compare(both)
    assert difference.only_left == () and set(difference.only_right) == {*second} - {*first}
    assert not difference.moved and difference.n_shared == len(first)
    assert difference.is_empty == ({*second} <= {*first})
    back = both.compare(right)
    assert {*back.moved} == {t for t in second if both[t] != right[t]}


@given(TOKENS, st.integers(0, 25))
def test_trimming_keeps_special_tokens_and_the_first_others(tokens, size):
    vocabulary = Vocabulary(tokens, tokens[-2:])
    if size < len(vocabulary.special):
        with pytest.raises(ArgumentError):
            vocabulary.trim(size)
        return
    trimmed = vocabulary.trim(size)
    assert len(trimmed) == min(size, len(tokens)) and trimmed.n_vocab == len(trimmed)
    assert {*tokens[-2:]} <= {*trimmed.tokens()}
    ordinary = [token for token in trimmed.tokens() if trimmed[token] not in trimmed.special]
    assert ordinary == tokens[:-2][: len(ordinary)]


def test_leaving_tokens_out_keeps_the_ids_of_the_others():
    vocabulary = Vocabulary(["a", "b", "c"], ["b"]).without(["b"])
    assert vocabulary["c"] == 2 and "b" not in vocabulary and vocabulary.special == frozenset()
    with pytest.raises(UnknownTokenError):
        vocabulary.without(["b"])


@given(TOKENS)
def test_a_saved_vocabulary_is_the_same_again(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("vocabulary") / "v.json"
    vocabulary = Vocabulary([*tokens, None], tokens[:1])
    vocabulary.save(path)
    again = Vocabulary.load(path)
    assert again == vocabulary and hash(again) == hash(vocabulary)
    assert again != Vocabulary(["other"]) and again != 3


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path):
    path = tmp_path / "v.json"
    for text in ("", "[]", "{}", '{"tokens": [3], "special": []}',
                 '{"tokens": ["a"], "special": [4]}', '{"tokens": ["a", "a"], "special": []}',
                 '{"tokens": [{"hex": "zz"}], "special": []}'):  # fmt: skip
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FileFormatError):
            Vocabulary.load(path)


def test_statistics_count_what_is_there():
    numbers = Vocabulary(["ab", None, b"\xff", "<s>"], ["<s>"]).statistics()
    assert numbers == {"n_tokens": 3, "n_special": 1, "n_unused_ids": 1, "mean_bytes": 2.0,
                       "max_bytes": 3, "n_not_utf8": 1}  # fmt: skip
    assert Vocabulary([]).statistics()["mean_bytes"] == 0.0
    assert "3 tokens" in repr(Vocabulary(["a", "b", "c"]))


def test_a_tokenizer_gives_its_vocabulary():
    trained = BpeTrainer(262, special_tokens=["<s>"]).train(["abab abab"])
    vocabulary = Vocabulary.from_tokenizer(trained.tokenizer)
    assert vocabulary["<s>"] == 0 and vocabulary.special == {0}
    assert [vocabulary[token] for token in trained.token_bytes()] == list(range(trained.n_vocab))


# -- whitespace ---------------------------------------------------------------------------------


def test_words_are_fitted_by_frequency_and_size():
    tokenizer = WhitespaceTokenizer.fit(["b a b", "c a b"], max_size=3)
    assert tokenizer.vocabulary.tokens() == [b"<unk>", b"b", b"a"]
    assert tokenizer.encode("a b c") == [2, 1, 0]
    rare = WhitespaceTokenizer.fit(["b a b"], min_count=2, special_tokens=["<s>"])
    assert rare.vocabulary.tokens() == [b"<unk>", b"<s>", b"b"]


@given(st.lists(st.text("ab\u00e9 \t\n", max_size=20), max_size=5))
def test_known_words_come_back(texts):
    tokenizer = WhitespaceTokenizer.fit(texts, unknown=None)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == " ".join(text.split())
        ids, offsets = tokenizer.encode_with_offsets(text)
        assert [text[a:b] for a, b in offsets.tolist()] == text.split()
        assert tokenizer.count(text) == len(ids)


def test_unknown_words_raise_where_nothing_stands_for_them():
    tokenizer = WhitespaceTokenizer.fit(["a"], unknown=None)
    with pytest.raises(UnknownTokenError):
        tokenizer.encode("b")
    with pytest.raises(ArgumentError):
        WhitespaceTokenizer(Vocabulary(["a"]))


def test_special_tokens_are_not_words():
    tokenizer = WhitespaceTokenizer.fit(["a b"], special_tokens=["<s>"])
    assert tokenizer.encode("<s> a", allowed_special="all") == [1, 2]
    assert tokenizer.encode("<s> a", disallowed_special=()) == [0, 2]
    with pytest.raises(DisallowedSpecialTokenError):
        tokenizer.encode("<s> a")


def test_a_whitespace_tokenizer_is_saved_and_pickled(tmp_path):
    tokenizer = WhitespaceTokenizer.fit(["so it goes"])
    tokenizer.save(tmp_path / "v.json")
    for again in (
        WhitespaceTokenizer.load(tmp_path / "v.json"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert again.encode("it goes so on") == tokenizer.encode("it goes so on")
    assert tokenizer.name == "whitespace" and tokenizer.n_vocab == 4
    assert tokenizer.bytes_to_id(b"it") == tokenizer.encode_single_token("it")

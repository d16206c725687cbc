"""Tokens of several bytes, vocabularies that lack some, forgetting, threads, generation."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from constrained_text import END, scribble

import rustllm
from rustllm import constrain
from rustllm._core.automaton import Automaton, TokenTrie
from rustllm.testing import BigramModel, ByteTokenizer

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


class Words(ByteTokenizer):
    """Bytes, and tokens that are several: parts of characters and across their borders."""

    def __init__(self, more, missing=b""):
        super().__init__()
        self._missing = missing
        self._tokens = [*[bytes([b]) for b in range(256)], b"", *more]

    @property
    def n_vocab(self):
        return len(self._tokens)

    def id_to_bytes(self, id):
        if self._tokens[id] in [bytes([b]) for b in self._missing]:
            raise rustllm.UnknownTokenError("not in use", token=id)
        return self._tokens[id]


MORE = [
    b'{"',
    b'":',
    b'", "',
    b'"}',
    b"name",
    b"age",
    b"ab",
    b"\xc3",
    b"\xa9a",
    b"x\xe6\x97",
    b"12",
]
MORE += [b'name":"', b"ab", b"\xff", b"true", b"nul", b"l", b'e": ']


def test_a_mask_is_what_the_bytes_say():
    words = Words(MORE)
    constraint = constrain.json_schema(SCHEMA)
    rng = np.random.default_rng(0)
    for _ in range(20):
        matcher = constraint.start(words, frozenset([END]))
        slow = b""
        while True:
            scores = np.zeros(words.n_vocab + 5, np.float32)
            matcher.mask(scores)
            assert (scores[words.n_vocab :] == -np.inf).all()
            allowed = {int(i) for i in np.flatnonzero(scores == 0)} - {END}
            for id in range(words.n_vocab):
                data = words.id_to_bytes(id)
                other = constrain_bytes(constraint, slow + data) if data else False
                assert (id in allowed) == other, (slow, data)
            assert allowed or matcher.may_end
            if not allowed or len(slow) > 30:
                break
            id = int(rng.choice(sorted(allowed)))
            slow += words.id_to_bytes(id)
            matcher.advance(id)


def constrain_bytes(constraint, data):
    matcher = constraint.start(BYTES, frozenset())
    try:
        for byte in data:
            matcher.advance(byte)
    except rustllm.ArgumentError:
        return False
    return True


BYTES = ByteTokenizer()


def test_texts_of_long_tokens_are_valid():
    jsonschema = pytest.importorskip("jsonschema")
    words, constraint = Words(MORE), constrain.json_schema(SCHEMA)
    for seed in range(60):
        text, done = scribble(constraint, seed, tokenizer=words)
        assert done
        jsonschema.validate(json.loads(text), SCHEMA)


def test_bytes_that_the_vocabulary_lacks_are_never_needed():
    words = Words([b"ab", b"cd"], missing=b"c")
    constraint = constrain.regex("(ab|abc|abcd|b){1,3}")
    for seed in range(40):
        text, done = scribble(constraint, seed, tokenizer=words)
        assert done and "c" not in text
    with pytest.raises(rustllm.UnsupportedError, match="cannot spell"):
        constrain.regex("c+").start(words)


def test_end_tokens_are_for_complete_texts_only():
    matcher = constrain.regex("ab?").start(ByteTokenizer(["<end>"]), frozenset([END, 999]))
    scores = np.zeros(257, np.float32)
    matcher.mask(scores)
    assert np.flatnonzero(scores == 0).tolist() == [ord("a")]
    assert not matcher.advance(ord("a"))
    scores[:] = 0
    matcher.mask(scores)
    assert np.flatnonzero(scores == 0).tolist() == [ord("b"), END]
    assert matcher.advance(ord("b"))
    for id in (ord("b"), END, -1, 10**9):
        with pytest.raises(rustllm.ArgumentError, match="does not fit"):
            matcher.advance(id)


def test_special_tokens_are_no_text():
    tokenizer = ByteTokenizer(["<end>", "aa"])
    matcher = constrain.regex("a*").start(tokenizer, frozenset([END]))
    scores = np.zeros(258, np.float32)
    matcher.mask(scores)
    assert np.flatnonzero(scores == 0).tolist() == [ord("a"), END]


def test_scores_that_are_a_view_are_changed_in_place():
    scores = np.zeros((300, 2), np.float32)
    constrain.regex("a").start(BYTES).mask(scores[:, 0])
    assert np.isinf(scores[:, 0]).sum() == 299 and not scores[:, 1].any()


def test_automata_forget_and_find_again():
    grammar = constrain.json_schema(SCHEMA)._grammar
    trie = TokenTrie([bytes([b]) for b in range(256)])
    small = Automaton(*grammar.network(), trie, 64, 20_000)
    state, epoch = small.start(), small.epoch
    text = b'{"name" : "\xc3\xa9abc", "age":12'
    for at, byte in enumerate(text):
        if small.trim():
            state = small.advance(small.start(), text[:at])
        state = small.advance(state, bytes([byte]))
        assert state >= 0 and small.allowed(state)
    assert small.epoch > epoch and small.n_states < 200
    with pytest.raises(IndexError):
        small.advance(10**6, b"a")


def test_a_matcher_outlives_what_its_automaton_forgets():
    constraint = constrain.regex("(abc){100}")
    one, other = (constraint.start(BYTES) for _ in range(2))
    for i in range(150):
        one.advance(b"abc"[i % 3])
    one._epoch = -1  # as after a trim
    scores = np.zeros(256, np.float32)
    one.mask(scores)
    assert np.flatnonzero(scores == 0).tolist() == [ord("abc"[150 % 3])]
    assert not other.advance(ord("a"))


def test_threads_share_a_constraint():
    constraint = constrain.json_schema(SCHEMA)
    expected = [scribble(constrain.json_schema(SCHEMA), seed) for seed in range(24)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda seed: scribble(constraint, seed), range(24))) == expected


def test_generation_keeps_the_form():
    model = BigramModel.fit('{"name": "Ada", "age": 36} yes no 1985')
    text = model.generate("x", regex="(19|20)[0-9]{2}", seed=1)
    assert re.fullmatch("(19|20)[0-9]{2}", text.text()) and text.finish_reason == "stop"
    out = model.generate("x", json_schema=SCHEMA, seed=2, max_tokens=300).text()
    assert set(json.loads(out)) == {"name", "age"}
    made = model.generate("x", json=True, seed=4, max_tokens=2000)
    made_text = made.text()
    assert made.finish_reason == "length" or json.loads(made_text) is not Ellipsis
    with pytest.raises(rustllm.ArgumentError, match="only one of"):
        model.generate("x", json=True, regex="a")


def test_an_empty_trie_allows_nothing():
    network = constrain.regex("a")._grammar.network()
    automaton = Automaton(*network, TokenTrie([None, b""]))
    assert automaton.allowed(automaton.start()) == []
    with pytest.raises(ValueError, match="scores for 2 tokens"):
        automaton.forbid(0, np.zeros(1, np.float32))

"""Expressions that are not built in: tiktoken's ids through the regex package, or its name."""

import json
import pickle
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm import BpeTrainer, load_tokenizer
from rustllm.errors import (
    ArgumentError,
    DisallowedSpecialTokenError,
    FileFormatError,
    MissingDependencyError,
)
from rustllm.tokenizers import Encoding, save_tokenizer

pytest.importorskip("regex")
TEXT = "the cat sat on the mat, naïve café 😀 日本語 1234567\n\n  indented 'll " * 3
PATTERNS = {
    "words": r"\w+|\s+|[^\w\s]+",
    "holes": r"\p{L}+",  # what it does not match is dropped
    "thirds": r"\p{N}{1,2}|(?i:ca)t?|\s*\S",
    "ahead": r"\s+(?!\S)|\s|\S+",
}


def ranks():
    trained = BpeTrainer(360, pattern=None).train([TEXT] * 3)
    tokens = trained.token_bytes()
    found = {bytes([b]): b for b in range(256)}
    for _, _, made in trained.merges():
        found.setdefault(tokens[made], len(found))
    return found


RANKS = ranks()
SPECIAL = {"<end>": len(RANKS), "<x>": len(RANKS) + 1}


def pair(expression):
    tiktoken = pytest.importorskip("tiktoken")
    what = {"pat_str": expression, "mergeable_ranks": RANKS, "special_tokens": SPECIAL}
    return Encoding("x", **what), tiktoken.Encoding("x", **what)


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("the cat<end>é日😀1 \n'\ud800"), max_size=40))
def test_ids_are_those_of_tiktoken(name, text):
    ours, theirs = pair(PATTERNS[name])
    assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)
    expected = theirs.encode(text, allowed_special="all")
    assert ours.encode(text, allowed_special="all") == expected
    assert ours.encode_to_numpy(text, allowed_special="all").tolist() == expected
    assert ours.encode_batch([text, "a"], allowed_special="all")[0] == expected
    flat = ours.encode_batch_flat(["a", text], allowed_special="all")
    assert flat[1].tolist() == expected
    assert ours.count(text.replace("<end>", "")) == len(
        theirs.encode(text.replace("<end>", ""), disallowed_special=())
    )


def test_the_whole_interface_is_there():
    ours, theirs = pair(PATTERNS["words"])
    assert ours._pat_str == theirs._pat_str == PATTERNS["words"]
    assert ours.decode(ours.encode(TEXT)) == TEXT
    assert ours.decode_with_offsets(ours.encode(TEXT)) == theirs.decode_with_offsets(
        theirs.encode(TEXT)
    )
    assert ours.count_batch([TEXT, ""]).tolist() == [len(theirs.encode(TEXT)), 0]
    again = pickle.loads(pickle.dumps(ours))
    assert again.encode(TEXT) == theirs.encode(TEXT)
    ids, offsets = ours.encode_with_offsets(TEXT)
    assert "".join(TEXT[a:b] for a, b in offsets.tolist() if b > a)[:3] == "the"
    certain, completions = ours.encode_with_unstable("the ca")
    assert (certain, sorted(completions)) == (
        theirs.encode_with_unstable("the ca")[0],
        sorted(theirs.encode_with_unstable("the ca")[1]),
    )


def test_special_tokens_are_refused_with_their_place():
    ours, _ = pair(PATTERNS["words"])
    with pytest.raises(DisallowedSpecialTokenError) as caught:
        ours.encode("é a<x>")
    assert (caught.value.fields["token"], caught.value.fields["position"]) == ("<x>", 3)
    with pytest.raises(DisallowedSpecialTokenError):
        ours.encode_batch(["ok", "<end>"])


def test_an_expression_travels_into_tokenizer_json(tmp_path):
    ours, _ = pair(PATTERNS["words"])
    save_tokenizer(ours, tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path / "tokenizer.json").encode(TEXT) == ours.encode(TEXT)


def test_tekken_takes_any_expression(tmp_path):
    import base64

    entries = sorted(RANKS.items(), key=lambda item: item[1])
    content = {
        "config": {
            "pattern": PATTERNS["words"],
            "default_vocab_size": len(RANKS) + 1,
            "default_num_special_tokens": 1,
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode()}
            for token, rank in entries
        ],
        "special_tokens": [{"rank": 0, "token_str": "<s>"}],
    }
    (tmp_path / "tekken.json").write_text(json.dumps(content))
    tekken = load_tokenizer(tmp_path / "tekken.json")
    ours, _ = pair(PATTERNS["words"])
    assert tekken.encode(TEXT) == [id + 1 for id in ours.encode(TEXT)]
    content["config"]["pattern"] = "("
    (tmp_path / "tekken.json").write_text(json.dumps(content))
    with pytest.raises(FileFormatError):
        load_tokenizer(tmp_path / "tekken.json")


def test_what_is_no_expression_or_lacks_the_package_is_told(monkeypatch):
    with pytest.raises(ArgumentError, match="no regular expression"):
        pair("(")
    monkeypatch.setitem(sys.modules, "regex", None)
    with pytest.raises(MissingDependencyError) as caught:
        pair(PATTERNS["words"])
    assert "rustllm[regex]" in str(caught.value)

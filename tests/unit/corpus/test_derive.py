"""Corpora out of corpora: nothing lost, nothing doubled, and what is promised of windows holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm import corpus
from rustllm.errors import ArgumentError, StateError
from rustllm.testing import ByteTokenizer

END = 256


def make(folder, texts, **options):
    source = folder / "in.txt"
    source.write_text("".join(f"{text}\n" for text in texts))
    return corpus.tokenize(
        [source], folder / "all", ByteTokenizer(["<end>"]), kind="lines", **options
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pick = np.random.default_rng(3)
    texts = ["".join(pick.choice(list("abcdef"), n)) for n in pick.integers(1, 60, 300)]
    return make(tmp_path_factory.mktemp("derive"), texts)


def documents(c):
    return [c[i].tolist() for i in range(len(c))]


def test_shuffling_moves_documents_and_nothing_else(made, tmp_path):
    shuffled = corpus.derive(made, tmp_path / "a", shuffle=1)[""]
    assert documents(shuffled) != documents(made)
    assert sorted(documents(shuffled)) == sorted(documents(made))
    again = corpus.derive(made.folder, tmp_path / "b", shuffle=1)[""]
    assert np.array_equal(again.ids, shuffled.ids) and again.manifest == shuffled.manifest
    other = corpus.derive(made, tmp_path / "c", shuffle=2)[""]
    assert not np.array_equal(other.ids, shuffled.ids)
    assert corpus.verify(shuffled.folder)["documents"] == 300


@pytest.mark.parametrize("shuffle", [None, 5])
def test_splits_share_the_documents_out(made, tmp_path, shuffle):
    parts = corpus.derive(
        made, tmp_path / "s", shuffle=shuffle, splits={"train": 0.9, "validation": 0.1}
    )
    assert [len(part) for part in parts.values()] == [270, 30]
    together = documents(parts["train"]) + documents(parts["validation"])
    assert sorted(together) == sorted(documents(made))
    assert corpus.Corpus(tmp_path / "s" / "train").folder == parts["train"].folder
    some = corpus.derive(made, tmp_path / "t", shuffle=shuffle, splits={"validation": 0.1})
    assert sum(map(len, some.values())) == 30


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_windows_hold_what_they_should(made, tmp_path_factory, data):
    window = data.draw(st.integers(1, 200))
    packing = data.draw(st.sampled_from(["cut", "whole"]))
    shuffle = data.draw(st.sampled_from([None, 4]))
    folder = tmp_path_factory.mktemp("w")
    packed = corpus.derive(
        made, folder / "p", window=window, packing=packing, pad_id=7, shuffle=shuffle
    )[""]
    assert (np.asarray(packed.lengths) == window).all()
    rows = packed.ids.reshape(-1, window)
    ordered = corpus.derive(made, folder / "o", shuffle=shuffle)[""]
    if packing == "cut":
        n = len(ordered.ids) // window * window
        assert np.array_equal(packed.ids, ordered.ids[:n])
        return
    kept = packed.ids[packed.ids != 7]
    assert len(kept) == len(ordered.ids)
    if window >= 60:
        found = [d for row in rows for d in whole_documents(row)]
        assert sorted(found) == sorted(documents(ordered))
        assert len(rows) <= 2 * (len(kept) // window + 1)


def whole_documents(row):
    ids = row.tolist()
    while ids and ids[-1] == 7:
        ids.pop()
    out, held = [], []
    for id in ids:
        held.append(id)
        if id == END:
            out.append(held)
            held = []
    assert not held, "a document that fits was cut"
    return out


def test_formats_can_be_changed_and_corpora_joined(made, tmp_path):
    other = corpus.derive(made, tmp_path / "m", format="megatron")[""]
    assert np.array_equal(other.ids, made.ids)
    assert corpus.verify(other.folder)["tokens"] == len(made.ids)
    parts = corpus.derive(made, tmp_path / "s", splits={"a": 0.5, "b": 0.5})
    joined = corpus.merge([parts["a"], parts["b"].folder], tmp_path / "j")
    assert documents(joined) == documents(parts["a"]) + documents(parts["b"])
    assert corpus.verify(joined.folder)["documents"] == 300
    whole = corpus.merge([made, made], tmp_path / "two")
    assert whole.manifest["text_bytes"] == 2 * made.manifest["text_bytes"]
    assert len(whole.manifest["sources"]) == 2


def test_an_empty_corpus_stays_one(tmp_path):
    made = make(tmp_path, [])
    for options in ({}, {"shuffle": 1}, {"window": 4}, {"window": 4, "packing": "whole"},
                    {"splits": {"a": 0.5}}):  # fmt: skip
        parts = corpus.derive(made, tmp_path / str(options), **options)
        assert [len(part.ids) for part in parts.values()] == [0]


def test_what_does_not_fit_is_said(made, tmp_path):
    for options in (
        {"window": 0}, {"packing": "best"}, {"pad_id": 257}, {"splits": {"a": 0}},
        {"splits": {"a": 0.7, "b": 0.7}}, {"splits": {"../a": 0.5}}, {"splits": {"": 0.5}},
        {"format": "zip"},
    ):  # fmt: skip
        with pytest.raises(ArgumentError):
            corpus.derive(made, tmp_path / "x", **options)
    without = make(tmp_path, ["ab"], end_token=None)
    with pytest.raises(ArgumentError, match="pad_id"):
        corpus.derive(without, tmp_path / "x", window=4, packing="whole")
    with pytest.raises(StateError, match="already"):
        corpus.derive(made, made.folder)
    with pytest.raises(ArgumentError, match="nothing"):
        corpus.merge([], tmp_path / "y")
    (tmp_path / "other").mkdir()
    source = tmp_path / "other" / "in.txt"
    source.write_text("abc")
    foreign = corpus.tokenize([source], tmp_path / "other" / "all", ByteTokenizer())
    with pytest.raises(ArgumentError, match="tokenizers"):
        corpus.merge([made, foreign], tmp_path / "z")

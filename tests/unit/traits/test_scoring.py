"""Log-probabilities of a text."""

import math

import numpy as np
import pytest

from rustllm.errors import ArgumentError, ContextLengthError, OutOfRangeError
from rustllm.testing import BigramModel
from rustllm.traits import scoring

TEXT = "the cat sat on the mat. the cat ran to the man. "


@pytest.mark.parametrize("row_bytes", [1, 5000, 32 << 20])
def test_each_token_is_scored_after_those_before_it(monkeypatch, row_bytes):
    monkeypatch.setattr(scoring, "ROW_BYTES", row_bytes)
    model = BigramModel.fit(TEXT)
    rows = np.float64(model.forward(TEXT.encode(), model.new_state(), logits="all"))
    rows -= rows.max(1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(1, keepdims=True))
    scores = model.score(TEXT, top_logprobs=3)
    ids = np.frombuffer(TEXT.encode(), np.uint8)
    expected = rows[np.arange(len(ids) - 1), ids[1:]]
    assert math.isnan(scores.logprobs[0])
    np.testing.assert_allclose(scores.logprobs[1:], expected, atol=1e-5)
    assert scores.total == pytest.approx(expected.sum(), abs=1e-3)
    assert scores.perplexity == pytest.approx(np.exp(-expected.mean()), abs=1e-4)
    assert scores.top_logprobs[0] == ()
    for row, top in zip(rows[:-1], scores.top_logprobs[1:], strict=True):
        assert [id for id, _ in top] == np.argsort(-row, kind="stable")[:3].tolist()


def test_the_scores_of_a_text_are_those_that_generating_it_gave():
    model = BigramModel.fit(TEXT)
    pieces = list(model.generate("the", max_tokens=20, seed=1))
    ids = list(b"the") + [id for piece in pieces for id in piece.ids]
    got = model.score(ids).logprobs[3:].tolist()
    assert got == [p for piece in pieces for p in piece.logprobs]


def test_texts_that_cannot_be_scored():
    model = BigramModel.fit(TEXT)
    assert math.isnan(model.score("a").perplexity)
    for error, text, options in (
        (ArgumentError, "", {}),
        (ArgumentError, "a", {"top_logprobs": -1}),
        (ContextLengthError, "the cat", {"context": 3}),
        (OutOfRangeError, [1, 10**6], {}),
        (OutOfRangeError, [-1], {}),
    ):
        with pytest.raises(error):
            model.score(text, **options)

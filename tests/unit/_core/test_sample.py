"""The sampler against a plain numpy one that sorts everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm._core import dispatch
from rustllm._core.sample import Sampler


def allowed(scores, temperature, top_k, top_p, min_p):
    """Ids that the cuts keep, with their shares, from the definition."""
    order = np.argsort(-scores, kind="stable")
    weights = np.exp((scores[order].astype(np.float64) - scores.max()) / temperature)
    keep = len(order) if top_k == 0 else min(top_k, len(order))
    keep = min(keep, max(1, int((weights[:keep] >= min_p).sum())))
    share = np.cumsum(weights[:keep]) / weights[:keep].sum()
    keep = min(keep, int(np.searchsorted(share, top_p)) + 1)
    return order[:keep], weights[:keep] / weights[:keep].sum()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.floats(0.2, 3.0),
    st.integers(0, 40),
    st.floats(0.05, 1.0),
    st.floats(0.0, 0.5),
    st.integers(0, 2**32),
)
def test_only_tokens_that_the_cuts_keep_are_drawn(n, temperature, top_k, top_p, min_p, seed):
    scores = np.random.default_rng(seed).standard_normal(n).astype(np.float32) * 4
    draw = Sampler(n, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    # A hair of slack on the cuts: weights here are float32.
    ids, _ = allowed(scores, temperature, top_k, min(1.0, top_p + 1e-4), max(0.0, min_p - 1e-5))
    for _ in range(20):
        assert draw(scores)[0] in ids


@pytest.mark.parametrize(
    "cuts", [{}, {"top_k": 5}, {"top_p": 0.7}, {"min_p": 0.1}, {"top_k": 8, "top_p": 0.8}]
)
def test_tokens_are_drawn_as_often_as_their_share(cuts):
    scores = np.random.default_rng(1).standard_normal(50).astype(np.float32) * 2
    full = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, **cuts}
    ids, share = allowed(scores, 0.9, **full)
    draw = Sampler(50, temperature=0.9, seed=3, **cuts)
    counts = np.bincount([draw(scores)[0] for _ in range(20_000)], minlength=50)
    assert counts.sum() == counts[ids].sum()
    np.testing.assert_allclose(counts[ids] / 20_000, share, atol=0.015)


def test_zero_temperature_takes_the_best_and_the_first_among_equals():
    scores = np.zeros(100, np.float32)
    scores[[40, 60]] = 3
    assert Sampler(100, temperature=0)(scores)[0] == 40


def test_log_probabilities_are_the_models():
    scores = np.random.default_rng(2).standard_normal(1000).astype(np.float32) * 5
    exact = scores - scores.max() - np.log(np.exp(np.float64(scores) - scores.max()).sum())
    for temperature in (0.0, 0.5):
        id, logprob = Sampler(1000, temperature=temperature, top_k=3, seed=1)(scores)
        assert logprob == pytest.approx(exact[id], abs=1e-5)


def test_a_seed_gives_the_same_draws_at_every_level():
    scores = np.random.default_rng(4).standard_normal((30, 777)).astype(np.float32)
    before = dispatch.current_level()
    drawn = []
    try:
        for level in dispatch.available_levels():
            dispatch.set_level(level)
            draw = Sampler(777, temperature=1.2, top_p=0.9, seed=9)
            drawn.append([draw(row) for row in scores])
    finally:
        dispatch.set_level(before)
    assert all(d == drawn[0] for d in drawn)

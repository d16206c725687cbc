"""The sampler against a plain numpy one that sorts everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm._core import dispatch
from rustllm._core.sample import Sampler, draw_rows, likeliest, log_probabilities


def changed(scores, history=(), *, repeat=1.0, frequency=0.0, presence=0.0, bias=None):
    """Scores after bias and penalties, from the definition."""
    scores = scores.astype(np.float64)
    for id, value in (bias or {}).items():
        scores[id] += value
    for id in set(history):
        scores[id] = scores[id] / repeat if scores[id] > 0 else scores[id] * repeat
        scores[id] -= history.count(id) * frequency + presence
    return scores


def allowed(scores, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0):
    """Ids that the cuts keep, with their shares, from the definition."""
    order = np.argsort(-scores, kind="stable")
    weights = np.exp((scores[order].astype(np.float64) - scores.max()) / temperature)
    keep = len(order) if top_k == 0 else min(top_k, len(order))
    keep = min(keep, max(1, int((weights[:keep] >= min_p).sum())))
    order, weights = order[:keep], weights[:keep]
    if typical_p < 1:
        share = weights / weights.sum()
        information = -np.log(share)
        distance = np.abs(information - (share * information).sum())
        by_distance = np.lexsort((order, distance))
        enough = int(np.searchsorted(np.cumsum(share[by_distance]), typical_p)) + 1
        kept = np.sort(by_distance[:enough])
        order, weights = order[kept], weights[kept]
    if top_p < 1:
        share = np.cumsum(weights) / weights.sum()
        keep = min(len(order), int(np.searchsorted(share, top_p)) + 1)
        order, weights = order[:keep], weights[:keep]
    return order, weights / weights.sum()


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 900),
    st.floats(0.2, 3.0),
    st.integers(0, 40),
    st.floats(0.05, 1.0),
    st.floats(0.0, 0.5),
    st.floats(0.1, 1.0),
    st.integers(0, 2**32),
)
def test_the_draw_is_the_one_that_the_definition_makes(
    n, temperature, top_k, top_p, min_p, typical_p, seed
):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(n).astype(np.float32) * 4
    cuts = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    if typical_p < 0.9:
        cuts["typical_p"] = typical_p
    draw = Sampler(n, **cuts, seed=seed)
    ids, share = allowed(scores, **cuts)
    if cuts == {"temperature": temperature, "top_k": 0, "top_p": 1.0, "min_p": 0.0}:
        order = np.argsort(ids)  # nothing is cut: drawn in the order of ids
        ids, share = ids[order], share[order]
    edges = np.cumsum(share)
    for _ in range(20):
        uniform = draw.uniform()
        id, _ = draw(scores)
        # Weights here are float32: a number that falls on an edge may go either way.
        low, high = np.searchsorted(edges, [uniform - 1e-4, uniform + 1e-4])
        assert id in ids[low : high + 1] or _on_the_edge(cuts, scores, id)


def _on_the_edge(cuts, scores, id):
    """Whether cuts that differ by a hair decide otherwise on `id`."""
    loose = {
        name: value + (1e-4 if name in ("top_p", "typical_p") else 0)
        for name, value in cuts.items()
    }
    loose["min_p"] = cuts["min_p"] - 1e-5
    tight = {
        name: value - (1e-4 if name in ("top_p", "typical_p") else 0)
        for name, value in cuts.items()
    }
    tight["min_p"] = cuts["min_p"] + 1e-5
    return (
        len(allowed(scores, **loose)[0]) != len(allowed(scores, **tight)[0])
        and id in allowed(scores, **loose)[0]
    )


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 29), max_size=90),
    st.floats(0.5, 2.0),
    st.floats(-1.0, 2.0),
    st.floats(-1.0, 2.0),
    st.sampled_from([-1, 0, 1, 7, 64]),
    st.dictionaries(st.integers(0, 29), st.floats(-5, 5), max_size=4),
    st.integers(0, 2**32),
)
def test_bias_and_penalties_are_the_definitions(
    history, repeat, frequency, presence, last_n, bias, seed
):
    scores = np.random.default_rng(seed).standard_normal(30).astype(np.float32) * 3
    draw = Sampler(
        30,
        temperature=0,
        repeat_penalty=repeat,
        frequency_penalty=frequency,
        presence_penalty=presence,
        repeat_last_n=last_n,
        logit_bias=bias,
    )
    draw.extend(history)
    for _ in range(5):
        window = history if last_n < 0 else history[len(history) - min(last_n, len(history)) :]
        expected = changed(
            scores, window, repeat=repeat, frequency=frequency, presence=presence, bias=bias
        )
        np.testing.assert_allclose(draw.adjust(scores), expected, atol=1e-4)
        id, _ = draw(scores)
        assert expected[id] >= expected.max() - 1e-4
        history = [*history, id]


def test_a_long_window_forgets_in_order():
    draw = Sampler(50, temperature=0, presence_penalty=1.0, repeat_last_n=10)
    ids = np.random.default_rng(0).integers(0, 50, 5000).tolist()
    draw.extend(ids)
    changed_ids = np.flatnonzero(draw.adjust(np.zeros(50, np.float32)))
    assert set(changed_ids) == set(ids[-10:])


def test_rows_drawn_together_are_those_drawn_alone():
    rng = np.random.default_rng(6)
    rows = [rng.standard_normal(5000).astype(np.float32) for _ in range(9)]
    kinds = [{"temperature": 0}, {"top_k": 9}, {"top_p": 0.8}, {"typical_p": 0.5}, {}]

    def samplers():
        return [Sampler(5000, seed=i, **kinds[i % 5]) for i in range(9)]

    alone = [draw(row) for draw, row in zip(samplers(), rows, strict=True)]
    for threads in (1, 2, 5):
        assert draw_rows(samplers(), rows, [None] * 9, threads) == alone
    one = Sampler(5000)
    with pytest.raises(ValueError, match="sampler of its own"):
        draw_rows([one, one], rows[:2], [None] * 2)


def test_log_probabilities_of_many_rows():
    scores = np.random.default_rng(7).standard_normal((40, 321)).astype(np.float32) * 6
    ids = np.random.default_rng(8).integers(0, 321, 40).astype(np.int32)
    exact = np.float64(scores)
    exact -= exact.max(1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(1, keepdims=True))
    for threads in (1, 3):
        got = log_probabilities(scores, ids, threads)
        np.testing.assert_allclose(got, exact[np.arange(40), ids], atol=2e-6)
    with pytest.raises(ValueError, match="token id 321"):
        log_probabilities(scores, np.full(40, 321, np.int32))


@pytest.mark.parametrize("n", [1, 5, 200, 1000, 5000])
def test_the_likeliest_come_in_order(n):
    scores = np.round(np.random.default_rng(n).standard_normal(1000).astype(np.float32), 1)
    order = np.lexsort((np.arange(1000), -scores))[:n]
    assert [id for id, _ in likeliest(scores, n)] == order.tolist()


def test_scores_that_are_no_numbers_and_forbidden_ones():
    scores = np.zeros(40, np.float32)
    draw = Sampler(40, top_p=0.9, seed=1)
    scores[:39] = -np.inf
    assert draw(scores) == (39, 0.0)
    with pytest.raises(ArithmeticError, match="forbidden"):
        draw(np.zeros(40, np.float32), np.full(40, -np.inf, np.float32))
    for bad in (np.nan, np.inf):
        scores[3] = bad
        with pytest.raises(FloatingPointError):
            draw(scores)


@pytest.mark.parametrize(
    "cuts",
    [
        {},
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.1},
        {"top_k": 8, "top_p": 0.8},
        {"typical_p": 0.6},
    ],
)
def test_tokens_are_drawn_as_often_as_their_share(cuts):
    scores = np.random.default_rng(1).standard_normal(50).astype(np.float32) * 2
    ids, share = allowed(scores, 0.9, **cuts)
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

"""Real models against outputs of a float32 reference over the same dequantized weights."""

import json
import lzma

import numpy as np
import pytest
from paths import SHARED, needs_shared

from rustllm.models.load import load_model

pytestmark = needs_shared
CASES = {"smollm2": "smollm2_f32.json", "gemma3": "gemma3_f32.json"}


@pytest.fixture(scope="module", params=CASES)
def model_file(request):
    return request.getfixturevalue(f"{request.param}_path"), CASES[request.param]


def greedy(model, state, scores, n):
    ids = []
    for _ in range(n):
        ids.append(int(scores.argmax()))
        if len(ids) < n:
            scores = model.forward([ids[-1]], state)
    return ids


def test_exact_mode_reproduces_logits_and_greedy_continuations(model_file):
    path, vectors = model_file
    model = load_model(path, exact=True)
    for name, case in json.loads((SHARED / "vectors" / vectors).read_text()).items():
        state = model.new_state(512)
        scores = model.forward(case["ids"], state)
        off = np.abs(scores[case["top_ids"]] - np.array(case["top_logits"])).max()
        assert off < 2e-3, name
        assert greedy(model, state, scores, len(case["greedy"])) == case["greedy"], name


def test_fast_mode_agrees_on_the_first_token_where_it_is_clear(model_file):
    path, vectors = model_file
    model = load_model(path)
    for name, case in json.loads((SHARED / "vectors" / vectors).read_text()).items():
        best, second = case["top_logits"][:2]
        scores = model.forward(case["ids"], model.new_state(512))
        if best - second > 0.5:
            assert int(scores.argmax()) == case["top_ids"][0], name


def log_probabilities(model, ids):
    scores = model.forward(ids, model.new_state(512), logits="all").astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def test_fast_mode_stays_close_to_exact_mode_over_a_text(model_file):
    path, _ = model_file
    with lzma.open(SHARED / "corpora" / "english.txt.xz") as file:
        text = file.read(4000).decode(errors="ignore")
    exact, fast = load_model(path, exact=True), load_model(path)
    ids = exact._encode_prompt(text)[:256]
    assert len(ids) == 256
    reference, got = log_probabilities(exact, ids), log_probabilities(fast, ids)
    divergence = (np.exp(reference) * (reference - got)).sum(axis=1)
    assert divergence.mean() <= 0.003


@pytest.mark.parametrize(("kv_dtype", "most"), [("bfloat16", 0.003), ("int8", 0.003)])
def test_a_coarser_cache_stays_close_to_the_exact_scores(model_file, kv_dtype, most):
    path, _ = model_file
    with lzma.open(SHARED / "corpora" / "english.txt.xz") as file:
        text = file.read(4000).decode(errors="ignore")
    exact = load_model(path, exact=True)
    coarse = load_model(path, exact=True, kv_dtype=kv_dtype)
    ids = exact._encode_prompt(text)[:256]
    reference, got = log_probabilities(exact, ids), log_probabilities(coarse, ids)
    divergence = (np.exp(reference) * (reference - got)).sum(axis=1)
    assert 0 < divergence.mean() <= most


def test_a_real_model_gives_the_same_bits_however_it_is_fed(model_file):
    path, vectors = model_file
    case = next(iter(json.loads((SHARED / "vectors" / vectors).read_text()).values()))
    one, two = load_model(path, threads=1), load_model(path, threads=2)
    whole = one.forward(case["ids"], one.new_state(512), logits="all")
    assert np.array_equal(two.forward(case["ids"], two.new_state(512), logits="all"), whole)
    state = two.new_state(512)
    steps = [two.forward([id], state) for id in case["ids"]]
    assert np.array_equal(np.array(steps), whole)

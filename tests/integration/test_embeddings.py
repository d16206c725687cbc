"""Embeddings: the hidden rows of transformers for every architecture; the real model's sense."""

import numpy as np
import pytest

import rustllm


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def model(smollm2_path):
    return rustllm.load_model(smollm2_path, threads=2)


TEXTS = [
    "The cat sleeps on the sofa.",
    "A kitten is napping on the couch.",
    "Interest rates rose by half a percent this quarter.",
    "x",
    "naïve café 数字 " * 150,
]


@pytest.mark.parametrize("pooling", ["mean", "last", "first", "cls", "none"])
def test_texts_together_have_the_bits_of_each_alone(model, pooling):
    together = model.embed(TEXTS, pooling=pooling)
    other = rustllm.load_model(model.path, threads=1)
    assert len(together) == len(TEXTS)
    for text, vectors in zip(TEXTS, together, strict=True):
        alone = other.embed(text, pooling=pooling)
        assert alone.dtype == np.float32 and np.array_equal(vectors, alone)
        assert alone.shape[-1] == model.config.n_embd and alone.ndim == 1 + (pooling == "none")
        assert np.allclose(np.linalg.norm(alone, axis=-1), 1, atol=1e-6)


def test_poolings_are_of_the_same_rows(model):
    rows = model.embed(TEXTS[0], pooling="none", normalize=False)
    ids = model.tokenizer.encode(TEXTS[0])
    assert len(rows) == len(ids)
    mean = model.embed(TEXTS[0], normalize=False)
    assert np.allclose(mean, rows.mean(0), atol=1e-5)
    assert np.array_equal(model.embed(TEXTS[0], pooling="last", normalize=False), rows[-1])
    assert np.array_equal(model.embed(TEXTS[0], pooling="cls", normalize=False), rows[0])


def test_rows_are_what_the_output_layer_is_given(model):
    exact = rustllm.load_model(model.path, exact=True)
    rows = exact.embed(TEXTS[0], pooling="none", normalize=False)
    ids = exact.tokenizer.encode(TEXTS[0])
    scores = exact.forward(ids, exact.new_state(), logits="all")
    table = exact._engine_weights()["token_embd.weight"]
    for id in (0, 17, 4000):
        assert np.allclose(rows @ table.row(id), scores[:, id], atol=2e-3)


def test_what_is_alike_lies_near(model):
    cat, kitten, rates = model.embed(TEXTS[:3])
    assert cosine(cat, kitten) > cosine(cat, rates)


def test_bad_calls(model):
    assert model.embed([]).shape == (0, model.config.n_embd)
    for call, text in (
        (lambda: model.embed("x", pooling="max"), "pooling must be one of"),
        (lambda: model.embed(["x", ""]), "text 1 has no tokens"),
        (lambda: model.embed(["x", 3]), "text 1 is int"),
    ):
        with pytest.raises(rustllm.ArgumentError, match=text):
            call()
    with pytest.raises(rustllm.ContextLengthError, match="text 0 has"):
        model.embed("a b " * 5000)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_embeddings_are_those_of_transformers(tmp_path_factory):
    pytest.importorskip("torch", reason='needs the extra: pip install "rustllm[reference]"')
    pytest.importorskip("transformers", reason='needs the extra: pip install "rustllm[reference]"')
    import torch
    from reference_models import CASES, make, save

    ids = np.random.default_rng(4).integers(0, 101, 90)
    for case in CASES:
        home = tmp_path_factory.mktemp(case)
        theirs = save(make(case), home / "hf")
        with torch.no_grad():
            out = theirs(torch.from_numpy(ids)[None], output_hidden_states=True)
        expected = out.hidden_states[-1][0].numpy()
        ours = rustllm.load_model(home / "hf", threads=2, exact=True)
        cache = ours.new_state(len(ids))._cache
        rows = ours._hidden.read([ours._tokens(ids)], [len(ids)], [cache], 2)[0]
        assert np.abs(expected).max() > 0.5
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-4, err_msg=case)

"""Every architecture on random weights, without a reference: what it gives depends on nothing."""

import numpy as np
import pytest

from rustllm._core import dispatch
from rustllm._core.engine import Workspace

from .tiny import tiny_model

IDS = np.random.default_rng(5).integers(0, 83, 150)
CHANGES = {
    "llama": {"rope_halves": True, "biases": ("attn_q", "attn_k", "attn_v", "attn_output")},
    "qwen2": {"biases": ("attn_q", "attn_k", "attn_v"), "tied": False, "windows": (0, 29)},
    "qwen3": {"n_rot": 24},
    "qwen3moe": {"n_experts": 9, "n_experts_used": 3, "n_ff_expert": 64, "dense_layers": (1,)},
    "gemma2": {"attention_softcap": 2.0, "final_softcap": 5.0, "window": 37},
    "gemma3": {"n_layers": 7},
    "phi3": {"n_rot": 12, "rope_original_ctx": 100, "rope_magnitude": 1.2},
    "gpt2": {"n_kv_heads": 6, "n_rot": 0, "activation": "gelu_tanh", "n_ctx": 300},
    "gptneox": {"n_rot": 6, "n_kv_heads": 6, "activation": "gelu", "parallel_residual": True},
}
EVERY = pytest.mark.parametrize("name", CHANGES)
KINDS = pytest.mark.parametrize(
    "kind", [{}, {"exact": True}, {"type_id": 8}], ids=["float", "exact", "int8"]
)


def make(name, **kind):
    return tiny_model(name, **{"n_layers": 2, **CHANGES[name], **kind})


@EVERY
@KINDS
def test_pieces_threads_and_instructions_do_not_matter(name, kind):
    model = make(name, **kind)
    expected = model.forward(IDS, model.new_state(), logits="all")
    assert np.isfinite(expected).all()
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    before = dispatch.current_level()
    try:
        for level in dispatch.available_levels():
            dispatch.set_level(level)
            for threads, step in ((1, 150), (2, 7), (3, 64), (2, 1)):
                model = make(name, threads=threads, **kind)
                state = model.new_state()
                parts = [
                    model.forward(IDS[i : i + step], state, logits="all")
                    for i in range(0, 150, step)
                ]
                assert np.array_equal(np.concatenate(parts), expected), (level, threads, step)
    finally:
        dispatch.set_level(before)


@EVERY
@KINDS
def test_neighbours_in_a_batch_do_not_matter(name, kind):
    model = make(name, threads=2, **kind)
    lengths = (40, 1, 9)
    alone = [model.forward(IDS[:n], model.new_state(), logits="all") for n in lengths]
    states = [model.new_state() for _ in range(3)]
    sequences = [
        (state._cache, IDS[:n].astype(np.int32)) for state, n in zip(states, lengths, strict=True)
    ]
    scores = np.empty((50, 83), np.float32)
    kept = np.arange(50, dtype=np.int32)
    assert model._engine.forward(Workspace(), sequences, kept, scores, 2)
    assert np.array_equal(scores, np.concatenate(alone))


def test_a_window_shorter_than_the_text_hides_what_is_before_it():
    """With one layer, a token's scores depend on the tokens in its window alone."""
    window = 21
    model = make("llama", n_layers=1, window=window, exact=True)
    other = IDS.copy()
    other[:60] = (other[:60] + 1) % 83
    a, b = (model.forward(ids, model.new_state(), logits="all") for ids in (IDS, other))
    assert np.array_equal(a[60 + window - 1 :], b[60 + window - 1 :])
    assert not np.array_equal(a[60 + window - 2], b[60 + window - 2])


def test_a_state_of_long_context_turns_at_other_frequencies():
    model = make("phi3", exact=True)
    short, long = (model.new_state(context) for context in (100, 101))
    a, b = (model.forward(IDS[:50], state) for state in (short, long))
    assert np.abs(a - b).max() > 0.01
    # Both in one batch: each keeps its own.
    scores = np.empty((2, 83), np.float32)
    states = [model.new_state(100), model.new_state(101)]
    sequences = [(state._cache, IDS[:50].astype(np.int32)) for state in states]
    kept = np.array([49, 99], np.int32)
    assert model._engine.forward(Workspace(), sequences, kept, scores, 1)
    assert np.array_equal(scores, np.stack([a, b]))

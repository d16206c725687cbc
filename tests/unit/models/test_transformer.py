"""The engine on small random models: every way of feeding tokens gives the same bits."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from rustllm._core import dispatch, threads
from rustllm.errors import (
    ArgumentError,
    CancelledError,
    ContextLengthError,
    ModelError,
    OutOfRangeError,
    StateError,
)
from rustllm.models.state import in_use

from .tiny import tiny_config, tiny_model

IDS = np.random.default_rng(5).integers(0, 83, 300)
ARCHITECTURES = pytest.mark.parametrize("name", ["llama", "gemma3"])
KINDS = pytest.mark.parametrize(
    "kind",
    [{}, {"exact": True}, {"type_id": 8}, {"kv_dtype": "bfloat16"}, {"kv_dtype": "int8"}],
    ids=["float", "exact", "int8", "bfloat16 cache", "int8 cache"],
)


@ARCHITECTURES
@KINDS
def test_whole_in_pieces_and_token_by_token_are_the_same_bits(name, kind):
    model = tiny_model(name, **kind)
    expected = model.forward(IDS, model.new_state(), logits="all")
    for step in (1, 7, 64):
        state = model.new_state()
        parts = [model.forward(IDS[i : i + step], state, logits="all") for i in range(0, 300, step)]
        assert np.array_equal(np.concatenate(parts), expected), step
    assert np.array_equal(model.forward(IDS, model.new_state()), expected[-1])


@ARCHITECTURES
@KINDS
def test_any_number_of_threads_gives_the_same_bits(name, kind):
    expected = None
    for n_threads in (1, 2, 3, 5):
        model = tiny_model(name, threads=n_threads, **kind)
        state = model.new_state()
        scores = model.forward(IDS[:150], state, logits="all")
        step = model.forward(IDS[150:151], state)
        if expected is None:
            expected = scores, step
        assert np.array_equal(scores, expected[0])
        assert np.array_equal(step, expected[1])


@ARCHITECTURES
@KINDS
def test_every_simd_level_gives_the_same_bits(name, kind):
    before = dispatch.current_level()
    results = []
    try:
        for level in dispatch.available_levels():
            dispatch.set_level(level)
            model = tiny_model(name, **kind)
            state = model.new_state()
            results.append((model.forward(IDS[:140], state), model.forward(IDS[140:141], state)))
    finally:
        dispatch.set_level(before)
    for result in results:
        assert np.array_equal(result[0], results[0][0])
        assert np.array_equal(result[1], results[0][1])


def reference_attention(q, k, v, window):
    """Softmax attention of one head in double precision, causal, with an optional window."""
    n = len(q)
    scores = q @ k.T
    i, j = np.indices((n, n))
    hidden = (j > i) | ((i - j >= window) if window else False)
    scores[hidden] = -np.inf
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (p / p.sum(axis=1, keepdims=True)) @ v


@ARCHITECTURES
def test_exact_mode_agrees_with_plain_numpy(name):
    """A second, independent forward pass, straight from the formulas, in double precision."""
    config = tiny_config(name)
    model = tiny_model(name, exact=True)
    weights = {
        key: np.stack([w.row(i) for i in range(w.shape[0])]) if hasattr(w, "row") else w
        for key, w in model._engine_weights().items()
    }
    weights = {key: w.astype(np.float64) for key, w in weights.items()}
    n = 120
    positions = np.arange(n)[:, None]

    def norm(x, w):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + config.norm_eps) * w

    def rope(x, base, halves):
        i = np.arange(config.n_rot // 2)
        angle = positions * base ** (-2.0 * i / config.n_rot)
        c, s = np.cos(angle), np.sin(angle)
        a, b = (i, i + config.n_rot // 2) if halves else (2 * i, 2 * i + 1)
        out = x.copy()
        out[:, a], out[:, b] = x[:, a] * c - x[:, b] * s, x[:, a] * s + x[:, b] * c
        return out

    gemma = name == "gemma3"
    x = weights["token_embd.weight"][IDS[:n]] * (np.sqrt(config.n_embd) if gemma else 1)
    for layer in range(config.n_layers):
        blk = {k.split(".", 2)[2]: w for k, w in weights.items() if k.startswith(f"blk.{layer}.")}
        local = gemma and layer % 6 < 5
        base = config.rope_base_local if local else config.rope_base
        h = norm(x, blk["attn_norm.weight"])
        q, k, v = (h @ blk[f"attn_{p}.weight"].T for p in "qkv")
        outs = []
        for head in range(config.n_heads):
            shared = head // (config.n_heads // config.n_kv_heads)
            one = slice(head * config.head_dim, (head + 1) * config.head_dim)
            kv = slice(shared * config.head_dim, (shared + 1) * config.head_dim)
            qh, kh = q[:, one], k[:, kv]
            if gemma:
                qh, kh = norm(qh, blk["attn_q_norm.weight"]), norm(kh, blk["attn_k_norm.weight"])
            qh, kh = rope(qh, base, gemma), rope(kh, base, gemma)
            outs.append(
                reference_attention(
                    qh * config.attention_scale, kh, v[:, kv], config.window if local else 0
                )
            )
        y = np.concatenate(outs, axis=1) @ blk["attn_output.weight"].T
        x = x + (norm(y, blk["post_attention_norm.weight"]) if gemma else y)
        h = norm(x, blk["ffn_norm.weight"])
        g = h @ blk["ffn_gate.weight"].T
        if gemma:
            g = 0.5 * g * (1 + np.tanh(0.7978845608028654 * (g + 0.044715 * g**3)))
        else:
            g = g / (1 + np.exp(-g))
        y = (g * (h @ blk["ffn_up.weight"].T)) @ blk["ffn_down.weight"].T
        x = x + (norm(y, blk["post_ffw_norm.weight"]) if gemma else y)
    expected = norm(x, weights["output_norm.weight"]) @ weights["token_embd.weight"].T
    got = model.forward(IDS[:n], model.new_state(), logits="all")
    np.testing.assert_allclose(got, expected, atol=2e-4 * np.abs(expected).max())


def test_a_state_forgets_and_forks():
    model = tiny_model()
    state = model.new_state(200)
    model.forward(IDS[:50], state)
    twin = state.fork()
    first = model.forward(IDS[50:90], state)
    assert np.array_equal(model.forward(IDS[50:90], twin), first)
    state.truncate(50)
    assert state.position == 50
    assert np.array_equal(model.forward(IDS[50:90], state), first)
    state.reset()
    assert np.array_equal(model.forward(IDS[:90], state), first)
    with pytest.raises(OutOfRangeError, match="cannot keep 91 of 90"):
        state.truncate(91)


def test_refused_calls_leave_the_state_as_it_was():
    model = tiny_model()
    state = model.new_state(20)
    model.forward(IDS[:10], state)
    reference = model.forward(IDS[10:12], state.fork())
    for bad, error in (
        ([83], OutOfRangeError),
        ([-1], OutOfRangeError),
        ([1.5], ArgumentError),
        ([], ArgumentError),
        ([[1]], ArgumentError),
        (list(range(11)), ContextLengthError),
    ):
        with pytest.raises(error):
            model.forward(bad, state)
        assert state.position == 10
    with pytest.raises(ArgumentError, match="logits"):
        model.forward([1], state, logits="some")
    with pytest.raises(StateError, match="another model"):
        model.forward([1], tiny_model().new_state())
    assert np.array_equal(model.forward(IDS[10:12], state), reference)


def test_a_context_beyond_training_is_refused():
    model = tiny_model()
    with pytest.raises(ArgumentError, match="1 to 400"):
        model.new_state(401)
    assert model.new_state().context == 400


def test_a_weight_that_is_not_a_number_is_reported():
    model = tiny_model()
    bad = tiny_model()
    bad._engine_weights()["output_norm.weight"][3] = np.nan
    with pytest.raises(ModelError, match="the score of token 0 is nan"):
        bad.forward([1], bad.new_state())
    assert np.isfinite(model.forward([1], model.new_state())).all()


def test_threads_share_a_model_each_with_its_state():
    model = tiny_model(threads=2, type_id=8)

    def steps():
        state = model.new_state()
        out = [model.forward(IDS[:40], state)]
        out += [model.forward(IDS[i : i + 1], state) for i in range(40, 80)]
        return np.array(out)

    expected = steps()
    results = [None] * 4

    def work(i):
        results[i] = steps()

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    for result in results:
        assert np.array_equal(result, expected)


def test_one_state_in_two_threads_is_an_error_not_a_race():
    model = tiny_model()
    state = model.new_state()
    with in_use([state]), pytest.raises(StateError, match="in use by another thread"):
        model.forward([1], state)
    model.forward([1], state)


def test_cancelling_stops_a_prefill_and_keeps_the_state():
    model = tiny_model(n_layers=40, n_ctx=100_000, threads=2)
    state = model.new_state()
    model.forward(IDS[:5], state)
    timer = threading.Timer(0.05, state.cancel)
    timer.start()
    with pytest.raises(CancelledError):
        while True:
            state.truncate(5)
            model.forward(np.tile(IDS, 40), state)
    timer.join()
    assert state.position == 5
    fresh = model.new_state()
    model.forward(IDS[:5], fresh)
    assert np.array_equal(model.forward([7], state), model.forward([7], fresh))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that signal")
def test_a_signal_handler_interrupts_a_prefill():
    model = tiny_model(n_layers=40, n_ctx=100_000)
    state = model.new_state()

    def handler(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(1000):
                state.reset()
                model.forward(np.tile(IDS, 100), state)
        assert time.monotonic() - started < 30
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert state.position == 0
    assert model.forward([1], state).shape == (83,)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_computes_the_same():
    model = tiny_model(threads=2)
    expected = model.forward(IDS[:60], model.new_state())
    assert threads.threads_started() >= 1
    child = os.fork()
    if child == 0:
        try:
            same = np.array_equal(model.forward(IDS[:60], model.new_state()), expected)
            os._exit(0 if same and threads.threads_started() == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(model.forward(IDS[:60], model.new_state()), expected)


def test_the_plan_reads_as_a_list_of_operations():
    model = tiny_model()
    lines = str(model.plan).splitlines()
    assert lines[0] == "  0  x = embed(tokens)  [token_embd.weight]"
    assert lines[-1].endswith("logits = linear(last_in)  [token_embd.weight]")
    assert len(lines) == len(model.plan)

"""States: forks that share memory, files, and several of them in one pass."""

import gc
import threading

import numpy as np
import pytest

from rustllm import serialize
from rustllm._core.engine import Rows
from rustllm._core.kv_cache import DTYPES as CACHE_DTYPES
from rustllm._core.kv_cache import KVCache
from rustllm.errors import (
    ArgumentError,
    CancelledError,
    ContextLengthError,
    FileFormatError,
    FileMissingError,
    HashMismatchError,
    OutOfRangeError,
    RustLLMError,
    StateError,
    TruncatedFileError,
)
from rustllm.models.kv_dtype import KV_DTYPES
from rustllm.models.load import architecture
from rustllm.models.transformer import Transformer

from .tiny import random_weights, tiny_config, tiny_model

IDS = np.random.default_rng(7).integers(0, 83, 400).astype(np.int32)
ARCHITECTURES = pytest.mark.parametrize("name", ["llama", "gemma3"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
PRECISIONS = pytest.mark.parametrize("exact", [False, True], ids=["half", "single"])


# ---- forks ---------------------------------------------------------------------------------------


@ARCHITECTURES
@pytest.mark.parametrize("n", [1, 16, 100, 127, 128, 129, 256, 300])
def test_forks_go_their_own_ways(name, n):
    model = tiny_model(name)
    state = model.new_state()
    model.forward(IDS[:n], state)
    forks = [state.fork() for _ in range(3)]
    parts = [IDS[300 + 7 * i : 300 + 7 * i + 5 + i] for i in range(4)]
    got = [model.forward(part, s) for part, s in zip(parts, [state, *forks], strict=True)]
    for part, scores in zip(parts, got, strict=True):
        expected = model.forward([*IDS[:n], *part], model.new_state())
        assert np.array_equal(scores, expected)
    for part, fork in zip(parts[1:], forks, strict=True):
        assert list(fork.tokens) == [*IDS[:n], *part]


def test_a_fork_takes_memory_for_what_is_written_after_it():
    model = tiny_model()
    state = model.new_state()
    model.forward(IDS[:300], state)  # three segments, the last of them begun
    segment = state.nbytes // 3
    twin = state.fork()
    assert (state.shared_bytes, twin.shared_bytes) == (3 * segment, 3 * segment)
    model.forward(IDS[300:301], twin)
    assert (twin.nbytes, twin.shared_bytes, state.shared_bytes) == (
        3 * segment,
        2 * segment,
        2 * segment,
    )
    model.forward(IDS[301:303], state)  # now the last one is the state's alone: no copy
    assert state.shared_bytes == 2 * segment
    del twin
    gc.collect()
    assert state.shared_bytes == 0


def test_a_fork_of_a_fork_outlives_both():
    model = tiny_model()
    state = model.new_state()
    model.forward(IDS[:200], state)
    twin = state.fork()
    last = twin.fork()
    state.reset()
    model.forward(IDS[200:380], state)  # overwrites what it does not share any more
    del twin
    gc.collect()
    got = model.forward(IDS[200:230], last)
    assert np.array_equal(got, model.forward(IDS[:230], model.new_state()))


def test_truncating_a_fork_leaves_the_other():
    model = tiny_model()
    state = model.new_state()
    model.forward(IDS[:290], state)
    twin = state.fork()
    twin.truncate(130)
    model.forward(IDS[300:390], twin)
    fresh = model.new_state()
    expected = model.forward(IDS[:295], fresh)
    assert np.array_equal(model.forward(IDS[290:295], state), expected)
    fresh.truncate(130)
    expected = model.forward(IDS[300:390], fresh)
    twin.truncate(130)
    assert np.array_equal(model.forward(IDS[300:390], twin), expected)


def test_threads_write_to_forks_of_one_state():
    model = tiny_model()
    state = model.new_state()
    model.forward(IDS[:250], state)
    parts = [IDS[250 + i : 290 + i] for i in range(6)]
    expected = [model.forward([*IDS[:250], *part], model.new_state()) for part in parts]
    wrong = []

    def work(index):
        for fork in forks[index]:
            if not np.array_equal(model.forward(parts[index], fork), expected[index]):
                wrong.append(index)

    forks = [[state.fork() for _ in range(15)] for _ in parts]
    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_cache_refuses_what_does_not_fit():
    cache = KVCache(1, 1, 16, 40)
    for n in (-1, 1):
        with pytest.raises(ValueError, match="positions"):
            cache.truncate(n)
        with pytest.raises(ValueError, match="not written"):
            cache.advance(n)
    with pytest.raises(ValueError, match="at least one"):
        KVCache(1, 1, 0, 40)
    with pytest.raises(ValueError, match="float32, float16, bfloat16, int8"):
        KVCache(1, 1, 16, 40, "float8")
    with pytest.raises(TypeError, match="once"):
        cache.__init__(1, 1, 16, 40)


def test_segments_larger_than_a_huge_page_hold_what_was_written():
    one, two = (KVCache(8, 8, 128, 300) for _ in range(2))
    rng = np.random.default_rng(1)
    planes = 2 * 8 * 8
    parts = [rng.integers(0, 256, (planes, n * 256), dtype=np.uint8) for n in (128, 128, 32)]
    one.from_arrays(parts, 280)
    twin = one.fork()
    two.from_arrays(twin.to_arrays(), 280)
    two.truncate(5)
    for cache in (one, twin):
        for got, part in zip(cache.to_arrays(), parts, strict=True):
            assert np.array_equal(got, part)
    assert np.array_equal(two.to_arrays()[0], parts[0][:, : 16 * 256])


# ---- dtypes of keys and values -------------------------------------------------------------------


@ARCHITECTURES
@DTYPES
def test_forks_cuts_files_and_batches_give_the_bits_of_a_fresh_state(name, dtype, tmp_path):
    model = tiny_model(name, kv_dtype=dtype)
    state = model.new_state()
    assert state.kv_dtype == model.kv_dtype == dtype
    expected = model.forward(IDS[:210], state)
    model.forward(IDS[300:350], state)
    state.truncate(205)
    twin = state.fork()
    assert twin.kv_dtype == dtype
    state.save(tmp_path / "state")
    loaded = model.new_state()
    loaded.load(tmp_path / "state")
    fresh = model.new_state()
    model.forward(IDS[:205], fresh)
    for other in (state, twin, loaded):
        assert np.array_equal(model.forward(IDS[205:210], other), expected)
    for rows in model.forward_batch([IDS[205:210], IDS[:3]], [fresh, model.new_state()])[:1]:
        assert np.array_equal(np.asarray(rows).reshape(-1, 83)[-1], expected)


@ARCHITECTURES
def test_a_coarser_dtype_stays_near_and_takes_less_memory(name):
    scores, sizes = {}, {}
    for dtype in ("float32", "float16", "bfloat16", "int8"):
        model = tiny_model(name, exact=True)
        state = model.new_state(kv_dtype=dtype)
        scores[dtype] = model.forward(IDS[:200], state, logits="all").astype(np.float64)
        sizes[dtype] = state.nbytes
    spread = scores["float32"].std()
    errors = {key: np.abs(scores[key] - scores["float32"]).mean() / spread for key in scores}
    assert 0 < errors["float16"] < 1e-3
    assert errors["float16"] < errors["bfloat16"] < 2e-2
    assert 0 < errors["int8"] < 3e-2
    assert sizes["float32"] == 2 * sizes["float16"] == 2 * sizes["bfloat16"]
    assert sizes["int8"] < 0.6 * sizes["float16"]


def test_a_state_is_loaded_into_one_of_its_dtype_only(tmp_path):
    model = tiny_model()
    state = model.new_state(kv_dtype="int8")
    model.forward(IDS[:50], state)
    state.save(tmp_path / "state")
    other = model.new_state()
    model.forward(IDS[:7], other)
    with pytest.raises(StateError, match="in int8, not float16") as caught:
        other.load(tmp_path / "state")
    assert "kv_dtype='int8'" in caught.value.hint
    assert other.position == 7
    tree = serialize.load(tmp_path / "state")
    for wrong in (3, "float8", None):
        serialize.dump({**tree, "kv_dtype": wrong}, tmp_path / "wrong")
        with pytest.raises((StateError, FileFormatError)):
            state.load(tmp_path / "wrong")


def test_files_from_before_the_choice_are_float16(tmp_path):
    model = tiny_model()
    state = model.new_state()
    model.forward(IDS[:50], state)
    state.save(tmp_path / "state")
    tree = serialize.load(tmp_path / "state")
    del tree["kv_dtype"]
    serialize.dump(tree, tmp_path / "old")
    loaded = model.new_state()
    loaded.load(tmp_path / "old")
    assert np.array_equal(model.forward(IDS[50:52], loaded), model.forward(IDS[50:52], state))


def test_an_unknown_dtype_is_refused():
    assert KV_DTYPES == CACHE_DTYPES
    with pytest.raises(ArgumentError, match="float8") as caught:
        tiny_model().new_state(kv_dtype="float8")
    assert "float32, float16, bfloat16, int8" in caught.value.hint
    with pytest.raises(ArgumentError, match="'f16'"):
        tiny_model(kv_dtype="f16")


# ---- files ---------------------------------------------------------------------------------------


@ARCHITECTURES
@PRECISIONS
@pytest.mark.parametrize("n", [0, 1, 128, 205])
def test_a_saved_state_goes_on_with_the_same_bits(name, exact, n, tmp_path):
    model = tiny_model(name, exact=exact)
    state = model.new_state()
    if n:
        model.forward(IDS[:n], state)
    path = tmp_path / "state.rllm"
    state.save(path)
    assert list(tmp_path.iterdir()) == [path]
    other = model.new_state(300)
    model.forward(IDS[:17], other)
    other.load(path)
    assert (other.position, list(other.tokens)) == (n, IDS[:n].tolist())
    expected = model.forward(IDS[n : n + 40], state)
    assert np.array_equal(model.forward(IDS[n : n + 40], other), expected)


def test_another_models_state_is_refused(tmp_path):
    path = tmp_path / "state.rllm"
    model = tiny_model()
    state = model.new_state()
    model.forward(IDS[:40], state)
    state.save(path)
    others = [
        tiny_model(seed=1),
        tiny_model(exact=True),
        tiny_model(type_id=8),
        tiny_model(rope_base=500.0),
        tiny_model("gemma3"),
    ]
    for other in others:
        target = other.new_state()
        other.forward(IDS[:3], target)
        with pytest.raises(StateError, match="another model"):
            target.load(path)
        assert target.position == 3
    tiny_model(threads=2).new_state().load(path)  # the same weights, made anew


def test_files_that_are_no_states_are_refused_and_change_nothing(tmp_path):
    model = tiny_model()
    state = model.new_state(50)
    expected = model.forward(IDS[:30], state)
    path = tmp_path / "state.rllm"
    saved = model.new_state()
    model.forward(IDS[:45], saved)
    saved.save(path)
    good = path.read_bytes()
    tree = serialize.loads(good)

    def check(error, content=None, target=path):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(error) as caught:
            state.load(target)
        assert str(target) in str(caught.value.fields["path"])
        assert list(state.tokens) == IDS[:30].tolist()
        state.truncate(29)
        assert np.array_equal(model.forward(IDS[29:30], state), expected)

    check(FileMissingError, target=tmp_path / "none")
    check(FileFormatError, b"GGUF" + bytes(100))
    check(TruncatedFileError, good[:-1])
    check(TruncatedFileError, good[:20])
    damaged = bytearray(good)
    damaged[-40] ^= 1
    check(HashMismatchError, bytes(damaged))
    check(FileFormatError, serialize.dumps([1, 2]))
    check(FileFormatError, serialize.dumps({"kind": "another"}))
    check(FileFormatError, serialize.dumps({**tree, "layout": 99}))
    check(StateError, serialize.dumps({**tree, "model": "0"}))
    ids, segments = tree["ids"], tree["segments"]
    for bad in (None, ids.astype(np.int64), ids + 83, -ids - 1, ids[None]):
        check(FileFormatError, serialize.dumps({**tree, "ids": bad}))
    for bad in (None, [], segments * 2, [segments[0][:, :-1]], [segments[0].view(np.int8)], [1]):
        check(FileFormatError, serialize.dumps({**tree, "segments": bad}))
    long = model.new_state()
    model.forward(IDS[:51], long)
    long.save(path)
    check(ContextLengthError)
    with pytest.raises(FileMissingError):
        state.save(tmp_path / "no folder" / "state.rllm")


def test_every_mutation_of_a_saved_state_loads_or_is_refused(tmp_path):
    model = tiny_model()
    state = model.new_state(64)
    model.forward(IDS[:5], state)
    path = tmp_path / "state.rllm"
    state.save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    target = model.new_state(64)
    for at in [*range(0, 400, 3), *rng.integers(0, len(good), 60)]:
        damaged = bytearray(good)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            target.load(path)
        except RustLLMError:
            continue
        assert list(target.tokens) == IDS[:5].tolist()


# ---- several sequences ---------------------------------------------------------------------------


@ARCHITECTURES
@pytest.mark.parametrize("kind", [{}, {"exact": True}, {"type_id": 8}], ids=str)
def test_sequences_read_together_get_what_each_gets_alone(name, kind):
    model = tiny_model(name, **kind)
    lengths = [1, 5, 128, 1, 300, 17, 130]
    texts = [IDS[i : i + n] for i, n in enumerate(lengths)]
    nexts = [IDS[50 + i : 50 + i + n] for i, n in enumerate([1, 1, 40, 2, 1, 9, 1])]
    alone = []
    for text, after in zip(texts, nexts, strict=True):
        state = model.new_state()
        alone.append([model.forward(text, state), model.forward(after, state, logits="all")])
    for threads in (1, 2, 3):
        model._threads = threads
        states = [model.new_state() for _ in texts]
        first = model.forward_batch(texts, states)
        assert first.shape == (7, 83)
        second = model.forward_batch(nexts, states, logits="all")
        for i, (one, two) in enumerate(alone):
            assert np.array_equal(first[i], one)
            assert np.array_equal(second[i], two)


def test_a_batch_that_is_refused_changes_no_state():
    model = tiny_model()
    states = [model.new_state(30) for _ in range(3)]
    model.forward_batch([IDS[:10]] * 3, states)
    parts = [IDS[:5], IDS[:5], IDS[:5]]

    def check(error, parts, states):
        with pytest.raises(error):
            model.forward_batch(parts, states)
        assert [s.position for s in states] == [10] * len(states)

    check(ContextLengthError, [IDS[:5], IDS[:21], IDS[:5]], states)
    check(OutOfRangeError, [IDS[:5], [1, 83], IDS[:5]], states)
    check(ArgumentError, [IDS[:5], [], IDS[:5]], states)
    check(ArgumentError, parts[:2], states)
    check(ArgumentError, [], [])
    check(ArgumentError, parts, [states[0], states[1], states[0]])
    check(StateError, parts, [states[0], states[1], _read(tiny_model(seed=3))])
    assert model.forward_batch(parts, states).shape == (3, 83)


def _read(model):
    state = model.new_state(30)
    model.forward(IDS[:10], state)
    return state


def test_cancelling_one_state_stops_the_batch_and_keeps_all():
    model = tiny_model(n_ctx=200_000, n_layers=4)
    states = [model.new_state() for _ in range(3)]
    model.forward_batch([IDS[:10]] * 3, states)
    long = np.resize(IDS, 60_000)
    timer = threading.Timer(0.2, states[1].cancel)
    timer.start()
    with pytest.raises(CancelledError):
        model.forward_batch([IDS[:3], long, long], states)
    timer.join()
    assert [s.position for s in states] == [10, 10, 10]
    assert [len(s.tokens) for s in states] == [10, 10, 10]


def test_a_table_of_embeddings_that_stays_in_its_file_tells_models_apart(tmp_path):
    # Untied models look their embeddings up where they lie.
    def model(seed):
        config = tiny_config("llama", tied=False)
        plan = architecture("llama")(config)
        weights = random_weights(plan, 3)
        values = np.random.default_rng(seed).standard_normal((83, 64)).astype(np.float32)
        weights["token_embd.weight"] = Rows(0, 83, 64, values.view(np.uint8).reshape(-1))
        assert np.array_equal(weights["token_embd.weight"].row(82), values[82])
        with pytest.raises(IndexError):
            weights["token_embd.weight"].row(83)
        return Transformer(config, plan, weights, threads=1)

    first = model(0)
    state = first.new_state(32)
    first.forward([1, 2, 3], state)
    state.save(tmp_path / "s")
    again = model(0).new_state(32)
    again.load(tmp_path / "s")
    assert again.position == 3
    with pytest.raises(StateError):
        model(1).new_state(32).load(tmp_path / "s")

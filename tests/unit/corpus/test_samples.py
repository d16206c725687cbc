"""Windows in every order: complete, repeatable, shared out, resumable, and in PyTorch's workers."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm import corpus
from rustllm.corpus import Samples
from rustllm.corpus.permutation import Permutation
from rustllm.errors import ArgumentError, OutOfRangeError, StateError
from rustllm.testing import ByteTokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    source = folder / "in.txt"
    source.write_bytes(bytes(np.random.default_rng(0).integers(32, 127, 5003, dtype=np.uint8)))
    return corpus.tokenize([source], folder / "out", ByteTokenizer())


@given(st.integers(0, 3000), st.integers(-(2**70), 2**70))
@settings(max_examples=60, deadline=None)
def test_a_permutation_is_one(n, seed):
    order = Permutation(n, seed)
    assert sorted(order[i] for i in range(n)) == list(range(n))
    with pytest.raises(OutOfRangeError):
        order[n]


def test_permutations_of_other_seeds_are_others_and_places_spread():
    n = 4096
    orders = [[Permutation(n, seed)[i] for i in range(n)] for seed in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    for order in orders:
        stay = sum(i == x for i, x in enumerate(order))
        follow = sum(b == a + 1 for a, b in zip(order, order[1:], strict=False))
        assert stay < 12 and follow < 12
        # Where the first half goes is a fair draw: six deviations wide.
        low = sum(x < n // 2 for x in order[: n // 2])
        assert abs(low - n // 4) < 6 * np.sqrt(n) / 4
    huge = Permutation(10**15, 3)
    assert len({huge[i] for i in range(1000)}) == 1000


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize(("length", "stride"), [(10, 10), (10, 3), (1, 1), (5003, 1), (7, 20)])
def test_every_window_comes_once(made, seed, length, stride):
    samples = Samples(made, length, stride=stride, seed=seed)
    starts = range(0, 5003 - length + 1, stride)
    assert len(samples) == len(starts)
    assert sorted(samples.window_of(i) for i in range(len(samples))) == list(range(len(starts)))
    for i in (0, len(samples) // 2, -1):
        start = samples.window_of(i % len(samples)) * stride
        assert np.array_equal(samples[i], made.ids[start : start + length])
        assert not samples[i].flags.owndata and not samples[i].flags.writeable


def test_processes_share_the_windows_out_evenly(made):
    whole = Samples(made, 10, seed=3)
    parts = [Samples(made, 10, seed=3, rank=rank, world=3) for rank in range(3)]
    assert {len(part) for part in parts} == {len(whole) // 3}
    seen = [part.window_of(i) for i in range(len(parts[0])) for part in parts]
    assert seen == [whole.window_of(i) for i in range(len(seen))]


def test_an_epoch_has_an_order_of_its_own_and_a_run_resumes_exactly(made):
    first, second = (Samples(made, 10, seed=3, epoch=epoch) for epoch in (0, 1))
    assert [first.window_of(i) for i in range(50)] != [second.window_of(i) for i in range(50)]
    again, index = Samples.resume(made.folder, second.state(17))
    assert index == 17 and np.array_equal(again.batch(17, 30), second.batch(17, 30))
    with pytest.raises(StateError, match="another|not the one"):
        Samples.resume(made, {**second.state(0), "plan": "0" * 64})
    copy = pickle.loads(pickle.dumps(second))
    assert np.array_equal(copy.batch(0, 9), second.batch(0, 9))


def test_batches_are_whole_and_of_the_type_asked_for(made):
    samples = Samples(made, 10, seed=1)
    batches = list(samples.batches(64, dtype=np.int64))
    assert len(batches) == len(samples) // 64 and batches[0].dtype == np.int64
    later = list(samples.batches(64, start=3, dtype=np.int64))
    assert all(np.array_equal(a, b) for a, b in zip(batches[3:], later, strict=True))
    assert [w.tolist() for w in samples[2:4]] == samples.batch(2, 2).tolist()


def test_corpora_and_samples_show_what_they_are(made):
    assert repr(made).startswith("Corpus(") and f"{len(made)} documents" in repr(made)
    assert repr(Samples(made, 5004)) == "<Samples: 0 windows of 5004 ids>"
    with pytest.raises(ArgumentError, match="-1 items"):
        Permutation(-1, seed=1)
    assert len(Permutation(7, seed=1)) == 7


def test_what_does_not_fit_is_said(made):
    for options in (
        {"length": 0},
        {"length": 2, "stride": 0},
        {"length": 2, "rank": 2, "world": 2},
    ):
        with pytest.raises(ArgumentError):
            Samples(made, **options)
    assert len(Samples(made, 5004)) == 0
    samples = Samples(made, 10)
    for index in (len(samples), -len(samples) - 1):
        with pytest.raises(OutOfRangeError):
            samples[index]
    with pytest.raises(OutOfRangeError):
        samples.batch(len(samples), 1)
    with pytest.raises(ArgumentError):
        next(samples.batches(0))


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.filterwarnings("ignore")
def test_pytorch_gets_the_same_batches_from_any_workers(made, context, workers):
    torch_data = pytest.importorskip("torch.utils.data")
    from rustllm.integrations.torch import BatchStream, WindowDataset

    samples = Samples(made, 11, seed=5)
    want = list(samples.batches(20, start=2, dtype=np.int64))
    options = {"num_workers": workers}
    if workers:
        options["multiprocessing_context"] = context
    stream = BatchStream(made.folder, 11, batch_size=20, start=2, seed=5)
    got = list(torch_data.DataLoader(stream, batch_size=None, **options))
    assert len(got) == len(want) == len(stream)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(got, want, strict=True))
    windows = WindowDataset(made, 11, seed=5)
    loader = torch_data.DataLoader(windows, batch_size=20, drop_last=True, **options)
    whole = list(samples.batches(20, dtype=np.int64))
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(loader, whole, strict=True))

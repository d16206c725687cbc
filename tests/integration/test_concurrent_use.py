"""Objects that may be shared are shared by eight threads, switching as often as can be."""

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rustllm
from rustllm import chunks, parallel_map, serialize, windows
from rustllm.testing import BigramModel, ByteTokenizer

THREADS = 8
ROUNDS = 60


@pytest.fixture(autouse=True)
def switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work):
    """Run ``work(i)`` in eight threads that begin at once; raise what any of them raised."""
    barrier = threading.Barrier(THREADS)

    def run(i):
        barrier.wait()
        return [work(i) for _ in range(ROUNDS)]

    with ThreadPoolExecutor(THREADS) as pool:
        return [result.result(timeout=60) for result in [pool.submit(run, i) for i in range(8)]]


def test_public_names_are_handed_out_once_to_all():
    for name in ("windows", "Tokenizer", "stream"):
        vars(rustllm).pop(name, None)
    got = together(lambda i: tuple(id(getattr(rustllm, n)) for n in ("windows", "Tokenizer")))
    assert len(set(itertools.chain(*got))) == 1


def test_one_tokenizer_and_one_model():
    tokenizer = ByteTokenizer(["<end>"])
    model = BigramModel.fit("the cat sat on the mat. " * 3)
    text = "the cat — naïve <end>"

    def work(i):
        ids = tokenizer.encode(text, allowed_special="all")
        out = "".join(model.generate("the ", max_tokens=8, seed=i))
        return tuple(ids), tokenizer.decode(ids), out

    results = together(work)
    assert len({r[:2] for rs in results for r in rs}) == 1
    for i, rs in enumerate(results):
        assert {r[2] for r in rs} == {"".join(model.generate("the ", max_tokens=8, seed=i))}


def test_views_of_one_array():
    ids = np.arange(500, dtype=np.uint32)
    view = windows(ids, 7, stride=3)
    expected = [w.tolist() for w in view]
    results = together(lambda i: [w.tolist() for w in view] == expected and len(chunks(ids, 9)))
    assert {r for rs in results for r in rs} == {56}


def test_one_mapped_file(tmp_path):
    path = tmp_path / "x.rllm"
    serialize.dump({"ids": np.arange(1000)}, path)
    loaded = serialize.load(path)
    results = together(lambda i: int(loaded["ids"].sum()) + len(serialize.load(path)["ids"]))
    assert {r for rs in results for r in rs} == {499500 + 1000}


def test_one_path_written_by_all_is_always_whole(tmp_path):
    path = tmp_path / "x.rllm"
    serialize.dump([0] * 8, path, durable=False)

    def work(i):
        serialize.dump([i] * 8, path, durable=False)
        seen = serialize.load(path)
        return len(set(seen)) == 1 and len(seen) == 8

    assert all(itertools.chain(*together(work)))
    assert [p.name for p in tmp_path.iterdir()] == ["x.rllm"]


def test_a_window_iterator_shared_by_mistake_is_refused_or_correct_and_never_broken():
    source = windows(iter(range(100_000)), 5)
    seen = []

    def work(i):
        for _ in range(20):
            try:
                seen.append(next(source))
            except (ValueError, StopIteration):
                pass

    together(work)
    assert all(w == tuple(range(w[0], w[0] + 5)) for w in seen)
    assert len({w[0] for w in seen}) == len(seen)


def test_each_thread_with_a_parallel_map_of_its_own():
    def work(i):
        with parallel_map(lambda x: x * i, range(6), workers=2) as results:
            return list(results)

    for i, rs in enumerate(together(work)):
        assert rs == [[x * i for x in range(6)]] * ROUNDS


def test_registering_types_while_others_write():
    def work(i):
        class Mine:
            pass

        name = f"test.{i}.{id(Mine)}.{next(counter)}"
        serialize.register_type(name, Mine, lambda m: i, lambda t: t)
        return serialize.loads(serialize.dumps([Mine()]))

    counter = itertools.count()
    from rustllm.serialize import tree

    before = tree._types
    try:
        got = together(work)
    finally:
        tree._types = before
    assert got == [[[i]] * ROUNDS for i in range(THREADS)]

"""Objects that may be shared are shared by eight threads, switching as often as can be."""

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rustllm
from rustllm import (
    Cow,
    TextSlice,
    Version,
    VersionRange,
    chunks,
    parallel_map,
    serialize,
    windows,
)
from rustllm.config import Settings
from rustllm.memory import Interner
from rustllm.plugins import RequestChannel
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


def test_slices_of_one_text():
    text = TextSlice("naïve café\nwith words\n" * 20)
    expected = [[str(word) for word in line.split()] for line in text.lines()]

    def work(i):
        words = [[str(word) for word in line.split()] for line in text.lines()]
        return words == expected, hash(text[:6]) == hash("naïve"), text.find("words")

    assert len({r for rs in together(work) for r in rs}) == 1


def test_one_interner_gives_each_text_one_number():
    def word(k):
        return f"word{k}" + "é" * (20_000 if k % 5 == 0 else 0)  # some are read without the GIL

    interner = Interner()
    turns = [itertools.count() for _ in range(THREADS)]

    def work(i):
        turn = next(turns[i])
        return tuple((interner.id(word(turn * 7 + k)), turn * 7 + k) for k in range(20))

    numbers = {}
    for pairs in itertools.chain(*together(work)):
        for id, k in pairs:
            assert numbers.setdefault(k, id) == id
    assert sorted(numbers.values()) == list(range(len(interner)))
    assert all(interner.text(id) == word(k) for k, id in numbers.items())


def test_one_copy_on_write_is_copied_once():
    source = np.zeros(64)
    cows = [Cow(source) for _ in range(ROUNDS)]
    turns = [itertools.count() for _ in range(THREADS)]

    def work(i):
        cow = cows[next(turns[i])]
        cow.to_mut()[i] = i + 1
        return id(cow.to_mut().base), cow

    for column in zip(*together(work), strict=True):
        assert len({base for base, _ in column}) == 1
    assert not source.any()
    assert all(list(cow.view[:THREADS]) == list(range(1, THREADS + 1)) for cow in cows)


def test_callers_of_one_request_channel_get_their_own_replies():
    channel = RequestChannel("double", int, int, capacity=4)
    servers = [threading.Thread(target=channel.serve, args=(lambda x: 2 * x,)) for _ in range(3)]
    for server in servers:
        server.start()
    try:
        turns = [itertools.count(1000 * i) for i in range(THREADS)]

        def work(i):
            asked = next(turns[i])
            return channel.request(asked, timeout=60) == 2 * asked

        assert all(itertools.chain(*together(work)))
    finally:
        channel.close()
        for server in servers:
            server.join(60)
    assert not any(server.is_alive() for server in servers)


def test_one_set_of_versions_and_settings(tmp_path):
    wanted, version = VersionRange(">=1.2,<3"), Version("2.0.1")
    path = tmp_path / "config.toml"
    path.write_text('log = "debug"\n')

    def work(i):
        settings = Settings.load(file=path, environ={})
        return version in wanted, settings.log, str(settings.source("log").line)

    assert {r for rs in together(work) for r in rs} == {(True, "debug", "1")}


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

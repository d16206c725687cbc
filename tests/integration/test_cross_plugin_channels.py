"""Plugins that work together over channels: a reader, two tokenizers, a writer."""

import logging
import threading

import pytest
from plugin_samples import manifest

from rustllm.errors import ChannelClosedError, PluginError
from rustllm.plugins import PluginManager, State
from rustllm.testing import ByteTokenizer
from rustllm.traits import Plugin

N_TEXTS = 400


class Counter(Plugin):
    """Answers requests: how many tokens has a text?"""

    def setup(self, context):
        tokenizer = ByteTokenizer()
        context.open_requests("count", str, int, handler=tokenizer.count, capacity=4)


class Reader(Plugin):
    """Publishes texts, no faster than they are taken."""

    def setup(self, context):
        self.context = context
        self.texts = context.open_channel("texts", str, capacity=8)
        self.go = threading.Event()

    def start(self):
        self.context.start_thread(self.read)

    def read(self):
        while not self.go.wait(0.01):
            if self.context.stopping.is_set():
                return
        for i in range(N_TEXTS):
            self.texts.publish("x" * (i % 50), timeout=30)
        self.texts.close()


class Tokenize(Plugin):
    """Takes texts and publishes (text length, count asked from another plugin)."""

    def setup(self, context):
        self.context = context
        self.texts = context.subscribe("texts")
        self.count = context.channel("count")
        self.counts = context.open_channel(f"counts.{context.id}", tuple, capacity=8)

    def start(self):
        self.context.start_thread(self.work)

    def work(self):
        for text in self.texts:
            self.counts.publish((len(text), self.count.request(text, timeout=30)), timeout=30)
        self.counts.close()


class Writer(Plugin):
    """Collects from every tokenizer."""

    def setup(self, context):
        self.context = context
        self.sources = [context.subscribe(name) for name in ("counts.tok.a", "counts.tok.b")]
        self.written = [[], []]
        self.done = threading.Semaphore(0)

    def start(self):
        for source, rows in zip(self.sources, self.written):
            self.context.start_thread(self.write, source, rows)

    def write(self, source, rows):
        rows.extend(source)
        self.done.release()


@pytest.fixture
def manager():
    logging.getLogger("rustllm.plugins").setLevel(logging.CRITICAL)
    with PluginManager(safe_mode=False) as manager:
        manager.add(Writer(), manifest("writer", requires={"tok.a": "", "tok.b": ""}))
        manager.add(Tokenize(), manifest("tok.b", requires={"reader": "", "counter": ""}))
        manager.add(Tokenize(), manifest("tok.a", requires={"reader": "", "counter": ""}))
        manager.add(Reader(), manifest("reader"))
        manager.add(Counter(), manifest("counter"))
        yield manager
    logging.getLogger("rustllm.plugins").setLevel(logging.NOTSET)


def test_texts_flow_through_four_plugins_in_order_and_within_bounds(manager):
    before = threading.active_count()
    report = manager.start()
    assert report.started == ("counter", "reader", "tok.a", "tok.b", "writer")
    writer = manager.handle("writer").instance
    manager.handle("reader").instance.go.set()
    for _ in range(2):
        assert writer.done.acquire(timeout=60)
    expected = [(i % 50, i % 50) for i in range(N_TEXTS)]
    assert writer.written == [expected, expected]
    texts = manager.channel("texts").counters
    assert (texts.published, texts.delivered, texts.dropped) == (N_TEXTS, 2 * N_TEXTS, 0)
    assert texts.high_water <= 8
    assert manager.channel("count").counters.delivered == 2 * N_TEXTS
    assert not any(manager.close().values())
    assert threading.active_count() == before


def test_stopping_one_in_the_middle_wakes_everybody_and_takes_its_dependants(manager):
    manager.start()
    manager.handle("reader").instance.go.set()
    texts = manager.channel("texts")
    left = manager.stop("reader")
    assert list(left) == ["writer", "tok.b", "tok.a", "reader"]
    assert not any(leftovers.threads for leftovers in left.values())
    assert texts.closed
    with pytest.raises(ChannelClosedError):
        texts.publish("x")
    states = {info.id: info.state for info in manager.plugins()}
    assert states.pop("counter") is State.ACTIVE
    assert set(states.values()) == {State.STOPPED}
    assert set(manager.channels()) == {"count"}
    # and everything comes up again, as another generation
    assert manager.start().started == ("reader", "tok.a", "tok.b", "writer")
    assert manager.handle("writer").generation == 2


def test_a_server_that_fails_takes_the_request_down_and_nothing_else(manager):
    manager.start()

    class Odd(str):
        __slots__ = ()

        def encode(self, *args):
            raise AttributeError("odd text")

    with pytest.raises(AttributeError, match="odd text"):
        manager.channel("count").request(Odd("x"), timeout=30)
    assert manager.channel("count").request("abc", timeout=30) == 3


def test_a_channel_that_nobody_opened_fails_only_the_plugin_that_wants_it():
    logging.getLogger("rustllm.plugins").setLevel(logging.CRITICAL)
    try:
        with PluginManager(safe_mode=False) as manager:
            manager.add(Tokenize(), manifest("tok.a"))
            manager.add(Counter(), manifest("counter"))
            report = manager.start()
            assert report.started == ("counter",)
            assert isinstance(report.failed["tok.a"], PluginError)
            assert "no channel 'texts' is open" in str(report)
    finally:
        logging.getLogger("rustllm.plugins").setLevel(logging.NOTSET)

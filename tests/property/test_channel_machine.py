"""Channels against a model of lists, over thousands of random steps."""

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from rustllm.errors import ChannelClosedError, ChannelFullError, DeadlineError
from rustllm.plugins.channels import Channel

POLICY = st.sampled_from(["block", "drop-oldest", "error"])


class Model:
    def __init__(self, capacity, overflow, replayed):
        self.capacity = capacity
        self.overflow = overflow
        self.queue = deque(replayed)
        self.delivered = self.dropped = 0
        self.closed = False

    @property
    def full(self):
        return len(self.queue) >= self.capacity


class ChannelMachine(RuleBasedStateMachine):
    subscriptions = Bundle("subscriptions")

    @initialize(capacity=st.integers(1, 4), overflow=POLICY, replay=st.integers(0, 4))
    def build(self, capacity, overflow, replay):
        self.replay = min(replay, capacity)
        self.channel = Channel("c", int, capacity=capacity, overflow=overflow, replay=self.replay)
        self.capacity, self.overflow = capacity, overflow
        self.models = []
        self.last = []
        self.item = self.published = self.refused = 0
        self.closed = False

    @rule(
        target=subscriptions,
        capacity=st.one_of(st.none(), st.integers(1, 3)),
        overflow=st.one_of(st.none(), POLICY),
    )
    def subscribe(self, capacity, overflow):
        if self.closed:
            with pytest.raises(ChannelClosedError):
                self.channel.subscribe()
            return None
        subscription = self.channel.subscribe(capacity=capacity, overflow=overflow)
        capacity = capacity or self.capacity
        model = Model(capacity, overflow or self.overflow, self.last[-capacity:])
        self.models.append(model)
        return subscription, model

    @rule()
    def publish(self):
        self.item += 1
        here = [model for model in self.models if not model.closed]
        if self.closed:
            expected = ChannelClosedError
        else:
            # the first full subscription that cannot drop decides
            expected = None
            for model in here:
                if model.full and model.overflow == "error":
                    expected = ChannelFullError
                    break
                if model.full and model.overflow == "block":
                    expected = DeadlineError
        if expected is not None:
            with pytest.raises(expected):
                self.channel.publish(self.item, timeout=0)
            self.refused += expected is not ChannelClosedError
            return
        assert self.channel.publish(self.item, timeout=0) == len(here)
        self.published += 1
        if self.replay:
            self.last = [*self.last, self.item][-self.replay :]
        for model in here:
            if model.full:
                model.queue.popleft()
                model.dropped += 1
            model.queue.append(self.item)

    @rule(pair=subscriptions)
    def receive(self, pair):
        if pair is None:
            return
        subscription, model = pair
        if model.queue:
            assert subscription.receive(timeout=0) == model.queue.popleft()
            model.delivered += 1
        else:
            over = self.closed or model.closed
            with pytest.raises(ChannelClosedError if over else DeadlineError):
                subscription.receive(timeout=0)

    @rule(pair=subscriptions)
    def leave(self, pair):
        if pair is None:
            return
        subscription, model = pair
        subscription.close()
        if not model.closed:
            model.closed = True
            model.dropped += len(model.queue)
            model.queue.clear()

    @rule(sure=st.sampled_from([False] * 9 + [True]))
    def close(self, sure):
        if sure:
            self.channel.close()
            self.closed = True

    @rule(pair=subscriptions)
    def counters_of_one_add_up(self, pair):
        if pair is None:
            return
        subscription, model = pair
        counters = subscription.counters
        assert (counters.delivered, counters.dropped) == (model.delivered, model.dropped)
        assert counters.waiting == len(model.queue) == len(subscription)
        assert counters.high_water <= model.capacity

    @invariant()
    def totals_add_up(self):
        if not hasattr(self, "channel"):
            return
        counters = self.channel.counters
        assert counters.published == self.published
        assert counters.refused == self.refused
        assert counters.delivered == sum(model.delivered for model in self.models)
        assert counters.dropped == sum(model.dropped for model in self.models)
        assert counters.waiting == sum(len(model.queue) for model in self.models)
        assert self.channel.n_subscribers == sum(not model.closed for model in self.models)


TestChannel = ChannelMachine.TestCase
TestChannel.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)

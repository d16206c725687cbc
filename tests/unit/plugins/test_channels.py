"""Channels: types, bounds, order, policies, deadlines, closing."""

import os
import threading
import time

import pytest

from rustllm.errors import ArgumentError, ChannelClosedError, ChannelFullError, DeadlineError
from rustllm.plugins.channels import Channel


def test_every_subscriber_gets_every_item_in_order():
    channel = Channel("c", int)
    first, second = channel.subscribe(), channel.subscribe()
    assert [channel.publish(i) for i in range(5)] == [2] * 5
    channel.close()
    assert list(first) == list(second) == list(range(5))


def test_only_the_stated_type_goes_in():
    channel = Channel("c", int)
    with pytest.raises(ArgumentError, match="takes int, not str"):
        channel.publish("x")
    assert Channel("d", (int, str)).publish("x") == 0
    with pytest.raises(ArgumentError, match="not a type"):
        Channel("e", list[int])


@pytest.mark.parametrize(
    "bad",
    [
        {"capacity": 0},
        {"capacity": True},
        {"capacity": 1 << 40},
        {"overflow": "wait"},
        {"replay": -1},
        {"replay": 65},
    ],
)
def test_bad_bounds_are_typed_errors(bad):
    with pytest.raises(ArgumentError):
        Channel("c", int, **bad)


def test_full_and_error_refuses_for_everybody():
    channel = Channel("c", int, capacity=1, overflow="error")
    slow, fast = channel.subscribe(), channel.subscribe(capacity=9)
    channel.publish(1)
    with pytest.raises(ChannelFullError) as caught:
        channel.publish(2)
    assert caught.value.capacity == 1
    assert (len(slow), len(fast)) == (1, 1)
    assert channel.counters.refused == 1


def test_a_publisher_that_gives_up_is_counted_once():
    channel = Channel("c", int, capacity=1, overflow="block")
    with channel.subscribe():
        channel.publish(1)
        for refused in (1, 2):
            with pytest.raises(DeadlineError):
                channel.publish(2, timeout=0.01)
            assert channel.counters.refused == refused


def test_the_channels_counters_keep_what_closed_subscriptions_did():
    channel = Channel("c", int, capacity=8)
    with channel.subscribe() as deep:
        for i in range(5):
            channel.publish(i)
        deep.receive(0)
    with channel.subscribe() as shallow:
        channel.publish(5)
        shallow.receive(0)
    counters = channel.counters
    assert (counters.published, counters.delivered, counters.dropped) == (6, 2, 4)
    assert (counters.waiting, counters.high_water) == (0, 5)


def test_drop_oldest_keeps_the_newest_and_counts():
    channel = Channel("c", int, capacity=2, overflow="drop-oldest")
    with channel.subscribe() as subscription:
        for i in range(5):
            channel.publish(i)
        assert [subscription.receive(0), subscription.receive(0)] == [3, 4]
        counters = subscription.counters
    assert (counters.delivered, counters.dropped, counters.high_water) == (2, 3, 2)


def test_block_waits_for_room_and_gives_up_at_the_deadline():
    channel = Channel("c", int, capacity=1)
    subscription = channel.subscribe()
    channel.publish(1)
    began = time.monotonic()
    with pytest.raises(DeadlineError):
        channel.publish(2, timeout=0.05)
    assert time.monotonic() - began >= 0.05
    with pytest.raises(DeadlineError):
        channel.publish(2, timeout=0)
    publisher = threading.Thread(target=channel.publish, args=(3,))
    publisher.start()
    assert subscription.receive(10) == 1
    assert subscription.receive(10) == 3
    publisher.join(10)
    assert not publisher.is_alive()


def test_receive_waits_and_gives_up_at_the_deadline():
    channel = Channel("c", int)
    subscription = channel.subscribe()
    with pytest.raises(DeadlineError):
        subscription.receive(timeout=0.01)
    with pytest.raises(ArgumentError):
        subscription.receive(timeout=-1)
    with pytest.raises(ArgumentError):
        subscription.receive(timeout=float("nan"))
    timer = threading.Timer(0.02, channel.publish, args=(4,))
    timer.start()
    assert subscription.receive(timeout=1e300) == 4
    timer.join()


def test_closing_wakes_receivers_and_publishers_and_keeps_what_is_queued():
    channel = Channel("c", int, capacity=1)
    subscription, empty = channel.subscribe(), channel.subscribe(overflow="drop-oldest")
    channel.publish(1)
    empty.receive()
    outcome = []

    def catch(call, *args):
        try:
            call(*args)
        except ChannelClosedError:
            outcome.append(call.__name__)

    threads = [
        threading.Thread(target=catch, args=(channel.publish, 2, None)),
        threading.Thread(target=catch, args=(empty.receive,)),
    ]
    threads[0] = threading.Thread(target=catch, args=(lambda: channel.publish(2, timeout=None),))
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    channel.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert sorted(outcome) == ["<lambda>", "receive"]
    assert subscription.receive() == 1
    with pytest.raises(ChannelClosedError):
        subscription.receive()
    with pytest.raises(ChannelClosedError):
        channel.publish(1)
    with pytest.raises(ChannelClosedError):
        channel.subscribe()


def test_leaving_lets_publishers_that_wait_go_on():
    channel = Channel("c", int, capacity=1)
    subscription = channel.subscribe()
    channel.publish(1)
    publisher = threading.Thread(target=channel.publish, args=(2,))
    publisher.start()
    time.sleep(0.02)
    subscription.close()
    publisher.join(10)
    assert not publisher.is_alive()
    assert channel.n_subscribers == 0
    with pytest.raises(ChannelClosedError):
        subscription.receive()


def test_latecomers_start_with_what_is_replayed():
    channel = Channel("c", int, capacity=4, replay=3)
    for i in range(5):
        channel.publish(i)
    assert len(channel.subscribe()) == 3
    assert channel.subscribe(capacity=2).receive() == 3
    channel.close()


def test_none_is_an_item_like_any_other():
    channel = Channel("c", (int, type(None)))
    subscription = channel.subscribe()
    channel.publish(None)
    assert subscription.receive(0) is None


def test_counters_add_up_over_subscriptions_that_are_gone():
    channel = Channel("c", int, capacity=3, overflow="drop-oldest")
    first, second = channel.subscribe(), channel.subscribe()
    for i in range(5):
        channel.publish(i)
    first.receive()
    first.close()
    second.receive()
    counters = channel.counters
    assert (counters.published, counters.delivered, counters.waiting) == (5, 2, 2)
    assert counters.dropped == 2 + 2 + 2  # pushed out of each, and two thrown away by closing


@pytest.mark.parametrize("overflow", ["block", "drop-oldest"])
def test_eight_threads_lose_nothing_that_is_not_counted(overflow):
    channel = Channel("c", tuple, capacity=8, overflow=overflow)
    shared, own = channel.subscribe(), channel.subscribe()
    got = {"shared": [], "own": []}
    lock = threading.Lock()

    def receive(name, subscription):
        mine = list(subscription)
        with lock:
            got[name] += mine

    def publish(number):
        for i in range(200):
            channel.publish((number, i), timeout=60)

    receivers = [threading.Thread(target=receive, args=("shared", shared)) for _ in range(3)]
    receivers.append(threading.Thread(target=receive, args=("own", own)))
    publishers = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
    for thread in (*receivers, *publishers):
        thread.start()
    for thread in publishers:
        thread.join(60)
    channel.close()
    for thread in receivers:
        thread.join(60)
        assert not thread.is_alive()
    for name, subscription in (("shared", shared), ("own", own)):
        counters = subscription.counters
        assert len(set(got[name])) == len(got[name]) == counters.delivered
        assert counters.delivered + counters.dropped == 800
        assert counters.high_water <= 8
        if overflow == "block":
            assert counters.dropped == 0
    for number in range(4):  # each publisher's items come in its order
        mine = [i for n, i in got["own"] if n == number]
        assert mine == sorted(mine)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_can_use_a_channel_whose_lock_was_held_at_the_fork():
    channel = Channel("c", int)
    subscription = channel.subscribe()
    with channel._lock:
        child = os.fork()
        if child == 0:
            try:
                channel.publish(1, timeout=5)
                os._exit(0 if subscription.receive(5) == 1 else 1)
            except BaseException:
                os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0

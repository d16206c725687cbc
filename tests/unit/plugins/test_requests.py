"""Requests: one reply each, deadlines, closing, policies."""

import threading
import time

import pytest

from rustllm.errors import ArgumentError, ChannelClosedError, ChannelFullError, DeadlineError
from rustllm.plugins.requests import RequestChannel


def serving(channel, handler):
    thread = threading.Thread(target=channel.serve, args=(handler,))
    thread.start()
    return thread


def test_each_caller_gets_its_own_reply():
    with RequestChannel("double", int, int) as channel:
        servers = [serving(channel, lambda x: x * 2) for _ in range(2)]
        got = {}

        def ask(i):
            got[i] = [channel.request(i * 1000 + k, timeout=30) for k in range(50)]

        callers = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join(60)
    for server in servers:
        server.join(10)
        assert not server.is_alive()
    assert got == {i: [2 * (i * 1000 + k) for k in range(50)] for i in range(6)}
    assert channel.counters.delivered == 300


def test_what_the_handler_raises_is_raised_at_the_request_and_serving_goes_on():
    with RequestChannel("c", int) as channel:
        server = serving(channel, lambda x: 10 // x)
        with pytest.raises(ZeroDivisionError):
            channel.request(0, timeout=10)
        assert channel.request(5, timeout=10) == 2
    server.join(10)


def test_types_are_checked_on_both_sides():
    with RequestChannel("c", str, int) as channel:
        with pytest.raises(ArgumentError, match="takes str, not int"):
            channel.request(1, timeout=1)
        server = serving(channel, lambda text: text)
        with pytest.raises(ArgumentError, match="replies int, not str"):
            channel.request("x", timeout=10)
    server.join(10)
    with pytest.raises(ArgumentError):
        channel.request("x", timeout=None)


def test_without_a_server_the_deadline_ends_the_wait_and_the_request_is_gone():
    channel = RequestChannel("c", int, capacity=1)
    with pytest.raises(DeadlineError, match="no reply"):
        channel.request(1, timeout=0.02)
    assert channel.counters.waiting == 0
    with pytest.raises(DeadlineError):
        channel.receive(timeout=0)


def test_a_late_reply_goes_nowhere():
    channel = RequestChannel("c", int)
    late = []

    def serve():
        request = channel.receive(10)
        time.sleep(0.1)
        late.append((request.seconds_left, request.reply(1), request.fail(ValueError())))

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(DeadlineError):
        channel.request(1, timeout=0.03)
    server.join(10)
    assert late == [(0.0, False, False)]


def test_a_request_is_settled_once():
    channel = RequestChannel("c", int, (int, type(None)))
    outcome = []

    def serve():
        request = channel.receive(10)
        outcome.extend([request.reply(None), request.reply(2)])

    server = threading.Thread(target=serve)
    server.start()
    assert channel.request(0, timeout=10) is None
    server.join(10)
    assert outcome == [True, False]


def test_full_queues_obey_the_policy():
    blocked = RequestChannel("b", int, capacity=1)
    refusing = RequestChannel("e", int, capacity=1, overflow="error")
    dropping = RequestChannel("d", int, capacity=1, overflow="drop-oldest")
    errors = {}

    def ask(channel):
        try:
            channel.request(1, timeout=30)
        except Exception as error:
            errors[channel.name] = error

    callers = [threading.Thread(target=ask, args=(c,)) for c in (blocked, refusing, dropping)]
    for thread in callers:
        thread.start()
    while not all(c.counters.waiting for c in (blocked, refusing, dropping)):
        time.sleep(0.001)
    with pytest.raises(DeadlineError, match="no room"):
        blocked.request(2, timeout=0.02)
    with pytest.raises(ChannelFullError):
        refusing.request(2, timeout=5)
    with pytest.raises(DeadlineError):
        dropping.request(2, timeout=0.02)
    for channel in (blocked, refusing, dropping):
        channel.close()
    for thread in callers:
        thread.join(10)
        assert not thread.is_alive()
    assert isinstance(errors["d"], ChannelFullError)
    assert isinstance(errors["b"], ChannelClosedError)
    assert isinstance(errors["e"], ChannelClosedError)


def test_closing_fails_requests_that_a_server_has_taken():
    channel = RequestChannel("c", int)
    taken = threading.Event()
    replies = []

    def serve():
        request = channel.receive(10)
        taken.set()
        while not channel.closed:
            time.sleep(0.001)
        replies.append(request.reply(1))

    server = threading.Thread(target=serve)
    server.start()
    threading.Thread(target=lambda: (taken.wait(10), channel.close())).start()
    with pytest.raises(ChannelClosedError):
        channel.request(1, timeout=30)
    server.join(10)
    assert replies == [False]
    with pytest.raises(ChannelClosedError):
        channel.request(1, timeout=1)
    with pytest.raises(ChannelClosedError):
        channel.receive()


def test_a_server_that_is_asked_to_end_the_process_does_not_leave_its_caller_waiting():
    channel = RequestChannel("c", int)

    def stop(value):
        raise SystemExit

    def serve():
        with pytest.raises(SystemExit):
            channel.serve(stop)

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(ChannelClosedError):
        channel.request(1, timeout=30)
    server.join(10)

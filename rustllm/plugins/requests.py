"""Requests between plugins: a question goes to whichever server is free, one reply comes back.

As with the other channels, servers pull, every wait has a deadline, the queue is bounded, and no
lock is held while foreign code runs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any, Generic, TypeVar

from rustllm.errors import ArgumentError, ChannelClosedError, ChannelFullError, DeadlineError
from rustllm.plugins.channels import (
    Counters,
    Overflow,
    check_bounds,
    check_type,
    deadline_after,
    type_name,
)
from rustllm.plugins.forks import renew_after_fork

__all__ = ["Request", "RequestChannel"]

_LONGEST_WAIT = threading.TIMEOUT_MAX  # what the interpreter can wait for in one go

Q = TypeVar("Q")
R = TypeVar("R")


class Request(Generic[Q, R]):
    """A request as its server sees it; settle it once, with :meth:`reply` or :meth:`fail`.

    Attributes
    ----------
    value : Q
        What was asked.
    """

    __slots__ = ("_channel", "_deadline", "_error", "_gate", "_result", "_settled", "value")

    def __init__(self, channel: RequestChannel[Q, R], value: Q, deadline: float) -> None:
        self.value = value
        self._channel = channel
        self._deadline = deadline
        self._settled = False
        self._gate = threading.Lock()  # held until the request is settled; its caller waits for it
        self._gate.acquire()
        self._result: Any = None
        self._error: BaseException | None = None

    @property
    def seconds_left(self) -> float:
        """Seconds until the requester gives up; never negative."""
        return max(0.0, self._deadline - monotonic())

    def reply(self, result: R) -> bool:
        """Send the result back.

        Returns
        -------
        bool
            False when the requester has given up, or the request is settled already.

        Raises
        ------
        ArgumentError
            The result is not of the channel's reply type; the request stays open.
        """
        channel = self._channel
        if not isinstance(result, channel.reply_type):
            raise ArgumentError(
                f"channel {channel.name} replies {type_name(channel.reply_type)}, "
                f"not {type(result).__name__}",
                channel=channel.name,
            )
        with channel._lock:
            return self._settle(result, None)

    def fail(self, error: BaseException) -> bool:
        """Let `error` be raised where the request was made; False when that has given up."""
        with self._channel._lock:
            return self._settle(None, error)

    def _settle(self, result: Any, error: BaseException | None) -> bool:
        """Under the channel's lock."""
        if self._settled:
            return False
        self._settled = True
        self._result, self._error = result, error
        self._gate.release()
        return True


class RequestChannel(Generic[Q, R]):
    """Requests from any number of callers to any number of servers, each with a deadline.

    Parameters
    ----------
    name : str
    request_type, reply_type : type or tuple of types
        Anything else is an :class:`~rustllm.errors.ArgumentError` on the side that sends it.
    capacity : int
        Requests that may wait for a server.
    overflow : {"block", "drop-oldest", "error"}
        What a request does when that many wait already; one that is pushed out fails with
        :class:`~rustllm.errors.ChannelFullError`.

    Notes
    -----
    Safe to share between threads. Closing fails every request that is not settled. A request
    whose caller has given up is never handed to a server.

    Examples
    --------
    >>> import threading
    >>> from rustllm.plugins import RequestChannel
    >>> channel = RequestChannel("count", str, int)
    >>> server = threading.Thread(target=channel.serve, args=(len,))
    >>> server.start()
    >>> channel.request("four", timeout=10)
    4
    >>> channel.close(); server.join()
    """

    def __init__(
        self,
        name: str,
        request_type: type[Q] | tuple[type, ...] = object,  # type: ignore[assignment]
        reply_type: type[R] | tuple[type, ...] = object,  # type: ignore[assignment]
        *,
        capacity: int = 64,
        overflow: Overflow = "block",
    ) -> None:
        check_bounds(name, capacity, overflow)
        check_type(name, request_type)
        check_type(name, reply_type)
        self.name = name
        self.request_type = request_type
        self.reply_type = reply_type
        self.capacity = capacity
        self.overflow: Overflow = overflow
        self._waiting: OrderedDict[Request[Q, R], None] = OrderedDict()  # taken from the middle too
        self._open: set[Request[Q, R]] = set()
        self._closed = False
        self._n_published = self._n_delivered = self._n_dropped = self._n_refused = 0
        self._high_water = 0
        self._renew_locks()
        renew_after_fork(self)

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)

    @property
    def closed(self) -> bool:
        """Whether the channel is closed."""
        return self._closed

    @property
    def counters(self) -> Counters:
        """What has gone through; `delivered` are requests that a server took."""
        with self._lock:
            return Counters(
                self._n_published,
                self._n_delivered,
                self._n_dropped,
                self._n_refused,
                len(self._waiting),
                self._high_water,
            )

    def request(self, value: Q, *, timeout: float) -> R:
        """Ask, and wait for the reply.

        Parameters
        ----------
        value : Q
        timeout : float
            Seconds for everything: room in the queue, a server, its work.

        Raises
        ------
        DeadlineError
            No reply in time.
        ChannelClosedError
            The channel was closed first.
        ChannelFullError
            No room and the policy is "error", or a newer request pushed this one out.
        Exception
            Whatever the server failed with.
        """
        if not isinstance(value, self.request_type):
            raise ArgumentError(
                f"channel {self.name} takes {type_name(self.request_type)}, "
                f"not {type(value).__name__}",
                channel=self.name,
            )
        deadline = deadline_after(timeout)
        if deadline is None:
            raise ArgumentError("a request needs a timeout", hint="give seconds")
        request: Request[Q, R] = Request(self, value, deadline)
        with self._lock:
            self._enqueue(request, timeout)
        try:
            request._gate.acquire(timeout=min(request.seconds_left, _LONGEST_WAIT))
        finally:
            settled = self._give_up(request)
        if not settled:
            raise self._late_error("no reply", timeout)
        error = request._error
        if error is not None:
            try:
                raise error
            finally:
                del error, request  # the traceback would otherwise hold itself alive
        result: R = request._result
        return result

    def _give_up(self, request: Request[Q, R]) -> bool:
        """Let nothing come back from now on; return whether something has."""
        with self._lock:
            settled = request._settled
            request._settled = True
            self._open.discard(request)
            if self._waiting.pop(request, request) is None:
                self._n_dropped += 1
                self._room.notify()
            return settled

    def _late_error(self, what: str, timeout: float) -> DeadlineError:
        return DeadlineError(
            f"channel {self.name}: {what} within {timeout} seconds",
            hint="the server is slow, stuck or absent; look at the counters",
            channel=self.name,
            seconds=timeout,
        )

    def _enqueue(self, request: Request[Q, R], timeout: float) -> None:
        waiting = self._waiting
        while True:
            if self._closed:
                raise self._closed_error()
            if len(waiting) < self.capacity:
                break
            if self.overflow == "error":
                self._n_refused += 1
                raise self._full_error("holds")
            if self.overflow == "drop-oldest":
                self._n_dropped += 1
                oldest, _ = waiting.popitem(last=False)
                oldest._settle(None, self._full_error("pushed this request out: it holds"))
                break
            left = request.seconds_left
            if left <= 0:
                self._n_refused += 1
                raise self._late_error("no room", timeout)
            self._room.wait(min(left, _LONGEST_WAIT))
        waiting[request] = None
        self._open.add(request)
        self._n_published += 1
        self._high_water = max(self._high_water, len(waiting))
        self._arrived.notify()

    def _closed_error(self) -> ChannelClosedError:
        return ChannelClosedError(f"channel {self.name} is closed", channel=self.name)

    def _full_error(self, what: str) -> ChannelFullError:
        return ChannelFullError(
            f"channel {self.name} {what} {self.capacity} requests that wait",
            hint="serve faster, or give it more capacity or another overflow policy",
            channel=self.name,
            capacity=self.capacity,
        )

    def receive(self, timeout: float | None = None) -> Request[Q, R]:
        """Take the oldest request, as a server.

        Raises
        ------
        DeadlineError
            None came in time.
        ChannelClosedError
        """
        deadline = deadline_after(timeout)
        with self._lock:
            while True:
                while self._waiting:
                    request, _ = self._waiting.popitem(last=False)
                    self._room.notify()
                    if request._deadline > monotonic():
                        self._n_delivered += 1
                        return request
                    self._n_dropped += 1
                if self._closed:
                    raise self._closed_error()
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    raise DeadlineError(
                        f"channel {self.name}: no request within {timeout} seconds",
                        channel=self.name,
                        seconds=timeout,
                    )
                self._arrived.wait(None if left is None else min(left, _LONGEST_WAIT))

    def serve(self, handler: Callable[[Q], R]) -> None:
        """Answer requests with `handler` until the channel is closed.

        What the handler raises is raised where the request was made, and serving goes on.
        """
        while True:
            try:
                request = self.receive()
            except ChannelClosedError:
                return
            try:
                request.reply(handler(request.value))
            except Exception as error:
                request.fail(error)
            except BaseException as error:
                request.fail(self._closed_error())
                raise error
            del request

    def close(self) -> None:
        """Take no more requests and fail those that are not settled; waiters wake."""
        with self._lock:
            self._closed = True
            self._n_dropped += len(self._waiting)
            self._waiting.clear()
            for request in list(self._open):
                request._settle(None, self._closed_error())
            self._open.clear()
            self._arrived.notify_all()
            self._room.notify_all()

    def __enter__(self) -> RequestChannel[Q, R]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._waiting)} waiting"
        return f"<RequestChannel {self.name!r}, {state}>"

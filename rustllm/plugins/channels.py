"""Typed, bounded channels between plugins: publish and subscribe.

Receivers pull; no foreign code ever runs inside a channel, so no lock is held while any does.
Nothing grows without bound, every wait has a deadline, and closing wakes whoever waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, Literal, TypeVar

from rustllm.errors import (
    ArgumentError,
    ChannelClosedError,
    ChannelFullError,
    DeadlineError,
)
from rustllm.plugins.forks import renew_after_fork

__all__ = ["Channel", "Counters", "Overflow", "Subscription"]

T = TypeVar("T")

Overflow = Literal["block", "drop-oldest", "error"]
_POLICIES = ("block", "drop-oldest", "error")
_MAX_CAPACITY = 1 << 24


@dataclass(frozen=True, slots=True)
class Counters:
    """What has gone through a channel or a subscription.

    Attributes
    ----------
    published : int
        Items accepted.
    delivered : int
        Items taken by receivers.
    dropped : int
        Items pushed out by newer ones, or thrown away by closing.
    refused : int
        Items turned away because there was no room, at once or in time.
    waiting : int
        Items that are queued now.
    high_water : int
        Most items that were ever queued at one time in one queue.
    """

    published: int
    delivered: int
    dropped: int
    refused: int
    waiting: int
    high_water: int


def type_name(kind: type | tuple[type, ...]) -> str:
    """Name the type, or types, that a channel takes."""
    return " or ".join(k.__name__ for k in kind) if isinstance(kind, tuple) else kind.__name__


def check_type(name: str, kind: Any) -> None:
    """Raise unless values can be checked against `kind`."""
    try:
        isinstance(None, kind)
    except TypeError:
        raise ArgumentError(
            f"channel {name}: {kind!r} is not a type that values can be checked against",
            hint="give the class itself, without parameters in brackets",
        ) from None


def check_bounds(name: str, capacity: int, overflow: str) -> None:
    """Raise unless a queue can have this capacity and policy."""
    if isinstance(capacity, bool) or not isinstance(capacity, int):
        raise ArgumentError(f"channel {name}: capacity must be a whole number")
    if not 1 <= capacity <= _MAX_CAPACITY:
        raise ArgumentError(f"channel {name}: capacity {capacity} is not in 1..{_MAX_CAPACITY}")
    if overflow not in _POLICIES:
        raise ArgumentError(f"no overflow policy {overflow!r}", hint=f"one of {_POLICIES}")


def deadline_after(timeout: float | None) -> float | None:
    """Return the moment `timeout` seconds from now on the monotonic clock; None is never."""
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ArgumentError(f"a timeout of {timeout} seconds")
    return monotonic() + timeout


class Channel(Generic[T]):
    """Items of one type from any number of publishers to any number of subscribers.

    Parameters
    ----------
    name : str
    type : type or tuple of types
        What may be published; anything else is an :class:`~rustllm.errors.ArgumentError`.
    capacity : int
        Items that each subscription may hold.
    overflow : {"block", "drop-oldest", "error"}
        What happens when a subscription is full: wait until it is not, push out its oldest item,
        or raise :class:`~rustllm.errors.ChannelFullError`. A subscription may choose for itself.
    replay : int
        How many of the last items a new subscription starts with.

    Notes
    -----
    Every subscription sees the same items in the same order. Publishing is all or nothing: either
    every open subscription gets the item or none does. Safe to share between threads: one lock a
    channel, held for a few instructions and never while foreign code runs. O(1) a subscription.

    Examples
    --------
    >>> from rustllm import Channel
    >>> channel = Channel("tokens", int, capacity=2, overflow="drop-oldest")
    >>> with channel.subscribe() as subscription:
    ...     for item in (1, 2, 3):
    ...         _ = channel.publish(item)
    ...     channel.close()
    ...     list(subscription)
    [2, 3]
    """

    def __init__(
        self,
        name: str,
        type: type[T] | tuple[type, ...] = object,  # type: ignore[assignment]
        *,
        capacity: int = 64,
        overflow: Overflow = "block",
        replay: int = 0,
    ) -> None:
        check_bounds(name, capacity, overflow)
        if isinstance(replay, bool) or not isinstance(replay, int) or not 0 <= replay <= capacity:
            raise ArgumentError(f"channel {name}: replay must be from 0 to the capacity")
        check_type(name, type)
        self.name = name
        self.type = type
        self.capacity = capacity
        self.overflow: Overflow = overflow
        self.replay = replay
        self._last: deque[T] = deque(maxlen=replay)
        self._subscriptions: tuple[Subscription[T], ...] = ()
        self._closed = False
        self._published = 0
        self._refused = 0
        # of subscriptions that are gone
        self._past = [0, 0, 0]
        self._renew_locks()
        renew_after_fork(self)

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._room_wanted = False  # a publisher waits and has not been woken yet
        for subscription in self._subscriptions:
            subscription._items = threading.Condition(self._lock)
            subscription._n_waiting = 0

    @property
    def closed(self) -> bool:
        """Whether the channel is closed."""
        return self._closed

    @property
    def n_subscribers(self) -> int:
        """How many subscriptions are open."""
        return len(self._subscriptions)

    @property
    def counters(self) -> Counters:
        """Totals over all subscriptions, past ones included, but `published` counts once."""
        with self._lock:
            delivered, dropped, high = self._past
            waiting = 0
            for subscription in self._subscriptions:
                delivered += subscription._delivered
                dropped += subscription._dropped
                waiting += len(subscription._queue)
                high = max(high, subscription._high_water)
            return Counters(self._published, delivered, dropped, self._refused, waiting, high)

    def publish(self, item: T, *, timeout: float | None = 60.0) -> int:
        """Give `item` to every subscription.

        Parameters
        ----------
        item : T
        timeout : float or None
            Seconds to wait for room where the policy is "block"; None waits for ever.

        Returns
        -------
        int
            How many subscriptions got it.

        Raises
        ------
        ArgumentError
            The item is not of the channel's type.
        ChannelFullError
            There is no room and the policy is "error".
        DeadlineError
            There was no room in time.
        ChannelClosedError
        """
        if not isinstance(item, self.type):
            raise ArgumentError(
                f"channel {self.name} takes {type_name(self.type)}, not {type(item).__name__}",
                channel=self.name,
            )
        with self._lock:
            subscriptions = self._wait_for_room(timeout)
            if self._closed:
                raise ChannelClosedError(f"channel {self.name} is closed", channel=self.name)
            for subscription in subscriptions:
                subscription._push(item)
            self._published += 1
            if self.replay:
                self._last.append(item)
            return len(subscriptions)

    def _wait_for_room(self, timeout: float | None) -> tuple[Subscription[T], ...]:
        deadline: float | None = None
        waited = False
        while not self._closed:
            must_wait = False
            for subscription in self._subscriptions:
                if len(subscription._queue) < subscription.capacity:
                    continue
                if subscription.overflow == "error":
                    self._refused += 1
                    raise ChannelFullError(
                        f"channel {self.name}: a subscription holds {subscription.capacity} items",
                        hint="receive faster, or give it more capacity or another overflow policy",
                        channel=self.name,
                        capacity=subscription.capacity,
                    )
                must_wait = must_wait or subscription.overflow == "block"
            if not must_wait:
                break
            if not waited:
                deadline, waited = deadline_after(timeout), True
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                self._refused += 1
                raise DeadlineError(
                    f"channel {self.name}: no room within {timeout} seconds",
                    hint="a subscriber does not receive; look at the counters",
                    channel=self.name,
                    seconds=timeout,
                )
            self._room_wanted = True
            self._room.wait(None if left is None else min(left, threading.TIMEOUT_MAX))
        return self._subscriptions

    def subscribe(
        self,
        *,
        capacity: int | None = None,
        overflow: Overflow | None = None,
    ) -> Subscription[T]:
        """Start receiving; the subscription begins with the items that are replayed.

        Raises
        ------
        ChannelClosedError, ArgumentError
        """
        capacity = self.capacity if capacity is None else capacity
        overflow = self.overflow if overflow is None else overflow
        check_bounds(self.name, capacity, overflow)
        with self._lock:
            if self._closed:
                raise ChannelClosedError(f"channel {self.name} is closed", channel=self.name)
            subscription = Subscription(self, capacity, overflow)
            for item in list(self._last)[-capacity:]:
                subscription._push(item)
            self._subscriptions = (*self._subscriptions, subscription)
            return subscription

    def close(self) -> None:
        """Take no more items; waiters wake. Receivers may still take what is queued."""
        with self._lock:
            self._closed = True
            self._last.clear()
            self._room.notify_all()
            for subscription in self._subscriptions:
                subscription._items.notify_all()

    def __enter__(self) -> Channel[T]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._subscriptions)} subscribers"
        return f"<Channel {self.name!r} of {type_name(self.type)}, {state}>"


class Subscription(Generic[T]):
    """One receiver's queue; made by :meth:`Channel.subscribe`.

    Iterating receives until the channel is closed and the queue is empty. Several threads may
    receive from one subscription; each item goes to one of them.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_delivered",
        "_dropped",
        "_high_water",
        "_items",
        "_n_waiting",
        "_queue",
        "capacity",
        "channel",
        "overflow",
    )

    def __init__(self, channel: Channel[T], capacity: int, overflow: Overflow) -> None:
        self.channel = channel
        self.capacity = capacity
        self.overflow = overflow
        self._queue: deque[T] = deque()
        self._items = threading.Condition(channel._lock)
        self._n_waiting = 0
        self._closed = False
        self._delivered = self._dropped = self._high_water = 0

    def _push(self, item: T) -> None:
        """Append under the channel's lock; there is room unless the policy is to drop."""
        queue = self._queue
        if len(queue) >= self.capacity:
            queue.popleft()
            self._dropped += 1
        queue.append(item)
        if len(queue) > self._high_water:
            self._high_water = len(queue)
        if self._n_waiting:
            self._items.notify()

    @property
    def counters(self) -> Counters:
        """What has gone through this subscription."""
        with self.channel._lock:
            waiting = len(self._queue)
            published = self._delivered + self._dropped + waiting
            return Counters(published, self._delivered, self._dropped, 0, waiting, self._high_water)

    def receive(self, timeout: float | None = None) -> T:
        """Take the oldest item.

        Parameters
        ----------
        timeout : float or None
            Seconds to wait; None waits until there is an item or the channel is closed.

        Raises
        ------
        DeadlineError
            Nothing came in time.
        ChannelClosedError
            The channel or the subscription is closed and nothing is left.
        """
        channel = self.channel
        with channel._lock:
            queue = self._queue
            if not queue:
                self._wait_for_item(timeout)
            item = queue.popleft()
            self._delivered += 1
            if channel._room_wanted:
                channel._room_wanted = False
                channel._room.notify_all()
            return item

    def _wait_for_item(self, timeout: float | None) -> None:
        channel = self.channel
        deadline = deadline_after(timeout)
        while not self._queue:
            if channel._closed or self._closed:
                raise ChannelClosedError(f"channel {channel.name} is closed", channel=channel.name)
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                raise DeadlineError(
                    f"channel {channel.name}: nothing within {timeout} seconds",
                    channel=channel.name,
                    seconds=timeout,
                )
            self._n_waiting += 1
            try:
                self._items.wait(None if left is None else min(left, threading.TIMEOUT_MAX))
            finally:
                self._n_waiting -= 1

    def close(self) -> None:
        """Stop receiving; queued items are dropped, publishers that wait for room go on."""
        channel = self.channel
        with channel._lock:
            if self._closed:
                return
            self._closed = True
            self._dropped += len(self._queue)
            self._queue.clear()
            channel._subscriptions = tuple(s for s in channel._subscriptions if s is not self)
            past = channel._past
            past[0] += self._delivered
            past[1] += self._dropped
            past[2] = max(past[2], self._high_water)
            channel._room.notify_all()
            self._items.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                item = self.receive()
            except ChannelClosedError:
                return
            yield item

    def __len__(self) -> int:
        return len(self._queue)

    def __enter__(self) -> Subscription[T]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

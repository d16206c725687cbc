"""What one run of a plugin owns, so that stopping it gives everything back.

Every registration, hook, channel, subscription and thread that a plugin takes goes through its
:class:`PluginContext` and is noted in its :class:`Scope`; closing the scope releases it all and
counts what would not go away.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from rustllm.errors import ArgumentError, PluginError, StalePluginError
from rustllm.log import Logger, get_logger
from rustllm.plugins.channels import Channel, Overflow, Subscription
from rustllm.plugins.manifest import Manifest
from rustllm.plugins.registry import Provider, Transaction
from rustllm.plugins.requests import RequestChannel
from rustllm.plugins.switchboard import AnyChannel, Switchboard

__all__ = ["Leftovers", "PluginContext", "PluginHandle", "Scope"]

T = TypeVar("T")
Q = TypeVar("Q")
R = TypeVar("R")

_JOIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What was still there after a plugin had been stopped.

    Attributes
    ----------
    objects : tuple of str
        Tracked objects, the plugin itself among them, that something else keeps alive.
    threads : tuple of str
        Threads that run on, whether started through the context or not.
    errors : tuple of str
        What failed while it was being taken down.
    """

    objects: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.objects or self.threads or self.errors)

    def __str__(self) -> str:
        parts = []
        for name in ("objects", "threads", "errors"):
            found = getattr(self, name)
            if found:
                parts.append(f"{name}: {', '.join(found)}")
        return "; ".join(parts) or "nothing left"


class PluginHandle:
    """A reference to one running instance of a plugin.

    Attributes
    ----------
    id : str
    generation : int
        Counts instances: a plugin that is started again is another generation, and handles to the
        earlier one raise :class:`~rustllm.errors.StalePluginError`.
    """

    __slots__ = ("_scope", "generation", "id")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.id = scope.plugin
        self.generation = scope.generation

    @property
    def alive(self) -> bool:
        """Whether this generation is still running."""
        return not self._scope.closed

    @property
    def instance(self) -> Any:
        """The plugin object.

        Raises
        ------
        StalePluginError
            It has been stopped.
        """
        instance = self._scope.instance
        if self._scope.closed or instance is None:
            raise StalePluginError(
                f"plugin {self.id}, generation {self.generation}, has been stopped",
                hint="ask the manager for a new handle",
                plugin=self.id,
                generation=self.generation,
            )
        return instance

    def __repr__(self) -> str:
        return f"<PluginHandle {self.id} generation {self.generation}>"


class Scope:
    """Everything that one generation of a plugin owns; used by the manager only.

    Notes
    -----
    Its lock is held for list operations only, never while foreign code runs.
    """

    def __init__(self, plugin: str, generation: int, transaction: Transaction) -> None:
        self.plugin = plugin
        self.generation = generation
        self.instance: Any = None
        self.transaction = transaction
        self.hooks: list[tuple[str, int, Callable[..., Any]]] = []
        self.closed = False
        self.stop_requested = threading.Event()
        self._lock = threading.Lock()
        self._closers: list[tuple[str, Callable[[], object]]] = []
        self._threads: list[threading.Thread] = []
        self._tracked: list[tuple[str, weakref.ref[Any]]] = []

    def own(self, what: str, close: Callable[[], object]) -> None:
        """Call `close` when the plugin stops; at once if it has."""
        with self._lock:
            if not self.closed:
                self._closers.append((what, close))
                return
        close()
        raise StalePluginError(
            f"plugin {self.plugin} has been stopped and can own nothing more", plugin=self.plugin
        )

    def run_thread(self, thread: threading.Thread) -> None:
        """Start a thread that is waited for when the plugin stops."""
        with self._lock:
            if self.closed:
                raise StalePluginError(
                    f"plugin {self.plugin} has been stopped and can start no thread",
                    plugin=self.plugin,
                )
            self._threads = [old for old in self._threads if old.is_alive()]
            self._threads.append(thread)
            thread.start()

    def track(self, thing: Any, what: str) -> None:
        """Count `thing` as left over if it outlives the plugin."""
        with self._lock:
            self._tracked = [entry for entry in self._tracked if entry[1]() is not None]
            self._tracked.append((what, weakref.ref(thing)))

    def close(self, package: str | None, *, own_instance: bool) -> Leftovers:
        """Release everything, newest first, then count what is left.

        Parameters
        ----------
        package : str or None
            Name of the plugin's own package, by which threads that it started itself are known.
        own_instance : bool
            Whether the plugin object was made for this scope, so that it should go as well.
        """
        with self._lock:
            self.closed = True
            closers, self._closers = self._closers, []
            threads, self._threads = self._threads, []
        self.stop_requested.set()
        errors = []
        for what, close in reversed(closers):
            try:
                close()
            except Exception as error:
                errors.append(f"{what}: {type(error).__name__}: {error}")
        self.transaction.abandon()
        self.hooks.clear()
        running = []
        own = threading.current_thread()
        for thread in threads:
            if thread is not own:  # a plugin's thread may stop its plugin
                thread.join(_JOIN_SECONDS)
                if thread.is_alive():
                    running.append(thread.name)
        running += _foreign_threads(package, {*threads, own})
        instance, self.instance = self.instance, None
        if instance is not None and own_instance:
            try:
                self.track(instance, f"the plugin object, a {type(instance).__name__}")
            except TypeError:  # a class with __slots__ and no __weakref__ cannot be followed
                pass
        del instance, closers, threads
        return Leftovers((), tuple(running), tuple(errors))

    def survivors(self) -> tuple[str, ...]:
        """Name tracked objects that are alive, after collecting garbage if there seem to be any."""
        with self._lock:
            tracked = list(self._tracked)
        if any(ref() is not None for _, ref in tracked):
            gc.collect()
        return tuple(what for what, ref in tracked if ref() is not None)


def _foreign_threads(package: str | None, known: set[threading.Thread]) -> list[str]:
    """Name living threads whose code is the plugin's but that its context did not start."""
    if not package:
        return []
    found = []
    for thread in threading.enumerate():
        target = getattr(thread, "_target", None) if type(thread) is threading.Thread else thread
        module = getattr(target, "__module__", None) or type(target).__module__
        inside = module == package or str(module).startswith(package + ".")
        if inside and thread not in known:
            found.append(thread.name)
    return found


class PluginContext:
    """What a plugin's ``setup`` gets: everything it may take, and gives back by stopping.

    Attributes
    ----------
    id : str
    generation : int
    settings : mapping
        The plugin's own table of the configuration.
    log : Logger
    stopping : threading.Event
        Set when the plugin is to stop; long work and threads of its own look at it.

    Notes
    -----
    Safe to share between threads. Once the plugin has stopped, every method raises
    :class:`~rustllm.errors.StalePluginError`.
    """

    def __init__(
        self,
        scope: Scope,
        manifest: Manifest,
        settings: Mapping[str, Any],
        board: Switchboard,
        *,
        handle: Callable[[str], PluginHandle],
        thread_failed: Callable[[str, int, Exception], object],
    ) -> None:
        self._scope = scope
        self._manifest = manifest
        self._board = board
        self._handle = handle
        self._thread_failed = thread_failed
        self.id = scope.plugin
        self.generation = scope.generation
        self.settings: Mapping[str, Any] = MappingProxyType(dict(settings))
        self.stopping = scope.stop_requested

    @property
    def log(self) -> Logger:
        """The plugin's logger."""
        return get_logger(f"plugin.{self.id}")

    def provide(
        self,
        kind: str,
        name: str,
        value: Any,
        *,
        priority: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> Provider:
        """Offer `value`; it is seen once ``setup`` and ``start`` have both succeeded.

        Raises
        ------
        PluginError
            The plugin is past its ``start``.
        """
        return self._scope.transaction.add(
            kind, name, value, priority=priority, metadata=metadata or MappingProxyType({})
        )

    def on_hook(self, name: str, function: Callable[..., Any], *, priority: int = 0) -> None:
        """Have `function` called whenever hook `name` is; larger priorities go first.

        Raises
        ------
        PluginError
            There is a specification of the hook and the function cannot be called that way.
        """
        if self._scope.transaction.over:
            raise PluginError(f"plugin {self.id} is past its start", plugin=self.id)
        if not callable(function):
            raise ArgumentError(f"hook {name}: {function!r} cannot be called")
        self._board.hooks.check(self.id, name, function)
        self._scope.hooks.append((name, priority, function))

    def open_channel(
        self,
        name: str,
        type: type[T] | tuple[type, ...] = object,  # type: ignore[assignment]
        *,
        capacity: int = 64,
        overflow: Overflow = "block",
        replay: int = 0,
    ) -> Channel[T]:
        """Open a channel for others to subscribe to; it is closed when the plugin stops.

        Raises
        ------
        PluginError
            Somebody has opened a channel of that name.
        """
        channel: Channel[T] = Channel(
            name, type, capacity=capacity, overflow=overflow, replay=replay
        )
        self._open(name, channel)
        return channel

    def open_requests(
        self,
        name: str,
        request_type: type[Q] | tuple[type, ...] = object,  # type: ignore[assignment]
        reply_type: type[R] | tuple[type, ...] = object,  # type: ignore[assignment]
        *,
        handler: Callable[[Q], R] | None = None,
        capacity: int = 64,
        overflow: Overflow = "block",
    ) -> RequestChannel[Q, R]:
        """Open a request channel; with a `handler`, also serve it in a thread of the plugin's."""
        channel: RequestChannel[Q, R] = RequestChannel(
            name, request_type, reply_type, capacity=capacity, overflow=overflow
        )
        self._open(name, channel)
        if handler is not None:
            self.start_thread(channel.serve, handler, name=f"{self.id}:{name}")
        return channel

    def _open(self, name: str, channel: AnyChannel) -> None:
        self._board.open(self.id, name, channel)
        self._scope.own(f"channel {name}", lambda: self._board.close(name, channel))

    def channel(self, name: str) -> Any:
        """Return a channel that is open, to publish on or to make requests on.

        Raises
        ------
        PluginError
            There is none of that name.
        """
        return self._board.channel(name)

    def subscribe(
        self, name: str, *, capacity: int | None = None, overflow: Overflow | None = None
    ) -> Subscription[Any]:
        """Subscribe to a channel until the plugin stops."""
        channel = self._board.channel(name)
        if not isinstance(channel, Channel):
            raise PluginError(f"channel {name} takes requests, not subscribers", plugin=self.id)
        subscription = channel.subscribe(capacity=capacity, overflow=overflow)
        self._scope.own(f"subscription to {name}", subscription.close)
        return subscription

    def require(self, plugin: str) -> PluginHandle:
        """Return a handle to a running plugin that the manifest names.

        Raises
        ------
        PluginError
            The manifest does not name it, or it is not running.
        """
        manifest = self._manifest
        if plugin not in manifest.requires and plugin not in manifest.optional:
            raise PluginError(
                f"plugin {self.id} does not say that it uses {plugin}",
                hint="put it into requires or optional of the manifest",
                plugin=self.id,
            )
        return self._handle(plugin)

    def start_thread(
        self, target: Callable[..., object], *args: Any, name: str | None = None
    ) -> threading.Thread:
        """Start a thread that ends when :attr:`stopping` is set, and is waited for at the stop.

        It is a daemon thread, so that a plugin that ignores `stopping` cannot keep the process
        from ending; such a thread is reported as left over.
        """
        thread = threading.Thread(
            target=self._guarded,
            args=(target, *args),
            name=name or f"{self.id}:thread",
            daemon=True,
        )
        self._scope.run_thread(thread)
        return thread

    def _guarded(self, target: Callable[..., object], *args: Any) -> None:
        try:
            target(*args)
        except Exception as error:
            if not self.stopping.is_set():
                self._thread_failed(self.id, self.generation, error)

    def on_stop(self, close: Callable[[], object]) -> None:
        """Call `close` when the plugin stops; the last one given is called first."""
        name = getattr(close, "__qualname__", type(close).__name__)
        self._scope.own(f"on_stop {name}", close)

    def track(self, thing: T, what: str | None = None) -> T:
        """Have `thing` reported as left over if it outlives the plugin; return it.

        Raises
        ------
        TypeError
            The object cannot be referred to weakly.
        """
        self._scope.track(thing, what or f"a {type(thing).__name__}")
        return thing

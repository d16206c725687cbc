"""The hooks of one manager: who implements which, in which order, and how they fail."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable
from typing import Any

from rustllm._core.hooks import Hook
from rustllm.errors import PluginError

__all__ = ["Hook", "HookTable"]

_Implementation = tuple[str, int, Callable[..., Any]]  # hook, priority, function


class HookTable:
    """Keeps every :class:`Hook` up to date with the plugins that are active.

    Parameters
    ----------
    failed : callable
        ``failed(plugin, hook, error, last)`` is told of an isolated implementation that raised;
        `last` when it has now done so `limit` times in a row.
    limit : int

    Notes
    -----
    Calling a hook takes no lock. Changes are serialised by one that is never held while foreign
    code runs.
    """

    def __init__(self, failed: Callable[[str, str, Exception, bool], object], limit: int) -> None:
        self._failed = failed
        self._limit = limit
        self._renew_locks()
        self._hooks: dict[str, Hook] = {}
        self._like: dict[str, inspect.Signature] = {}
        self._plugins: dict[str, list[_Implementation]] = {}  # in the order of their start
        self._failures: dict[tuple[str, str], int] = {}

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()

    def define(self, name: str, like: Callable[..., Any] | None, isolate: bool) -> Hook:
        """Make a hook, or return it if it was made the same way."""
        signature = None if like is None else inspect.signature(like)
        on_error = None
        if isolate:

            def on_error(plugin: str, error: Exception) -> None:
                self._count_failure(plugin, name, error)

        with self._lock:
            if name in self._hooks and (name in self._like or signature is None):
                raise PluginError(f"hook {name!r} is defined already", hook=name)
            if signature is not None:
                self._like[name] = signature
            self._hooks[name] = Hook(name, on_error)
            self._refresh(name)
            return self._hooks[name]

    def get(self, name: str) -> Hook:
        """Return a hook; one that nobody has defined is made, and isolates."""
        hook = self._hooks.get(name)
        if hook is not None:
            return hook
        try:
            return self.define(name, None, True)
        except PluginError:  # another thread was faster
            return self._hooks[name]

    def check(self, plugin: str, name: str, function: Callable[..., Any]) -> None:
        """Raise unless `function` can be called as the hook's definition says."""
        like = self._like.get(name)
        if like is None:
            return
        positional = [
            parameter
            for parameter in like.parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        try:
            mine = inspect.signature(function)
        except (TypeError, ValueError):  # some compiled functions do not tell
            return
        try:
            mine.bind(*positional)
        except TypeError as error:
            raise PluginError(
                f"plugin {plugin} implements hook {name}{like} with a function that takes {mine}: "
                f"{error}",
                hint="hooks are called with positional arguments",
                plugin=plugin,
                hook=name,
            ) from error

    def publish(self, plugin: str, implementations: Iterable[_Implementation]) -> None:
        """Add what a plugin implements."""
        mine = list(implementations)
        with self._lock:
            self._plugins[plugin] = mine
            for name in {name for name, _, _ in mine}:
                self._refresh(name)

    def remove(self, plugin: str) -> None:
        """Take away what a plugin implements."""
        with self._lock:
            gone = self._plugins.pop(plugin, [])
            for name in {name for name, _, _ in gone}:
                self._failures.pop((plugin, name), None)
                self._refresh(name)

    def _refresh(self, name: str) -> None:
        found = [
            (-priority, plugin, function)
            for plugin, mine in self._plugins.items()
            for hook, priority, function in mine
            if hook == name
        ]
        found.sort(key=lambda entry: entry[0])  # stable: equals stay in the order of their start
        if name not in self._hooks:
            self._hooks[name] = Hook(name, lambda p, e: self._count_failure(p, name, e))
        self._hooks[name].set([(plugin, function) for _, plugin, function in found])

    def _count_failure(self, plugin: str, name: str, error: Exception) -> None:
        with self._lock:
            count = self._failures.get((plugin, name), 0) + 1
            self._failures[plugin, name] = count
        self._failed(plugin, name, error, count == self._limit)

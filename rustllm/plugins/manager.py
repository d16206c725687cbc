"""The plugin manager: finds plugins, resolves them, runs them, and takes them down again.

Nothing of a plugin is imported before it is started. A plugin that fails takes down itself and
what depends on it, loudly; everything else goes on. What a plugin registers is seen all at once
when it is up, and is gone all at once when it is not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rustllm._core.hooks import Hook
from rustllm.errors import PluginError
from rustllm.plugins.channels import Channel
from rustllm.plugins.lifecycle import State
from rustllm.plugins.records import PluginInfo, StartReport, describe_error
from rustllm.plugins.runner import Runner
from rustllm.plugins.scope import Leftovers
from rustllm.plugins.switchboard import AnyChannel
from rustllm.plugins.trust import Lock

__all__ = ["PluginInfo", "PluginManager", "StartReport"]


class PluginManager(Runner):
    """Runs plugins.

    Parameters
    ----------
    disabled : iterable of str
        Ids to leave alone.
    required : iterable of str
        Ids that must be active after :meth:`start`, which raises otherwise.
    strict : bool
        Raise at the first plugin that fails or is blocked, instead of going on without it.
    lock : Lock or path, optional
        Only plugins in this lock file, with the hashes in it, may run.
    safe_mode : bool, optional
        Run built-in plugins only; default: whether ``RUSTLLM_SAFE_MODE`` is set.
    settings : mapping, optional
        A table of settings for each plugin, by id.
    hook_failure_limit : int
        How often in a row a plugin may raise in one isolated hook before it is taken down.

    Notes
    -----
    Safe to share between threads. Looking things up (the registry, hooks, channels that one holds)
    takes no lock. Starting and stopping claims all the plugins concerned at once, so two threads
    can never wait for each other; plugin code runs under no lock. Waiting for a claim is given up
    after a minute. In a forked child claims of other threads are forgotten.

    Compiled modules cannot be loaded twice into one process, and Python code that others hold on
    to cannot be taken back. So :meth:`reload` makes a new *instance*; new code needs a new process.

    Examples
    --------
    >>> from rustllm import Plugin, PluginManager
    >>> class Shout(Plugin):
    ...     def setup(self, context):
    ...         context.provide("filter", "shout", str.upper)
    >>> manager = PluginManager()
    >>> manager.add(Shout(), {"api": "1", "id": "acme.shout", "version": "1.0"})
    'acme.shout'
    >>> manager.start().started
    ('acme.shout',)
    >>> manager.registry.get("filter", "shout")("hello")
    'HELLO'
    >>> manager.stop("acme.shout")["acme.shout"]
    Leftovers(objects=(), threads=(), errors=())
    >>> manager.registry.names("filter")
    ()
    """

    def __init__(
        self,
        *,
        disabled: Iterable[str] = (),
        required: Iterable[str] = (),
        strict: bool = False,
        lock: Lock | str | os.PathLike[str] | None = None,
        safe_mode: bool | None = None,
        settings: Mapping[str, Any] | None = None,
        hook_failure_limit: int = 3,
    ) -> None:
        super().__init__(
            settings or {},
            hook_failure_limit,
            disabled=disabled,
            required=required,
            strict=strict,
            lock=lock,
            safe_mode=safe_mode,
        )

    def get(self, kind: str, name: str) -> Any:
        """Return what is offered under `kind` and `name`, starting the plugin that says it does.

        Something of an active plugin costs one dictionary access.

        Raises
        ------
        UnsupportedError
            Nobody offers it. Fields: ``kind``, ``name``.
        PluginError
            A plugin would, but is blocked or fails.
        """
        provider = self.registry.find(kind, name)
        if provider is not None:
            return provider.get()
        with self._lock:
            self.resolve()
            offers = []
            for plugin, record in sorted(self._records.items()):
                for provision in record.manifest.provides:
                    if (provision.kind, provision.name) == (kind, name):
                        offers.append((-provision.priority, plugin, record))
            offers.sort(key=lambda offer: offer[:2])
            able = [plugin for _, plugin, record in offers if record.state is State.RESOLVED]
        if able:
            self.start(able[0], strict=True)
        elif offers:
            _, plugin, record = offers[0]
            if record.refusal is None and record.error is not None:
                raise PluginError(
                    f"{kind} {name!r} comes with plugin {plugin}, which failed: "
                    f"{describe_error(record.error)}",
                    hint=f'repair it and start("{plugin}") again',
                    plugin=plugin,
                ) from record.error
            if record.refusal is not None:
                raise PluginError(
                    f"{kind} {name!r} comes with plugin {plugin}, which cannot run: "
                    f"{record.refusal.reason}",
                    hint=record.refusal.fix,
                    plugin=plugin,
                    refusal=record.refusal,
                )
            if record.state is State.STOPPED:
                raise PluginError(
                    f"{kind} {name!r} comes with plugin {plugin}, which has been stopped",
                    hint=f'start("{plugin}") first',
                    plugin=plugin,
                )
        return self.registry.get(kind, name)

    # ---- hooks and channels --------------------------------------------------------------------

    def define_hook(
        self, name: str, like: Callable[..., Any] | None = None, *, isolate: bool = True
    ) -> Hook:
        """Say how a hook is called, before plugins implement it.

        Parameters
        ----------
        name : str
        like : callable, optional
            A function with the hook's positional parameters; an implementation that cannot be
            called with as many makes its plugin fail at ``setup``, not in the middle of work.
        isolate : bool
            Go on without an implementation that raises, warn, and take its plugin down when it
            raises three times in a row. Otherwise the caller gets the exception.

        Returns
        -------
        Hook
            To keep and call.
        """
        return self._board.hooks.define(name, like, isolate)

    def hook(self, name: str) -> Hook:
        """Return a hook, to keep and call; it follows plugins as they come and go."""
        return self._board.hooks.get(name)

    def channel(self, name: str) -> Any:
        """Return an open channel, a :class:`Channel` or a :class:`RequestChannel`.

        Raises
        ------
        PluginError
            Nobody has opened one of that name.
        """
        return self._board.channel(name)

    def open_channel(self, name: str, type: Any = object, **bounds: Any) -> Channel[Any]:
        """Open a channel of the host's own; see :class:`Channel` for the parameters."""
        channel: Channel[Any] = Channel(name, type, **bounds)
        self._board.open("the host", name, channel)
        return channel

    def channels(self) -> Mapping[str, AnyChannel]:
        """Return every channel that a plugin or the host has opened, by name."""
        return self._board.channels()

    def close(self) -> dict[str, Leftovers]:
        """Stop everything and close every channel."""
        stopped = self.stop()
        for name, channel in self.channels().items():
            self._board.close(name, channel)
        return stopped

    def __enter__(self) -> PluginManager:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

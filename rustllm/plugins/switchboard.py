"""What connects the plugins of one manager while they run: hooks and channels, by name."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from rustllm.errors import PluginError
from rustllm.plugins.channels import Channel
from rustllm.plugins.hooks import HookTable
from rustllm.plugins.requests import RequestChannel

__all__ = ["AnyChannel", "Switchboard"]

AnyChannel = Channel[Any] | RequestChannel[Any, Any]


class Switchboard:
    """Hooks and channels.

    Notes
    -----
    Reading takes no lock. Changes are serialised by one that is held for a dictionary copy.
    """

    def __init__(self, hooks: HookTable) -> None:
        self.hooks = hooks
        self._channels: dict[str, AnyChannel] = {}
        self._renew_locks()

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self.hooks._renew_locks()

    def channel(self, name: str) -> Any:
        """Return an open channel.

        Raises
        ------
        PluginError
            Nobody has opened one of that name.
        """
        channel = self._channels.get(name)
        if channel is None:
            known = ", ".join(sorted(self._channels)) or "none"
            raise PluginError(f"no channel {name!r} is open", hint=f"open: {known}", channel=name)
        return channel

    def open(self, owner: str, name: str, channel: AnyChannel) -> None:
        """Make a channel known by its name.

        Raises
        ------
        PluginError
            There is one of that name.
        """
        with self._lock:
            there = self._channels.get(name)
            if there is not None and not there.closed:
                raise PluginError(f"channel {name!r} is open already", plugin=owner, channel=name)
            self._channels = {**self._channels, name: channel}

    def close(self, name: str, channel: AnyChannel) -> None:
        """Close a channel and forget its name."""
        channel.close()
        with self._lock:
            if self._channels.get(name) is channel:
                self._channels = {n: c for n, c in self._channels.items() if n != name}

    def channels(self) -> Mapping[str, AnyChannel]:
        """Return every open channel by name."""
        return dict(self._channels)

"""Who is changing the state of which plugins.

A thread claims all the plugins that it is going to start or stop at once and gives them back at
once. Nobody waits while holding a claim, so no two threads can ever wait for each other, and no
lock is held while a plugin's code runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic

from rustllm.errors import StateError

__all__ = ["Claims"]

_CLAIM_SECONDS = 60.0


class Claims:
    """Claims on plugins by threads.

    Parameters
    ----------
    lock : threading.RLock
        The manager's lock.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._released = threading.Condition(lock)
        self._holders: dict[str, int] = {}

    def __contains__(self, plugin: str) -> bool:
        return plugin in self._holders

    @contextmanager
    def hold(
        self, choose: Callable[[], Iterable[str]], released: Callable[[], object]
    ) -> Iterator[list[str]]:
        """Hold the plugins that `choose` names for this thread while the block runs.

        Parameters
        ----------
        choose : callable
            Asked under the lock, and asked again after every wait.
        released : callable
            Called under the lock when the claims are given back.

        Raises
        ------
        StateError
            Another thread holds one of them for over a minute; or it does and this thread holds
            some already, because it runs code of a plugin that is on its way.
        """
        me = threading.get_ident()
        deadline = monotonic() + _CLAIM_SECONDS
        with self._lock:
            while True:
                plugins = list(choose())
                busy = [p for p in plugins if self._holders.get(p, me) != me]
                if not busy:
                    break
                if me in self._holders.values():
                    raise StateError(
                        f"plugin {busy[0]} is being started or stopped by another thread, and this "
                        "call comes from a plugin that is itself on its way",
                        hint="say so in requires, so that the manager orders them",
                        plugin=busy[0],
                    )
                if not self._released.wait(deadline - monotonic()):
                    raise StateError(
                        f"plugin {busy[0]} has been on its way for {_CLAIM_SECONDS:.0f} seconds",
                        hint="its setup, start or stop hangs",
                        plugin=busy[0],
                    )
            mine = [p for p in plugins if p not in self._holders]
            for plugin in mine:
                self._holders[plugin] = me
        try:
            yield plugins
        finally:
            with self._lock:
                for plugin in mine:
                    self._holders.pop(plugin, None)
                released()
                self._released.notify_all()

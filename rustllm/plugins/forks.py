"""Locks after a fork: a child inherits locks that threads of its parent may hold forever."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["renew_after_fork"]


class _Renewable(Protocol):
    def _renew_locks(self) -> None: ...


_objects: weakref.WeakSet[_Renewable] = weakref.WeakSet()
_lock = threading.Lock()
_installed = False


def renew_after_fork(instance: _Renewable) -> None:
    """Call ``instance._renew_locks()`` in every child that is forked while it lives."""
    global _installed
    with _lock:
        if not _installed and hasattr(os, "register_at_fork"):
            # held while forking, so that the set is whole in the child
            os.register_at_fork(
                before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_in_child
            )
            _installed = True
        _objects.add(instance)


def _in_child() -> None:
    _lock.release()
    for instance in list(_objects):
        instance._renew_locks()

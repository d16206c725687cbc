"""The states of a plugin and the legal moves between them, in one table."""

from __future__ import annotations

from enum import Enum

from rustllm.errors import StateError

__all__ = ["LIVE", "MOVES", "State", "check_move"]


class State(Enum):
    """What a plugin is doing."""

    DISCOVERED = "discovered"  # its manifest has been read
    DISABLED = "disabled"  # switched off by the user
    BLOCKED = "blocked"  # the resolver refused it, or a plugin it needs failed
    RESOLVED = "resolved"  # everything it needs is there; nothing has been imported
    LOADED = "loaded"  # imported, an instance exists, nothing is registered yet
    ACTIVE = "active"  # set up and started; what it registered can be seen
    STOPPING = "stopping"  # being taken down
    STOPPED = "stopped"  # everything it registered is released
    FAILED = "failed"  # it raised; the error is kept


MOVES: dict[State, frozenset[State]] = {
    State.DISCOVERED: frozenset({State.RESOLVED, State.BLOCKED, State.DISABLED}),
    State.DISABLED: frozenset({State.DISCOVERED}),
    State.BLOCKED: frozenset({State.DISCOVERED}),
    State.RESOLVED: frozenset({State.LOADED, State.FAILED, State.BLOCKED, State.DISCOVERED}),
    State.LOADED: frozenset({State.ACTIVE, State.FAILED}),
    State.ACTIVE: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset({State.DISCOVERED}),
    State.FAILED: frozenset({State.DISCOVERED}),
}

# In these states a plugin's code may be running, so it is neither resolved anew nor removed.
LIVE = frozenset({State.LOADED, State.ACTIVE, State.STOPPING})


def check_move(plugin: str, old: State, new: State) -> None:
    """Raise unless a plugin in state `old` may go to `new`.

    Raises
    ------
    StateError
        The move is not in the table. Fields: ``plugin``, ``state``.
    """
    if new not in MOVES[old]:
        allowed = ", ".join(sorted(state.value for state in MOVES[old]))
        raise StateError(
            f"plugin {plugin} is {old.value} and cannot become {new.value}",
            hint=f"from here it may become: {allowed}",
            plugin=plugin,
            state=old.value,
        )

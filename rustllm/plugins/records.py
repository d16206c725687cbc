"""What the manager keeps about each plugin, and what it tells others about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rustllm.plugins.discovery import Candidate
from rustllm.plugins.lifecycle import State, check_move
from rustllm.plugins.manifest import Manifest
from rustllm.plugins.resolver import Refusal
from rustllm.plugins.scope import Leftovers, Scope

__all__ = ["PluginInfo", "Record", "StartReport", "describe_error"]


def describe_error(error: BaseException | None) -> str:
    """Return an error in one line, with its type."""
    return "nothing is known" if error is None else f"{type(error).__name__}: {error}"


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What the manager knows about a plugin, at one moment."""

    id: str
    version: str
    state: State
    origin: str
    place: str
    description: str
    provides: tuple[str, ...]
    requires: Mapping[str, str]
    generation: int
    refusal: Refusal | None
    error: BaseException | None
    seconds: float
    leftovers: Leftovers


@dataclass(frozen=True, slots=True)
class StartReport:
    """What a call of :meth:`PluginManager.start` did.

    Attributes
    ----------
    started : tuple of str
    failed : mapping of str to BaseException
        Plugins that raised, with what.
    blocked : mapping of str to Refusal
        Plugins that cannot run, with the reason.
    """

    started: tuple[str, ...]
    failed: Mapping[str, BaseException]
    blocked: Mapping[str, Refusal]

    def __str__(self) -> str:
        lines = [f"started {', '.join(self.started) or 'nothing'}"]
        lines += [f"{name} failed: {describe_error(error)}" for name, error in self.failed.items()]
        lines += [str(refusal) for refusal in self.blocked.values()]
        return "\n".join(lines)


@dataclass(slots=True, eq=False)
class Record:
    """One plugin; its fields change under the manager's lock only."""

    candidate: Candidate
    state: State = State.DISCOVERED
    generation: int = 0
    refusal: Refusal | None = None
    error: BaseException | None = None
    scope: Scope | None = None
    seconds: float = 0.0
    leftovers: Leftovers = field(default_factory=Leftovers)
    last_scope: Scope | None = None

    @property
    def manifest(self) -> Manifest:
        return self.candidate.manifest

    def move(self, state: State) -> None:
        check_move(self.manifest.id, self.state, state)
        self.state = state

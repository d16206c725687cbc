"""Which plugins there are and which of them can run: finding, keeping, resolving.

This is the part of the manager that imports nothing of any plugin.
"""

from __future__ import annotations

import difflib
import os
import platform
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import rustllm
from rustllm.errors import PluginError
from rustllm.log import get_logger
from rustllm.plugins.claims import Claims
from rustllm.plugins.discovery import Candidate, Problem, find_in_folder, find_installed
from rustllm.plugins.forks import renew_after_fork
from rustllm.plugins.lifecycle import LIVE, State
from rustllm.plugins.manifest import Manifest, Provision, parse_manifest
from rustllm.plugins.records import PluginInfo, Record, describe_error
from rustllm.plugins.registry import Registry
from rustllm.plugins.resolver import Refusal, Resolution, resolve
from rustllm.plugins.trust import Lock
from rustllm.version import Version

__all__ = ["BUILT_IN", "Catalog"]

BUILT_IN = "built-in"


class Catalog:
    """The plugins of one manager, by id; the base of :class:`PluginManager`, which see."""

    def __init__(
        self,
        *,
        disabled: Iterable[str],
        required: Iterable[str],
        strict: bool,
        lock: Lock | str | os.PathLike[str] | None,
        safe_mode: bool | None,
    ) -> None:
        self.registry = Registry()
        self.required = frozenset(required)
        self.strict = strict
        self.safe_mode = _is_set("RUSTLLM_SAFE_MODE") if safe_mode is None else safe_mode
        self.trusted = Lock.read(lock) if lock is not None and not isinstance(lock, Lock) else lock
        self.host = {
            "rustllm": Version(rustllm.__version__),
            "python": Version(platform.python_version()),
        }
        self.problems: tuple[Problem, ...] = ()
        self.shadowed: tuple[str, ...] = ()
        self._disabled = set(disabled)
        self._records: dict[str, Record] = {}
        self._resolution: Resolution | None = None
        self._renew_locks()
        renew_after_fork(self)

    def _renew_locks(self) -> None:
        self._lock = threading.RLock()
        self._claims = Claims(self._lock)
        self.registry._renew_locks()

    # ---- finding -------------------------------------------------------------------------------

    def discover(
        self,
        *,
        installed: bool = True,
        folders: Iterable[str | os.PathLike[str]] = (),
        path: list[str] | None = None,
    ) -> tuple[str, ...]:
        """Look for plugins and read their manifests; import nothing.

        Parameters
        ----------
        installed : bool
            Look at installed distributions.
        folders : iterable of path
            Folders that are, or hold, plugins.
        path : list of str, optional
            Where distributions are installed; default ``sys.path``.

        Returns
        -------
        tuple of str
            Ids that are new. What cannot be read is warned about and kept in :attr:`problems`.
        """
        found: list[Candidate | Problem] = []
        if installed:
            found += find_installed(path)
        for folder in folders:
            found += find_in_folder(folder)
        new = []
        for item in found:
            if isinstance(item, Problem):
                with self._lock:
                    known = {(problem.place, str(problem)) for problem in self.problems}
                    if (item.place, str(item)) in known:
                        continue
                    self.problems = (*self.problems, item)
                get_logger("plugins").warning("a plugin cannot be read", problem=item)
                if self.strict:
                    raise item.error
            elif self._adopt(item):
                new.append(item.manifest.id)
        return tuple(new)

    def add(self, plugin: Any, manifest: Manifest | Mapping[str, Any] | None = None) -> str:
        """Take a plugin that the host holds as an object.

        Parameters
        ----------
        plugin : object
            With ``setup``, ``start`` and ``stop``.
        manifest : Manifest or mapping, optional
            Default: the object's attribute ``manifest``.

        Returns
        -------
        str
            Its id.

        Raises
        ------
        ManifestError
        PluginError
            There is a plugin of that id.
        """
        raw = getattr(plugin, "manifest", None) if manifest is None else manifest
        if raw is None:
            raise PluginError(
                f"{type(plugin).__name__} has no manifest", hint="pass one as second argument"
            )
        parsed = raw if isinstance(raw, Manifest) else parse_manifest(raw)
        for name in ("setup", "start", "stop"):
            if not callable(getattr(plugin, name, None)):
                raise PluginError(
                    f"{type(plugin).__name__} has no method {name}()",
                    hint="derive it from rustllm.Plugin",
                    plugin=parsed.id,
                )
        place = f"object of {type(plugin).__module__}.{type(plugin).__qualname__}"
        with self._lock:
            if parsed.id in self._records:
                there = self._records[parsed.id].candidate.place
                raise PluginError(
                    f"there is a plugin {parsed.id} already: {there}",
                    hint="remove() it first",
                    plugin=parsed.id,
                )
            self._adopt(Candidate(parsed, "object", place, instance=plugin))
        return parsed.id

    def _adopt(self, candidate: Candidate) -> bool:
        """Take a candidate; of two with one id the higher version wins, the other is noted."""
        plugin = candidate.manifest.id
        with self._lock:
            record = self._records.get(plugin)
            if record is None:
                self._records[plugin] = Record(candidate)
                self._resolution = None
                return True
            old = record.candidate
            if old.place == candidate.place and old.manifest == candidate.manifest:
                return False
            newer = candidate.manifest.version > old.manifest.version
            replaces = newer or old.place == candidate.place  # the same place, read again
            if replaces and record.state not in LIVE and old.origin != BUILT_IN:
                self._records[plugin] = Record(candidate, generation=record.generation)
                self._resolution = None
                if old.place == candidate.place:
                    return True
                loser, winner = old, candidate
            else:
                loser, winner = candidate, old
            note = (
                f"{plugin} {loser.manifest.version} ({loser.place}) is hidden by "
                f"{winner.manifest.version} ({winner.place})"
            )
            if note not in self.shadowed:
                self.shadowed = (*self.shadowed, note)
            return winner is candidate

    # ---- resolving -----------------------------------------------------------------------------

    def resolve(self) -> Resolution:
        """Work out which plugins can run, in which order, and why the others cannot.

        Plugins that run are left as they are. Reads no file and imports nothing.
        """
        with self._lock:
            if self._resolution is None:
                self._resolution = self._resolve()
            return self._resolution

    def _resolve(self) -> Resolution:
        refused = {}
        for plugin, record in self._records.items():
            refusal = self._outside_reason(plugin, record)
            if refusal is not None and record.state not in LIVE:
                refused[plugin] = refusal
        resolution = resolve(
            {plugin: record.manifest for plugin, record in self._records.items()},
            host=self.host,
            refused=refused,
            places={plugin: record.candidate.place for plugin, record in self._records.items()},
            live={plugin for plugin, record in self._records.items() if record.state in LIVE},
        )
        for plugin, record in self._records.items():
            # A claimed plugin is on its way up or down in another thread, which will say.
            if record.state in LIVE or record.state is State.FAILED or plugin in self._claims:
                continue
            record.refusal = resolution.refusals.get(plugin)
            if record.state is State.STOPPED and record.refusal is None:
                continue  # it can run, and somebody has stopped it
            if record.state is not State.DISCOVERED:
                record.move(State.DISCOVERED)
            if record.refusal is None:
                record.move(State.RESOLVED)
            elif record.refusal.code == "disabled":
                record.move(State.DISABLED)
            else:
                record.move(State.BLOCKED)
        return resolution

    def _outside_reason(self, plugin: str, record: Record) -> Refusal | None:
        """Say why a plugin may not run for reasons that no manifest knows."""
        candidate = record.candidate
        version = candidate.manifest.version
        if record.state is State.FAILED:
            return Refusal(
                plugin,
                "failed",
                f"{plugin} {version} failed: {describe_error(record.error)}",
                f'repair it and start("{plugin}") again, or disable it',
            )
        if plugin in self._disabled:
            return Refusal(
                plugin,
                "disabled",
                f"{plugin} {version} is disabled",
                f"take {plugin} out of plugins.disabled, or enable() it",
            )
        if candidate.origin == BUILT_IN:
            return None
        if self.safe_mode:
            return Refusal(
                plugin,
                "safe-mode",
                f"{plugin} {version} is not built in, and safe mode runs nothing else",
                "unset RUSTLLM_SAFE_MODE",
            )
        if (
            self.trusted is not None
            and candidate.origin != "object"  # the host chose it itself
            and self.trusted.sha256(plugin) is None
        ):
            return Refusal(
                plugin,
                "trust",
                f"{plugin} {version} is not in the lock file",
                "look at it, then write the lock file again",
            )
        return None

    def enable(self, plugin: str) -> None:
        """Let a plugin run again that was disabled; does not start it."""
        with self._lock:
            self._record(plugin)
            self._disabled.discard(plugin)
            self._resolution = None

    def _claim(self, choose: Callable[[], Iterable[str]]) -> AbstractContextManager[list[str]]:
        # what was claimed was left out of any resolution that ran meanwhile
        return self._claims.hold(choose, self._forget_resolution)

    def _forget_resolution(self) -> None:
        self._resolution = None

    # ---- reading -------------------------------------------------------------------------------

    def _record(self, plugin: str) -> Record:
        record = self._records.get(plugin)
        if record is None:
            close = difflib.get_close_matches(plugin, list(self._records), n=1)
            raise PluginError(
                f"no plugin {plugin!r} was found",
                hint=f"did you mean {close[0]}?"
                if close
                else "rustllm plugins list shows those found; discover(folders=...) adds to them",
                plugin=plugin,
            )
        return record

    def state(self, plugin: str) -> State:
        """Return what a plugin is doing."""
        return self._record(plugin).state

    def plugins(self) -> tuple[PluginInfo, ...]:
        """Return what is known about every plugin, by id. Imports nothing."""
        with self._lock:
            self.resolve()
            return tuple(
                PluginInfo(
                    id=plugin,
                    version=str(record.manifest.version),
                    state=record.state,
                    origin=record.candidate.origin,
                    place=record.candidate.place,
                    description=record.manifest.description,
                    provides=tuple(f"{p.kind}:{p.name}" for p in record.manifest.provides),
                    requires={name: str(r) for name, r in record.manifest.requires.items()},
                    generation=record.generation,
                    refusal=record.refusal,
                    error=record.error,
                    seconds=record.seconds,
                    leftovers=record.leftovers,
                )
                for plugin, record in sorted(self._records.items())
            )

    def candidate(self, plugin: str) -> Candidate:
        """Return where a plugin was found and its manifest."""
        return self._record(plugin).candidate

    def provisions(self, kind: str) -> tuple[tuple[str, Provision], ...]:
        """Return what plugins say they offer of `kind`, with their ids, sorted by id."""
        with self._lock:
            return tuple(
                (plugin, provision)
                for plugin, record in sorted(self._records.items())
                for provision in record.manifest.provides
                if provision.kind == kind
            )

    def announced(self, kind: str) -> tuple[str, ...]:
        """Return every name of `kind` that any plugin says it offers, running or not."""
        names = {provision.name for _, provision in self.provisions(kind)}
        return tuple(sorted(names.union(self.registry.names(kind))))


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")

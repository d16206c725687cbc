"""Starting and stopping: the part of the manager that runs plugins' code."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from rustllm.errors import PluginError, PluginTrustError, StateError
from rustllm.log import get_logger
from rustllm.plugins.catalog import BUILT_IN, Catalog
from rustllm.plugins.discovery import Candidate
from rustllm.plugins.hooks import HookTable
from rustllm.plugins.imports import load_entry, package_of
from rustllm.plugins.lifecycle import LIVE, State
from rustllm.plugins.records import Record, StartReport, describe_error
from rustllm.plugins.resolver import Refusal
from rustllm.plugins.scope import Leftovers, PluginContext, PluginHandle, Scope
from rustllm.plugins.switchboard import Switchboard
from rustllm.plugins.trust import verify_hash

__all__ = ["Runner"]


class Runner(Catalog):
    """Takes plugins up and down; the base of :class:`PluginManager`, which see."""

    def __init__(
        self, settings: Mapping[str, Any], hook_failure_limit: int, **choices: Any
    ) -> None:
        self.settings = dict(settings)
        self._active: tuple[str, ...] = ()  # in the order in which they were started
        self._board = Switchboard(HookTable(self._hook_failed, hook_failure_limit))
        super().__init__(**choices)

    def _renew_locks(self) -> None:
        super()._renew_locks()
        self._board._renew_locks()

    # ---- starting ------------------------------------------------------------------------------

    def start(self, *plugins: str, strict: bool | None = None) -> StartReport:
        """Start plugins and what they need, in order.

        Parameters
        ----------
        *plugins : str
            Ids; none means all that can run. A plugin that failed is tried again only when it is
            named here.
        strict : bool, optional
            Overrides the manager's own.

        Returns
        -------
        StartReport

        Raises
        ------
        PluginError
            With `strict`, or for a plugin in :attr:`required`: one failed or is blocked.
        """
        strict = self.strict if strict is None else strict
        with self._lock:
            for plugin in plugins:
                record = self._record(plugin)
                if record.state is State.FAILED and plugin not in self._claims:
                    record.move(State.DISCOVERED)
                    record.error = None
                self._resolution = None
        started: list[str] = []
        failed: dict[str, BaseException] = {}
        blocked: dict[str, Refusal] = {}

        def choose() -> list[str]:
            resolution = self.resolve()
            wanted = set(plugins or resolution.order)
            for plugin in reversed(resolution.order):
                if plugin in wanted:
                    wanted.update(resolution.depends[plugin])
            return [plugin for plugin in resolution.order if plugin in wanted]

        with self._claim(choose) as order:
            resolution = self.resolve()
            blocked.update(
                (plugin, refusal)
                for plugin, refusal in resolution.refusals.items()
                if (plugin in plugins or not plugins) and refusal.code != "disabled"
            )
            for plugin in order:
                record = self._records[plugin]
                if record.state is State.ACTIVE:
                    continue
                if record.state is State.STOPPED:
                    with self._lock:
                        record.move(State.DISCOVERED)
                        record.move(State.RESOLVED)
                refusal = self._block_behind_failures(record)
                if refusal is not None:
                    blocked[plugin] = refusal
                    continue
                try:
                    self._activate(record)
                except Exception as error:
                    failed[plugin] = error
                    if strict:
                        raise self._as_plugin_error(plugin, error) from error
                else:
                    started.append(plugin)
        report = StartReport(tuple(started), failed, dict(sorted(blocked.items())))
        self._warn(report)
        self._raise_if_required(report, strict, plugins)
        return report

    def _block_behind_failures(self, record: Record) -> Refusal | None:
        plugin = record.manifest.id
        for other in sorted(record.manifest.requires):
            need = self._records.get(other)
            if need is None or need.state is State.ACTIVE:
                continue
            root = (need.refusal.blocked_by if need.refusal is not None else None) or other
            state = f"is {need.state.value}"
            if need.error is not None:
                state = f"failed: {describe_error(need.error)}"
            with self._lock:
                record.refusal = Refusal(
                    plugin,
                    "dependency",
                    f"{plugin} {record.manifest.version} needs {other}, which {state}",
                    f'repair {root} and start("{root}", "{plugin}") again',
                    blocked_by=root,
                )
                if record.state is State.RESOLVED:
                    record.move(State.BLOCKED)
            return record.refusal
        return None

    def _activate(self, record: Record) -> None:
        """Take one plugin that this thread has claimed from RESOLVED to ACTIVE."""
        candidate = record.candidate
        plugin = record.manifest.id
        began = perf_counter()
        with self._lock:
            record.generation += 1
            scope = Scope(plugin, record.generation, self.registry.transaction(plugin))
        reached_start = False
        try:
            expected = self._expected_hash(candidate)
            if expected is not None:
                verify_hash(candidate, expected)
            inside = expected is not None
            scope.instance = self._instantiate(candidate, inside)
            with self._lock:
                record.move(State.LOADED)
                record.scope = scope
            for provision in record.manifest.provides:
                scope.transaction.add(
                    provision.kind,
                    provision.name,
                    load=_Loader(candidate, provision.entry, inside),
                    priority=provision.priority,
                    metadata=provision.metadata,
                )
            if scope.instance is not None:
                context = PluginContext(
                    scope,
                    record.manifest,
                    self.settings.get(plugin, {}),
                    self._board,
                    handle=self.handle,
                    thread_failed=self._thread_failed,
                )
                scope.instance.setup(context)
                scope.transaction.check()
                reached_start = True
                scope.instance.start()
            self._publish(record, scope)
        except BaseException as error:
            self._fail(record, scope, error, stop=reached_start)
            if isinstance(error, Exception):
                raise
            if isinstance(error, SystemExit):  # a module that calls sys.exit() is a broken plugin
                raise self._as_plugin_error(plugin, error) from error
            raise
        record.seconds = perf_counter() - began

    def _expected_hash(self, candidate: Candidate) -> str | None:
        if self.trusted is None or candidate.origin in (BUILT_IN, "object"):
            return None
        expected = self.trusted.sha256(candidate.manifest.id)
        if expected is None:
            raise PluginTrustError("not in the lock file", plugin=candidate.manifest.id)
        return expected

    def _instantiate(self, candidate: Candidate, inside: bool) -> Any:
        if candidate.instance is not None:
            return candidate.instance
        entry = candidate.manifest.plugin
        if entry is None:
            return None
        instance = load_entry(candidate, entry, inside_root=inside)()
        for name in ("setup", "start", "stop"):
            if not callable(getattr(instance, name, None)):
                raise PluginError(
                    f"{entry} makes a {type(instance).__name__}, which has no method {name}()",
                    hint="derive it from rustllm.Plugin",
                    plugin=candidate.manifest.id,
                )
        return instance

    def _publish(self, record: Record, scope: Scope) -> None:
        """Make everything a plugin registered visible, and the plugin active."""
        plugin = record.manifest.id
        with self._lock:
            scope.transaction.commit()
            record.error = record.refusal = None
            record.leftovers = Leftovers()
            record.move(State.ACTIVE)
            self._active = (*self._active, plugin)
            self._board.hooks.publish(plugin, scope.hooks)

    def _fail(self, record: Record, scope: Scope, error: BaseException, *, stop: bool) -> None:
        """Undo a start that did not succeed. Never raises an Exception."""
        errors = []
        if stop:
            try:
                scope.instance.stop()
            except Exception as second:
                errors.append(f"stop: {describe_error(second)}")
        leftovers = _close(scope, record)
        with self._lock:
            record.error = error
            record.scope = None
            record.leftovers = Leftovers(
                leftovers.objects, leftovers.threads, (*errors, *leftovers.errors)
            )
            record.move(State.FAILED)

    @staticmethod
    def _as_plugin_error(plugin: str, error: BaseException) -> PluginError:
        if isinstance(error, PluginError):
            return error
        return PluginError(f"plugin {plugin} failed: {describe_error(error)}", plugin=plugin)

    def _warn(self, report: StartReport) -> None:
        if not (report.failed or report.blocked):
            return
        log = get_logger("plugins")
        for plugin, error in report.failed.items():
            log.warning("a plugin failed and was left out", plugin=plugin, error=error)
        for plugin, refusal in report.blocked.items():
            if refusal.code != "safe-mode":  # asked for
                log.warning(
                    "a plugin is blocked", plugin=plugin, reason=refusal.reason, fix=refusal.fix
                )

    def _raise_if_required(
        self, report: StartReport, strict: bool, plugins: tuple[str, ...]
    ) -> None:
        for plugin in sorted(self.required):
            record = self._records.get(plugin)
            if record is None:
                raise PluginError(
                    f"plugin {plugin} is required and was not found",
                    hint=f"install {plugin}, or take it out of plugins.required",
                    plugin=plugin,
                )
            if record.state is not State.ACTIVE and (not plugins or plugin in plugins):
                raise PluginError(
                    f"plugin {plugin} is required and is {record.state.value}: "
                    + (record.refusal.reason if record.refusal else describe_error(record.error)),
                    hint=record.refusal.fix if record.refusal else None,
                    plugin=plugin,
                    refusal=record.refusal,
                ) from record.error
        if strict and report.blocked:
            refusal = next(iter(report.blocked.values()))
            raise PluginError(
                refusal.reason, hint=refusal.fix, plugin=refusal.plugin, refusal=refusal
            )

    # ---- stopping ------------------------------------------------------------------------------

    def stop(self, *plugins: str) -> dict[str, Leftovers]:
        """Stop plugins, and first what depends on them; none means all.

        Returns
        -------
        dict of str to Leftovers
            For every plugin that was stopped, in that order, what would not go away; anything that
            stays is also warned about.
        """
        return self._stop(plugins, error=None)

    def _stop(
        self, plugins: tuple[str, ...], *, error: BaseException | None
    ) -> dict[str, Leftovers]:
        for plugin in plugins:
            self._record(plugin)

        def choose() -> list[str]:
            # whatever is in transition in another thread is waited for: it may come up active
            wanted = set(plugins or self._records)
            return [
                plugin
                for plugin in self._dependants_first(wanted)
                if self._records[plugin].state is State.ACTIVE or plugin in self._claims
            ]

        report: dict[str, Leftovers] = {}
        with self._claim(choose) as order:
            stopped = []
            for plugin in order:
                record = self._records[plugin]
                if record.state is State.ACTIVE:
                    cause = error if plugin in plugins else None
                    report[plugin] = self._deactivate(record, cause)
                    stopped.append(record)
            for record in stopped:
                self._count_survivors(record, report)
        for plugin, leftovers in report.items():
            if leftovers:
                get_logger("plugins").warning(
                    "a plugin left something behind", plugin=plugin, left=leftovers
                )
        return report

    def _dependants_first(self, plugins: set[str]) -> list[str]:
        """Return `plugins` and all that need them, each before what it needs."""
        dependants: dict[str, list[str]] = {}
        for plugin, record in self._records.items():
            for other in record.manifest.requires:
                dependants.setdefault(other, []).append(plugin)
        reached = set(plugins)
        row = list(plugins)
        while row:
            plugin = row.pop()
            for other in dependants.get(plugin, ()):
                if other not in reached:
                    reached.add(other)
                    row.append(other)
        active = [plugin for plugin in reversed(self._active) if plugin in reached]
        return active + sorted(reached.difference(active))

    def _deactivate(self, record: Record, error: BaseException | None) -> Leftovers:
        plugin = record.manifest.id
        scope = record.scope
        assert scope is not None
        with self._lock:
            record.move(State.STOPPING)
            # Nobody finds it from here on, and what was found before is stale: then it goes.
            self._active = tuple(other for other in self._active if other != plugin)
            self._board.hooks.remove(plugin)
            self.registry.remove_owner(plugin)
        errors = []
        scope.stop_requested.set()
        interrupt: BaseException | None = None
        if scope.instance is not None:
            try:
                scope.instance.stop()
            except Exception as second:
                errors.append(f"stop: {describe_error(second)}")
            except BaseException as second:  # still take it down, then let the signal through
                interrupt = second
                errors.append(f"stop: {describe_error(second)}")
        leftovers = _close(scope, record)
        with self._lock:
            record.scope = None
            record.last_scope = scope
            record.error = error
            record.leftovers = Leftovers(
                leftovers.objects, leftovers.threads, (*errors, *leftovers.errors)
            )
            record.move(State.FAILED if error is not None else State.STOPPED)
            self._resolution = None
        if interrupt is not None:
            raise interrupt
        return record.leftovers

    def _count_survivors(self, record: Record, report: dict[str, Leftovers]) -> None:
        """After all are down, so that a dependant's reference is no longer counted."""
        scope, record.last_scope = record.last_scope, None
        if scope is None:
            return
        objects = scope.survivors()
        there = record.leftovers
        record.leftovers = Leftovers(objects, there.threads, there.errors)
        report[record.manifest.id] = record.leftovers

    def fail(self, plugin: str, error: BaseException) -> None:
        """Take down a plugin that has gone wrong, and what depends on it."""
        stopped = self._stop((plugin,), error=error)
        if plugin in stopped:
            get_logger("plugins").warning(
                "a plugin failed and was taken down",
                plugin=plugin,
                error=error,
                with_it=",".join(other for other in stopped if other != plugin) or "nothing",
            )

    def reload(self, plugin: str) -> StartReport:
        """Stop a plugin and its dependants and start them again as new instances.

        The modules stay as they are: CPython cannot load a compiled module twice, and objects that
        others hold keep the code they were made with. New code needs a new process.
        """
        stopped = self.stop(plugin)
        return self.start(plugin, *(other for other in stopped if other != plugin))

    def remove(self, plugin: str) -> dict[str, Leftovers]:
        """Stop a plugin and forget that it exists."""
        stopped = self.stop(plugin)
        with self._claim(lambda: [plugin] if plugin in self._records else []), self._lock:
            record = self._record(plugin)
            if record.state in LIVE:
                raise StateError(f"plugin {plugin} was started again meanwhile", plugin=plugin)
            del self._records[plugin]
            self._resolution = None
        return stopped

    def _hook_failed(self, plugin: str, name: str, error: Exception, last: bool) -> None:
        get_logger("plugins").warning("a hook failed", plugin=plugin, hook=name, error=error)
        if last:
            try:
                self.fail(plugin, error)
            except (StateError, PluginError) as second:  # on its way up or down, or gone already
                get_logger("plugins").warning(
                    "a plugin cannot be taken down now", plugin=plugin, error=second
                )

    def _thread_failed(self, plugin: str, generation: int, error: Exception) -> None:
        get_logger("plugins").warning("a plugin's thread failed", plugin=plugin, error=error)
        record = self._records.get(plugin)
        if record is None or record.generation != generation or plugin in self._claims:
            return  # whoever holds the claim decides what becomes of it
        try:
            self.fail(plugin, error)
        except (StateError, PluginError):
            pass

    def disable(self, plugin: str) -> dict[str, Leftovers]:
        """Stop a plugin and what depends on it, and do not let it run until it is enabled."""
        with self._lock:
            self._record(plugin)
            self._disabled.add(plugin)
            self._resolution = None
        stopped = self.stop(plugin)
        self.resolve()
        return stopped

    def handle(self, plugin: str) -> PluginHandle:
        """Return a handle to the running instance of a plugin.

        Raises
        ------
        PluginError
            It is not active, or it consists of a manifest only.
        """
        with self._lock:
            record = self._record(plugin)
            scope = record.scope
            if record.state is not State.ACTIVE or scope is None or scope.instance is None:
                raise PluginError(
                    f"plugin {plugin} is {record.state.value}",
                    plugin=plugin,
                    refusal=record.refusal,
                )
            return PluginHandle(scope)


def _close(scope: Scope, record: Record) -> Leftovers:
    # an object that the host handed over is the host's, and stays
    own_instance = record.candidate.instance is None
    return scope.close(package_of(record.candidate), own_instance=own_instance)


class _Loader:
    """Imports one entry of a plugin when it is first asked for."""

    __slots__ = ("candidate", "entry", "inside_root")

    def __init__(self, candidate: Candidate, entry: str, inside_root: bool) -> None:
        self.candidate = candidate
        self.entry = entry
        self.inside_root = inside_root

    def __call__(self) -> Any:
        return load_entry(self.candidate, self.entry, inside_root=self.inside_root)

"""The plugin manager against a model of dictionaries and sets, over thousands of random steps."""

import logging
import threading

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from plugin_samples import Recorder, manifest

from rustllm.errors import PluginError, StalePluginError
from rustllm.plugins import PluginManager, State

IDS = ["a", "b", "c", "d", "e"]
PLUGIN = st.sampled_from(IDS)


class Managed(Recorder):
    """Registers one of everything; fails where the model says so."""

    def setup(self, context):
        context.provide("thing", context.id, context.generation)
        context.provide("shared", "best", context.id, priority=IDS.index(context.id))
        context.on_hook("who", lambda: context.id)
        context.open_channel(context.id, int)
        context.start_thread(context.stopping.wait)
        super().setup(context)


class ManagerMachine(RuleBasedStateMachine):
    @initialize(requires=st.fixed_dictionaries({p: st.sets(PLUGIN, max_size=3) for p in IDS}))
    def build(self, requires):
        # only earlier letters, so that there is no cycle; the resolver has its own test
        self.requires = {p: {q for q in requires[p] if q < p} for p in IDS}
        self.threads = threading.active_count()
        self.manager = PluginManager(safe_mode=False)
        self.hook = self.manager.hook("who")
        self.plugins = {}
        self.active = set()
        self.failed = set()
        self.disabled = set()
        self.generation = dict.fromkeys(IDS, 0)
        self.handles = {}
        self.stale = []

    # ---- the model ----

    def closure(self, wanted):
        row = list(wanted)
        found = set(row)
        while row:
            for other in self.requires[row.pop()]:
                if other not in found:
                    found.add(other)
                    row.append(other)
        return found

    def dependants(self, plugin):
        return {p for p in self.plugins if plugin in self.closure({p})}

    def can_run(self, plugin):
        return all(
            p in self.plugins and p not in self.disabled and p not in self.failed
            for p in self.closure({plugin})
        )

    def model_start(self, wanted):
        started = set()
        for plugin in sorted(self.closure(p for p in wanted if self.can_run(p))):
            if plugin in self.active or not self.requires[plugin] <= self.active:
                continue
            self.generation[plugin] += 1
            if self.plugins[plugin].fail_in:
                self.failed.add(plugin)
            else:
                self.active.add(plugin)
                started.add(plugin)
        return started

    def model_stop(self, plugins):
        stopped = set().union(*(self.dependants(p) for p in plugins)) & self.active
        self.active -= stopped
        self.stale += [self.handles.pop(p) for p in sorted(stopped)]
        return stopped

    # ---- the rules ----

    @rule(plugin=PLUGIN)
    def add(self, plugin):
        thing = Managed(name=plugin)
        keys = {"requires": dict.fromkeys(self.requires[plugin], "")}
        if plugin in self.plugins:
            with pytest.raises(PluginError):
                self.manager.add(thing, manifest(plugin, **keys))
        else:
            self.manager.add(thing, manifest(plugin, **keys))
            self.plugins[plugin] = thing
            self.generation[plugin] = 0

    @rule(plugin=PLUGIN, step=st.sampled_from([(), (), ("setup",), ("start",), ("stop",)]))
    def change_its_ways(self, plugin, step):
        if plugin in self.plugins and plugin not in self.active:
            self.plugins[plugin].fail_in = tuple(s for s in step if s != "stop")

    @rule()
    def start_all(self):
        report = self.manager.start()
        expected = self.model_start(self.plugins)
        assert set(report.started) == expected

    @rule(plugin=PLUGIN)
    def start_one(self, plugin):
        if plugin not in self.plugins:
            with pytest.raises(PluginError):
                self.manager.start(plugin)
            return
        self.failed.discard(plugin)
        report = self.manager.start(plugin)
        assert set(report.started) == self.model_start({plugin})

    @rule(plugin=PLUGIN)
    def stop(self, plugin):
        if plugin not in self.plugins:
            with pytest.raises(PluginError):
                self.manager.stop(plugin)
            return
        left = self.manager.stop(plugin)
        assert set(left) == self.model_stop({plugin})
        assert not any(left.values())

    @rule(plugin=PLUGIN)
    def disable(self, plugin):
        if plugin in self.plugins:
            assert set(self.manager.disable(plugin)) == self.model_stop({plugin})
            self.disabled.add(plugin)

    @rule(plugin=PLUGIN)
    def enable(self, plugin):
        if plugin in self.plugins:
            self.manager.enable(plugin)
            self.disabled.discard(plugin)

    @rule(plugin=PLUGIN)
    def fail(self, plugin):
        if plugin in self.active:
            self.manager.fail(plugin, OSError("gone"))
            self.model_stop({plugin})
            self.failed.add(plugin)

    @rule(plugin=PLUGIN)
    def reload(self, plugin):
        if plugin in self.active:
            report = self.manager.reload(plugin)
            stopped = self.model_stop({plugin})
            assert set(report.started) == self.model_start(stopped)

    @rule(plugin=PLUGIN)
    def remove(self, plugin):
        if plugin in self.plugins:
            assert set(self.manager.remove(plugin)) == self.model_stop({plugin})
            del self.plugins[plugin]
            self.failed.discard(plugin)

    # ---- what always holds ----

    @invariant()
    def the_states_are_those_of_the_model(self):
        if not hasattr(self, "manager"):
            return
        infos = {info.id: info for info in self.manager.plugins()}
        assert set(infos) == set(self.plugins)
        for plugin, info in infos.items():
            assert (info.state is State.ACTIVE) == (plugin in self.active)
            assert info.generation == self.generation[plugin]
            if plugin in self.active:
                assert self.requires[plugin] <= self.active
                self.handles.setdefault(plugin, self.manager.handle(plugin))
            elif plugin in self.failed:
                assert info.state is State.FAILED
                assert info.error is not None
            elif plugin in self.disabled:
                assert info.state is State.DISABLED
            elif not self.can_run(plugin):
                assert info.state is State.BLOCKED
                assert info.refusal.reason
                assert info.refusal.fix

    @invariant()
    def what_is_registered_is_what_active_plugins_registered(self):
        if not hasattr(self, "manager"):
            return
        registry = self.manager.registry
        assert set(registry.names("thing")) == self.active
        for plugin in self.active:
            assert registry.get("thing", plugin) == self.generation[plugin]
        best = registry.find("shared", "best")
        assert (best.get() if best else None) == (max(self.active) if self.active else None)
        assert sorted(self.hook()) == sorted(self.active)
        assert set(self.manager.channels()) == self.active
        assert threading.active_count() == self.threads + len(self.active)

    @invariant()
    def old_handles_are_stale(self):
        for handle in getattr(self, "stale", ()):
            assert not handle.alive
            with pytest.raises(StalePluginError):
                _ = handle.instance

    def teardown(self):
        if hasattr(self, "manager"):
            self.manager.close()
            assert len(self.manager.registry) == 0
            assert threading.active_count() == self.threads


class TestManager(ManagerMachine.TestCase):
    def setUp(self):
        logging.getLogger("rustllm.plugins").setLevel(logging.CRITICAL)  # thousands of warnings
        super().setUp()

    def tearDown(self):
        super().tearDown()
        logging.getLogger("rustllm.plugins").setLevel(logging.NOTSET)


TestManager.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

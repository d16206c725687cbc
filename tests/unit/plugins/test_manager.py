"""The manager: lifecycle, isolation, release, claims."""

import gc
import logging
import sys
import threading
import time
import weakref

import pytest
from plugin_samples import Recorder, manifest, write_plugin

from rustllm.errors import (
    ManifestError,
    PluginError,
    StalePluginError,
    StateError,
    UnsupportedError,
)
from rustllm.plugins import PluginManager, State
from rustllm.plugins.lifecycle import MOVES, check_move

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def quiet(caplog):
    """Warnings are part of the behaviour; they are read from caplog where they matter."""
    caplog.set_level(logging.WARNING, "rustllm")


def warnings(caplog):
    return [record.getMessage() for record in caplog.records]


def make(log, *specs, **choices):
    """Build a manager from (id, manifest keys, Recorder keys)."""
    manager = PluginManager(safe_mode=False, **choices)
    for plugin, keys, behaviour in specs:
        manager.add(Recorder(log, name=plugin, **behaviour), manifest(plugin, **keys))
    return manager


def states(manager):
    return {info.id: info.state for info in manager.plugins()}


def test_plugins_start_in_order_and_stop_in_reverse():
    log = []
    manager = make(log, ("a", {"requires": {"b": ""}}, {}), ("b", {}, {}))
    assert manager.start().started == ("b", "a")
    assert log == [("b", "setup"), ("b", "start"), ("a", "setup"), ("a", "start")]
    log.clear()
    assert list(manager.close()) == ["a", "b"]
    assert log == [("a", "stop"), ("b", "stop")]
    assert set(states(manager).values()) == {State.STOPPED}


@pytest.mark.parametrize("step", ["setup", "start"])
def test_a_failing_plugin_takes_down_only_itself_and_its_dependants_loudly(step, caplog):
    log = []
    manager = make(
        log,
        ("bad", {}, {"fail_in": (step,), "setup": lambda c: c.provide("k", "bad", 1)}),
        ("dependant", {"requires": {"bad": ""}}, {}),
        ("further", {"requires": {"dependant": ""}}, {}),
        ("optional", {"optional": {"bad": ""}}, {}),
        ("good", {}, {"setup": lambda c: c.provide("k", "good", 1)}),
    )
    report = manager.start()
    assert report.started == ("good", "optional")
    assert isinstance(report.failed["bad"], ValueError)
    assert set(report.blocked) == {"dependant", "further"}
    assert report.blocked["further"].blocked_by == "bad"
    assert manager.registry.names("k") == ("good",)
    assert states(manager) == {
        "bad": State.FAILED,
        "dependant": State.BLOCKED,
        "further": State.BLOCKED,
        "optional": State.ACTIVE,
        "good": State.ACTIVE,
    }
    text = "\n".join(warnings(caplog))
    assert "plugin=bad" in text
    assert f"ValueError: {step} of bad" in text
    assert "plugin=dependant" in text
    # stop() is called after a start() that failed half-way, and not otherwise
    assert (("bad", "stop") in log) == (step == "start")


def test_a_failed_plugin_is_tried_again_only_when_it_is_named():
    plugin = Recorder(fail_in=("setup",), name="p")
    manager = PluginManager(safe_mode=False)
    manager.add(plugin, manifest("p"))
    assert "p" in manager.start().failed
    plugin.fail_in = ()
    assert manager.start().blocked["p"].code == "failed"
    assert manager.start("p").started == ("p",)
    assert manager.handle("p").generation == 2


def test_strict_raises_and_required_raises():
    specs = [("bad", {}, {"fail_in": ("setup",)}), ("good", {}, {})]
    with pytest.raises(PluginError, match="setup of bad") as caught:
        make([], *specs).start(strict=True)
    assert isinstance(caught.value.__cause__, ValueError)
    manager = make([], *specs, required=["bad"])
    with pytest.raises(PluginError, match="required and is failed"):
        manager.start()
    assert manager.state("good") is State.ACTIVE
    with pytest.raises(PluginError, match="was not found"):
        make([], *specs, required=["none"]).start()
    blocked = make([], ("a", {"requires": {"x": ""}}, {}), strict=True)
    with pytest.raises(PluginError, match="needs x"):
        blocked.start()


def test_what_is_registered_is_seen_only_when_the_plugin_is_up():
    seen = []

    def look(context):
        context.provide("k", "x", 1)
        context.on_hook("h", lambda: 1)
        seen.append((manager.registry.find("k", "x"), manager.hook("h")()))

    manager = make([], ("a", {}, {"setup": look}))
    manager.start()
    assert seen == [(None, [])]
    assert manager.registry.get("k", "x") == 1
    assert manager.hook("h")() == [1]


def test_a_clash_fails_the_second_plugin_and_leaves_the_first():
    offer = {"setup": lambda c: (c.provide("k", "x", c.id), c.provide("k", c.id, c.id))}
    manager = make([], ("a", {}, offer), ("b", {}, offer))
    report = manager.start()
    assert report.started == ("a",)
    assert "'x' is offered by a and by b" in str(report.failed["b"])
    assert manager.registry.names("k") == ("a", "x")


def test_stopping_releases_everything_and_makes_handles_stale():
    closed = []

    def setup(context):
        context.provide("k", "x", object())
        context.on_hook("h", lambda: 1)
        channel = context.open_channel("c", int)
        channel.subscribe()
        context.start_thread(context.stopping.wait)
        context.on_stop(lambda: closed.append(1))
        context.on_stop(lambda: closed.append(2))

    manager = make([], ("a", {}, {"setup": setup}))
    manager.start()
    provider, hook, handle = manager.registry.find("k", "x"), manager.hook("h"), manager.handle("a")
    context, channel = handle.instance.context, manager.channel("c")
    n_threads = threading.active_count()
    assert not manager.stop("a")["a"]
    assert closed == [2, 1]
    assert threading.active_count() == n_threads - 1
    assert channel.closed
    assert (len(manager.registry), hook(), manager.channels()) == (0, [], {})
    for use in (
        provider.get,
        lambda: handle.instance,
        lambda: context.start_thread(print),
        lambda: context.on_stop(print),
        lambda: context.open_channel("d"),
    ):
        with pytest.raises(StalePluginError):
            use()
    for use in (
        lambda: context.provide("k", "y", 1),
        lambda: context.on_hook("h", print),
        lambda: manager.channel("c"),
        lambda: manager.channel("d"),
        lambda: manager.handle("a"),
    ):
        with pytest.raises(PluginError):
            use()
    assert not handle.alive


def test_the_census_names_what_stays(caplog):
    class Big:
        pass

    kept, release = [], threading.Event()

    def setup(context):
        kept.append(context.track(Big(), "the big table"))
        context.track(Big(), "a table that goes")
        context.start_thread(release.wait, name="deaf")
        context.on_stop(lambda: 1 // 0)

    manager = make([], ("a", {}, {"setup": setup, "fail_in": ("stop",)}))
    manager.start()
    from rustllm.plugins import scope

    seconds, scope._JOIN_SECONDS = scope._JOIN_SECONDS, 0.05
    try:
        left = manager.stop("a")["a"]
    finally:
        scope._JOIN_SECONDS = seconds
        release.set()
    assert left.objects == ("the big table",)
    assert left.threads == ("deaf",)
    assert any("ZeroDivisionError" in error for error in left.errors)
    assert any("stop of a" in error for error in left.errors)
    assert manager.state("a") is State.STOPPED
    assert any("left something behind" in text for text in warnings(caplog))


def test_a_plugin_object_that_somebody_keeps_is_left_over_and_otherwise_gone(tmp_path):
    code = "from plugin_samples import Recorder\nclass P(Recorder): pass\n"
    folder = write_plugin(tmp_path / "p", "p", code, extra='plugin = "code:P"\n')
    manager = PluginManager(safe_mode=False)
    manager.discover(installed=False, folders=[folder])
    manager.start()
    alive = weakref.ref(manager.handle("p").instance)
    assert not manager.stop("p")["p"]
    gc.collect()
    assert alive() is None
    manager.start("p")
    kept = manager.handle("p").instance
    assert manager.stop("p")["p"].objects == ("the plugin object, a P",)
    del kept


def test_a_reload_is_a_new_instance_and_dependants_come_back():
    log = []
    manager = make(log, ("a", {}, {}), ("b", {"requires": {"a": ""}}, {}))
    manager.start()
    old = manager.handle("a")
    log.clear()
    assert manager.reload("a").started == ("a", "b")
    assert [step for step in log if step[1] != "setup"] == [
        ("b", "stop"),
        ("a", "stop"),
        ("a", "start"),
        ("b", "start"),
    ]
    assert manager.handle("a").generation == old.generation + 1
    with pytest.raises(StalePluginError):
        _ = old.instance


def test_a_dependant_reaches_what_it_names_and_nothing_else():
    got = []

    def setup(context):
        got.append(context.require("a").instance)
        with pytest.raises(PluginError, match="does not say"):
            context.require("c")

    manager = make(
        [], ("a", {}, {}), ("b", {"requires": {"a": ""}}, {"setup": setup}), ("c", {}, {})
    )
    assert not manager.start().failed
    assert got[0].name == "a"


def test_disabled_plugins_and_their_dependants_stay_down_until_enabled():
    manager = make([], ("a", {}, {}), ("b", {"requires": {"a": ""}}, {}), disabled=["a"])
    report = manager.start()
    assert (report.started, set(report.blocked)) == ((), {"b"})
    assert manager.state("a") is State.DISABLED
    manager.enable("a")
    assert manager.start().started == ("a", "b")
    assert list(manager.disable("a")) == ["b", "a"]
    assert states(manager) == {"a": State.DISABLED, "b": State.BLOCKED}


def test_starting_one_starts_what_it_needs_and_no_more():
    manager = make([], ("a", {"requires": {"b": ""}}, {}), ("b", {}, {}), ("c", {}, {}))
    assert manager.start("a").started == ("b", "a")
    assert manager.state("c") is State.RESOLVED
    with pytest.raises(PluginError, match="did you mean"):
        manager.start("aa")


def test_settings_reach_the_plugin():
    seen = []
    manager = make(
        [], ("a", {}, {"setup": lambda c: seen.append(dict(c.settings))}), settings={"a": {"n": 3}}
    )
    manager.start()
    assert seen == [{"n": 3}]


def test_a_hook_that_keeps_failing_takes_its_plugin_down(caplog):
    manager = make(
        [],
        ("bad", {}, {"setup": lambda c: c.on_hook("h", lambda: 1 // 0)}),
        ("with", {"requires": {"bad": ""}}, {}),
        ("good", {}, {"setup": lambda c: c.on_hook("h", lambda: "ok")}),
    )
    manager.start()
    hook = manager.hook("h")
    for _ in range(2):
        assert hook() == ["ok"]
    assert manager.state("bad") is State.ACTIVE
    assert hook() == ["ok"]
    assert states(manager) == {"bad": State.FAILED, "good": State.ACTIVE, "with": State.BLOCKED}
    assert [owner for owner, _ in hook.implementations] == ["good"]
    assert any("taken down" in text for text in warnings(caplog))
    # Each failure is told of, not the last one alone.
    assert sum(text.startswith("a hook failed") for text in warnings(caplog)) == 3


def test_a_thread_that_fails_takes_its_plugin_down():
    def setup(context):
        def run():
            while context._scope.instance is None or not context._scope.transaction.over:
                time.sleep(0.001)
            time.sleep(0.02)
            raise OSError("lost")

        context.start_thread(run)

    manager = make([], ("a", {}, {"setup": setup}))
    manager.start()
    deadline = time.monotonic() + 20
    while manager.state("a") is not State.FAILED and time.monotonic() < deadline:
        time.sleep(0.005)
    (info,) = manager.plugins()
    assert isinstance(info.error, OSError)


def test_a_hook_definition_is_checked_at_setup():
    manager = make([], ("a", {}, {"setup": lambda c: c.on_hook("h", lambda: None)}))
    manager.define_hook("h", lambda text: None)
    assert "hook h" in str(manager.start().failed["a"])


def test_safe_mode_runs_nothing_but_what_is_built_in(monkeypatch):
    monkeypatch.setenv("RUSTLLM_SAFE_MODE", "1")
    manager = PluginManager()
    manager.add(Recorder(), manifest("a"))
    assert manager.safe_mode
    assert manager.start().blocked["a"].code == "safe-mode"
    with pytest.raises(PluginError, match="safe mode"):
        manager.start("a", strict=True)
    monkeypatch.setenv("RUSTLLM_SAFE_MODE", "0")
    assert not PluginManager().safe_mode


def test_a_name_starts_the_plugin_that_offers_it(tmp_path):
    code = "def load(): return 'loaded'\n"
    provides = '[[provides]]\nkind = "t"\nname = "x"\nentry = "code:load"\n'
    folder = write_plugin(tmp_path / "p", "p", code, extra=provides)
    manager = PluginManager(safe_mode=False)
    manager.discover(installed=False, folders=[folder])
    assert manager.announced("t") == ("x",)
    assert manager.state("p") is State.DISCOVERED
    assert manager.get("t", "x")() == "loaded"
    assert manager.state("p") is State.ACTIVE
    manager.stop("p")
    with pytest.raises(PluginError, match="has been stopped"):
        manager.get("t", "x")
    manager.disable("p")
    with pytest.raises(PluginError, match="cannot run: p 1.0 is disabled"):
        manager.get("t", "x")
    with pytest.raises(UnsupportedError, match="no t 'y'"):
        manager.get("t", "y")


def test_an_entry_that_is_not_there_is_a_typed_error_for_that_name_only(tmp_path):
    provides = "".join(
        f'[[provides]]\nkind = "t"\nname = "{name}"\nentry = "{entry}"\n'
        for name, entry in (("a", "code:none"), ("b", "nomodule:x"), ("c", "code:fine"))
    )
    folder = write_plugin(tmp_path / "p", "p2", "fine = 1\n", extra=provides)
    manager = PluginManager(safe_mode=False)
    manager.discover(installed=False, folders=[folder])
    manager.start()
    for name in "ab":
        with pytest.raises(PluginError, match="cannot be loaded"):
            manager.get("t", name)
    assert manager.get("t", "c") == 1


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ImportError('no libfoo')", "no libfoo"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("def P(): raise RuntimeError('made wrong')", "made wrong"),
        ("class P: pass", "has no method setup"),
        ("P = 5", "not callable"),
        ("", "has no P"),
        ("def def", "SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_made_is_a_failed_plugin(tmp_path, code, says):
    folder = write_plugin(tmp_path / "p", "p3", code or "#", extra='plugin = "code:P"\n')
    manager = PluginManager(safe_mode=False)
    manager.add(Recorder(), manifest("fine"))
    manager.discover(installed=False, folders=[folder])
    report = manager.start()
    assert report.started == ("fine",)
    assert says in str(report)
    assert manager.state("p3") is State.FAILED
    for name in [name for name in sys.modules if name.startswith("rustllm_plugin_p3")]:
        del sys.modules[name]


def test_an_interrupt_goes_through_and_leaves_the_manager_whole():
    def interrupt(context):
        raise KeyboardInterrupt

    manager = make([], ("a", {}, {"setup": interrupt}), ("b", {}, {}))
    with pytest.raises(KeyboardInterrupt):
        manager.start()
    assert manager.state("a") is State.FAILED
    assert manager.start().started == ("b",)


def test_objects_without_what_is_needed_are_refused():
    manager = PluginManager(safe_mode=False)
    with pytest.raises(PluginError, match="no manifest"):
        manager.add(Recorder())
    with pytest.raises(PluginError, match="no method setup"):
        manager.add(object(), manifest("a"))
    with pytest.raises(ManifestError):
        manager.add(Recorder(), {"api": "1"})
    manager.add(Recorder(), manifest("a"))
    with pytest.raises(PluginError, match="already"):
        manager.add(Recorder(), manifest("a"))


def test_a_removed_plugin_is_forgotten():
    manager = make([], ("a", {}, {}))
    manager.start()
    manager.remove("a")
    with pytest.raises(PluginError, match="no plugin 'a'"):
        manager.state("a")
    manager.add(Recorder(), manifest("a", "2.0"))
    assert manager.start().started == ("a",)


def test_of_two_versions_the_higher_runs_and_the_other_is_noted(tmp_path):
    for version in ("1.2", "1.10", "1.9"):
        write_plugin(tmp_path / version, "p", version=version)
    manager = PluginManager(safe_mode=False)
    manager.discover(installed=False, folders=[tmp_path])
    (info,) = manager.plugins()
    assert info.version == "1.10"
    assert len(manager.shadowed) == 2
    assert all("is hidden by 1.10" in note for note in manager.shadowed)
    assert manager.discover(installed=False, folders=[tmp_path]) == ()


def test_a_higher_version_found_later_is_resolved_anew(tmp_path):
    write_plugin(tmp_path / "one", "p", version="1.2")
    manager = PluginManager(safe_mode=False)
    manager.discover(installed=False, folders=[tmp_path / "one"])
    assert manager.resolve().order == ("p",)
    write_plugin(tmp_path / "two", "p", version="1.3", extra='requires = { absent = "" }')
    manager.discover(installed=False, folders=[tmp_path / "two"])
    assert manager.resolve().order == ()


def test_what_cannot_be_read_is_reported_and_does_not_hide_the_rest(tmp_path, caplog):
    write_plugin(tmp_path / "good", "good")
    (write_plugin(tmp_path / "bad", "bad") / "rustllm-plugin.toml").write_text("api = 3")
    manager = PluginManager(safe_mode=False)
    assert manager.discover(installed=False, folders=[tmp_path, tmp_path / "none"]) == ("good",)
    assert len(manager.problems) == 2
    assert "bad" in str(manager.problems[0])
    assert len(warnings(caplog)) == 2
    with pytest.raises(ManifestError):
        PluginManager(safe_mode=False, strict=True).discover(installed=False, folders=[tmp_path])


def test_every_move_that_is_not_in_the_table_is_refused():
    for old in State:
        for new in State:
            if new in MOVES[old]:
                check_move("p", old, new)
            else:
                with pytest.raises(StateError):
                    check_move("p", old, new)
    reachable, row = {State.DISCOVERED}, [State.DISCOVERED]
    while row:
        row = [new for old in row for new in MOVES[old] if new not in reachable]
        reachable.update(row)
    assert reachable == set(State)


def test_a_plugin_may_start_another_from_its_setup():
    manager = make([], ("a", {}, {"setup": lambda c: manager.start("b")}), ("b", {}, {}))
    assert manager.start("a").started == ("a",)
    assert manager.state("b") is State.ACTIVE


def test_a_plugin_on_its_way_never_waits_for_another_thread():
    """Two plugins that start each other from their setup, in two threads: one is told no."""
    barrier, seen = threading.Barrier(2), set()

    def cross(other):
        def setup(context):
            if context.id not in seen:
                seen.add(context.id)
                barrier.wait(20)
                manager.start(other)

        return {"setup": setup}

    manager = make([], ("a", {}, cross("b")), ("b", {}, cross("a")))
    reports = []
    threads = [
        threading.Thread(target=lambda p=p: reports.append(manager.start(p))) for p in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    errors = [error for report in reports for error in report.failed.values()]
    assert 1 <= len(errors) <= 2
    assert all(isinstance(error, StateError) for error in errors)
    assert all(info.state in (State.ACTIVE, State.FAILED) for info in manager.plugins())


def test_eight_threads_that_start_and_stop_end_and_leave_a_consistent_manager():
    def offer(context):
        context.provide("k", context.id, 1)
        context.on_hook("h", lambda: context.id)
        context.open_channel(context.id, int)

    manager = make(
        [],
        ("a", {}, {"setup": offer}),
        ("b", {"requires": {"a": ""}}, {"setup": offer}),
        ("c", {"requires": {"b": ""}}, {"setup": offer}),
        ("d", {"requires": {"a": ""}}, {"setup": offer}),
        ("e", {}, {"setup": offer}),
    )
    wrong = []
    barrier = threading.Barrier(8)

    def work(number):
        barrier.wait()
        for i in range(25):
            plugin = "abcde"[(number + i) % 5]
            try:
                if (number + i) % 3:
                    manager.start(plugin)
                elif i % 7 == 6:
                    manager.reload(plugin)
                else:
                    manager.stop(plugin)
                manager.hook("h")()
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    active = {info.id for info in manager.plugins() if info.state is State.ACTIVE}
    assert active == set(manager.registry.names("k")) == set(manager.hook("h")())
    assert active == set(manager.channels())
    for info in manager.plugins():
        if info.id in active:
            assert set(info.requires) <= active
    manager.close()
    assert len(manager.registry) == 0

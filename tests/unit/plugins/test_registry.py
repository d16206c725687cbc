"""The registry: transactions, snapshots, priorities."""

import sys
import threading

import pytest

from rustllm.errors import ArgumentError, PluginError, StalePluginError, UnsupportedError
from rustllm.plugins.registry import Provider, Registry


def fill(registry, owner, *names, kind="k", **keys):
    with registry.transaction(owner) as stage:
        return [stage.add(kind, name, f"{owner}:{name}", **keys) for name in names]


def test_nothing_is_seen_before_the_commit_and_everything_after_it():
    registry = Registry()
    with registry.transaction("a") as stage:
        stage.add("k", "x", 1)
        assert registry.find("k", "x") is None
        stage.add("k", "y", None)
    assert registry.get("k", "x") == 1
    assert registry.get("k", "y") is None
    assert (registry.names("k"), registry.kinds(), registry.generation) == (("x", "y"), ("k",), 1)


def test_an_exception_in_the_block_adds_nothing():
    registry = Registry()
    with pytest.raises(ZeroDivisionError), registry.transaction("a") as stage:
        stage.add("k", "x", 1)
        raise ZeroDivisionError
    assert len(registry) == 0
    with pytest.raises(PluginError):
        stage.add("k", "y", 1)


def test_a_clash_adds_nothing_at_all():
    registry = Registry()
    fill(registry, "a", "x")
    with pytest.raises(PluginError, match="'x' is offered by a and by b"):
        fill(registry, "b", "new", "x")
    assert registry.find("k", "new") is None
    with pytest.raises(PluginError):
        fill(registry, "c", "twice", "twice")


def test_the_highest_priority_wins_and_the_next_takes_over():
    registry = Registry()
    fill(registry, "low", "x", priority=-1)
    fill(registry, "mid", "x")
    fill(registry, "high", "x", priority=7)
    assert registry.get("k", "x") == "high:x"
    assert [p.owner for p in registry.all("k", "x")] == ["high", "mid", "low"]
    registry.remove_owner("high")
    assert registry.get("k", "x") == "mid:x"


def test_what_a_stopped_owner_offered_is_stale():
    registry = Registry()
    (provider,) = fill(registry, "a", "x")
    with registry.transaction("a") as stage:
        lazy = stage.add("k", "lazy", load=lambda: 5)
    assert (provider.get(), lazy.get()) == ("a:x", 5)
    assert len(registry.remove_owner("a")) == 2
    for handle in (provider, lazy):
        with pytest.raises(StalePluginError):
            handle.get()
    assert registry.remove_owner("a") == ()


def test_loading_is_done_once_and_its_failure_is_told_every_time():
    calls = []

    def load():
        calls.append(1)
        if len(calls) == 1:
            raise OSError("not yet")
        return "there"

    registry = Registry()
    with registry.transaction("a") as stage:
        stage.add("k", "x", load=load)
    with pytest.raises(PluginError, match="OSError: not yet") as caught:
        registry.get("k", "x")
    assert isinstance(caught.value.__cause__, OSError)
    assert [registry.get("k", "x") for _ in range(3)] == ["there"] * 3
    assert len(calls) == 2


def test_a_kind_can_check_what_is_offered():
    registry = Registry()
    registry.define_kind("f", lambda value: None if callable(value) else "cannot be called")
    with pytest.raises(PluginError, match="cannot be called"), registry.transaction("a") as stage:
        stage.add("f", "x", 1)
    with registry.transaction("a") as stage:
        stage.add("f", "lazy", load=lambda: 1)
    with pytest.raises(PluginError, match="cannot be called"):
        registry.get("f", "lazy")


def test_an_unknown_name_is_told_what_there_is():
    registry = Registry()
    fill(registry, "a", "x", "y")
    with pytest.raises(UnsupportedError, match="known: x, y") as caught:
        registry.get("k", "z")
    assert caught.value.name == "z"
    with pytest.raises(UnsupportedError, match="known: none"):
        registry.get("other", "z")


def test_bad_arguments_are_typed_errors():
    with pytest.raises(ArgumentError):
        Provider("k", "x", "a")
    with pytest.raises(ArgumentError):
        Provider("k", "x", "a", value=1, load=int)
    with pytest.raises(ArgumentError), Registry().transaction("a") as stage:
        stage.add("", "x", 1)


def test_readers_see_whole_snapshots_while_eight_threads_write():
    registry = Registry()
    halves: list[tuple[str, ...]] = []
    done = threading.Event()
    barrier = threading.Barrier(9)

    def read():
        barrier.wait()
        while not done.is_set():
            names = registry.names("pair")
            # every owner adds and removes its two names together
            if len(names) % 2:
                halves.append(names)

    def write(owner):
        barrier.wait()
        for _ in range(60):
            fill(registry, owner, f"{owner}1", f"{owner}2", kind="pair")
            registry.remove_owner(owner)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(f"w{i}",)) for i in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in (reader, *writers):
            thread.start()
        for thread in writers:
            thread.join(60)
        done.set()
        reader.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not halves
    assert len(registry) == 0
    assert registry.generation == 8 * 60 * 2

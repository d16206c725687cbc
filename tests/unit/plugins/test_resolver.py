"""The resolver: order, and reasons."""

import random

from hypothesis import given
from hypothesis import strategies as st

from rustllm.plugins.manifest import parse_manifest
from rustllm.plugins.resolver import Refusal, resolve
from rustllm.version import Version

HOST = {"rustllm": Version("0.1"), "python": Version("3.11")}


def manifest(plugin, version="1.0", **keys):
    return parse_manifest({"api": "1", "id": plugin, "version": version, **keys})


def run(*manifests, **kwargs):
    return resolve({m.id: m for m in manifests}, host=HOST, **kwargs)


def test_what_is_needed_comes_first_and_ties_go_by_id():
    found = run(
        manifest("c"),
        manifest("a", requires={"z": ""}),
        manifest("z"),
        manifest("b", after=["c"]),
        manifest("y", before=["c"]),
    )
    assert found.order == ("y", "c", "b", "z", "a")
    assert found.depends["a"] == ("z",)


def test_a_version_that_does_not_fit_says_who_wanted_what_and_what_was_found():
    found = run(
        manifest("rag", "2.0", requires={"embed": ">=3,<4"}),
        manifest("embed", "2.9.1"),
        places={"embed": "site-packages/embed"},
    )
    refusal = found.refusals["rag"]
    assert found.order == ("embed",)
    assert refusal.code == "version"
    assert refusal.reason == "rag 2.0 needs embed >=3,<4; found 2.9.1 (site-packages/embed)"
    assert "install embed >=3,<4" in refusal.fix


def test_the_host_is_required_like_a_plugin():
    found = run(
        manifest("a", requires={"rustllm": ">=1"}),
        manifest("b", requires={"rustllm": ">=0.1", "python": ">=3.11"}),
        manifest("c", conflicts={"rustllm": "<1"}),
    )
    assert found.order == ("b",)
    assert found.refusals["a"].reason == "a 1.0 needs rustllm >=1; found 0.1"
    assert found.refusals["c"].code == "conflict"


def test_a_missing_plugin_is_named_and_its_dependants_point_at_the_root():
    found = run(
        manifest("a", requires={"b": ""}),
        manifest("b", requires={"c": ""}),
        manifest("c", requires={"none": ">=2"}),
        manifest("free"),
    )
    assert found.order == ("free",)
    assert found.refusals["c"].code == "missing"
    assert found.refusals["b"].blocked_by == "c"
    assert found.refusals["a"].blocked_by == "c"
    assert found.refusals["a"].fix == found.refusals["c"].fix


def test_an_optional_plugin_of_the_wrong_version_is_noted_and_done_without():
    found = run(manifest("a", optional={"b": ">=2", "none": ""}), manifest("b"))
    assert found.order == ("a", "b")
    assert found.notes == ("a 1.0 could use b >=2; found 1.0, so it does without",)
    assert run(manifest("a", optional={"b": ""}), manifest("b")).order == ("b", "a")


def test_a_cycle_is_printed_as_a_path_with_its_causes():
    found = run(
        manifest("a", requires={"b": ""}),
        manifest("b", before=["x"], after=["c"]),
        manifest("c", optional={"a": ""}),
        manifest("d", requires={"a": ""}),
        manifest("x"),
    )
    assert found.order == ("x",)
    assert "a -> b -> c -> a is a cycle" in found.refusals["b"].reason
    assert "(a requires b; b says after c; c optionally uses a)" in found.refusals["a"].reason
    assert found.refusals["d"].code == "dependency"


def test_of_two_that_exclude_each_other_neither_is_guessed():
    found = run(manifest("a", conflicts={"b": ""}), manifest("b", conflicts={"a": "<2"}))
    assert found.order == ()
    only = run(manifest("a", conflicts={"b": ">=2"}), manifest("b"))
    assert only.order == ("a", "b")
    one = run(manifest("a", conflicts={"b": ""}), manifest("b"))
    assert one.order == ("b",)
    assert one.refusals["a"].reason == "a 1.0 cannot run beside b; found 1.0"


def test_a_conflict_with_one_that_cannot_run_anyway_does_not_count():
    found = run(manifest("a", conflicts={"b": ""}), manifest("b", requires={"none": ""}))
    assert found.order == ("a",)


def test_another_api_is_refused():
    new = parse_manifest({"api": "2", "id": "a", "version": "1"})
    assert run(new).refusals["a"].code == "api"


def test_what_runs_already_stays_and_newcomers_give_way():
    old = manifest("old", conflicts={"new": ""})
    assert run(old, manifest("new"), live={"old"}).order == ("old",)
    found = run(manifest("a", after=["b"]), manifest("b", after=["a"]), live={"a"})
    assert found.order == ("a", "b")


def test_refusals_from_outside_spread():
    outside = Refusal("b", "disabled", "b is disabled", "enable it")
    found = run(manifest("a", requires={"b": ""}), manifest("b"), refused={"b": outside})
    assert found.refusals["a"].blocked_by == "b"
    assert "b is disabled" in found.refusals["a"].reason


def test_ten_thousand_plugins_in_a_chain_or_a_ring_resolve():
    n = 10_000
    chain = [manifest(f"p{i:05}", requires={f"p{i + 1:05}": ""}) for i in range(n)]
    found = run(*chain, manifest(f"p{n:05}"))
    assert found.order == tuple(f"p{i:05}" for i in range(n, -1, -1))
    ring = [manifest(f"p{i:05}", requires={f"p{(i + 1) % n:05}": ""}) for i in range(n)]
    assert len(run(*ring).refusals) == n
    assert len(run(*chain).refusals) == n


IDS = [f"p{i}" for i in range(7)]
NAMES = st.lists(st.sampled_from(IDS), max_size=2)
RANGES = st.dictionaries(st.sampled_from(IDS), st.sampled_from(["", ">=2", "<2"]), max_size=2)


@st.composite
def worlds(draw):
    found = []
    for plugin in draw(st.sets(st.sampled_from(IDS))):
        keys = {
            "requires": draw(RANGES),
            "optional": draw(RANGES),
            "conflicts": draw(st.one_of(st.just({}), RANGES)),
            "before": draw(NAMES),
            "after": draw(NAMES),
        }
        for value in keys.values():
            if isinstance(value, dict):
                value.pop(plugin, None)
            else:
                value[:] = [name for name in value if name != plugin]
        found.append(manifest(plugin, draw(st.sampled_from(["1.0", "2.0"])), **keys))
    return found


@given(worlds(), st.integers())
def test_the_order_is_sound_complete_and_stable(world, seed):
    found = run(*world)
    by_id = {m.id: m for m in world}
    place = {plugin: index for index, plugin in enumerate(found.order)}
    # complete: every plugin is in the order or refused, never both
    assert set(found.order) | set(found.refusals) == set(by_id)
    assert not set(found.order) & set(found.refusals)
    for plugin in found.order:
        me = by_id[plugin]
        for other, versions in me.requires.items():
            assert place[other] < place[plugin]
            assert by_id[other].version in versions
        for other in me.after:
            assert place.get(other, -1) < place[plugin]
        for other in me.before:
            assert place.get(other, len(place)) > place[plugin]
        for other, versions in me.optional.items():
            if other in place and by_id[other].version in versions:
                assert place[other] < place[plugin]
        for other, versions in me.conflicts.items():
            assert other not in place or by_id[other].version not in versions
    for refusal in found.refusals.values():
        assert refusal.reason
        assert refusal.fix
        # the chain of causes ends at a plugin that is itself refused for a reason of its own
        root = refusal.blocked_by
        assert root is None or found.refusals[root].blocked_by is None
    shuffled = world[:]
    random.Random(seed).shuffle(shuffled)
    assert run(*shuffled) == found


@given(worlds())
def test_a_plugin_that_needs_nothing_wrong_is_never_refused(world):
    """Refused only for an api, a need, a conflict, a cycle, or one of those of what it needs."""
    found = run(*world)
    by_id = {m.id: m for m in world}
    for plugin, refusal in found.refusals.items():
        me = by_id[plugin]
        if refusal.code == "missing":
            assert any(other not in by_id for other in me.requires)
        elif refusal.code == "version":
            assert any(
                other in by_id and by_id[other].version not in versions
                for other, versions in me.requires.items()
            )
        elif refusal.code == "dependency":
            assert any(other in found.refusals for other in me.requires)
        elif refusal.code == "conflict":
            assert any(
                other in by_id and by_id[other].version in versions
                for other, versions in me.conflicts.items()
            )
        else:
            assert refusal.code == "cycle"
            path = refusal.reason.partition(" is a cycle")[0].split(" -> ")
            assert len(path) > 2
            assert path[0] == path[-1]
            for first, second in zip(path, path[1:]):
                mine, theirs = by_id[first], by_id[second]
                assert (
                    second in mine.requires
                    or second in mine.after
                    or second in mine.optional
                    or first in theirs.before
                )

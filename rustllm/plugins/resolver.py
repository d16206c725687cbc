"""Which plugins can run, in which order, and for every other one the reason why not.

Pure logic over manifests: nothing is imported, no file is read, the same input gives the same
answer whatever order it comes in. O((V + E) log V) for V plugins with E references between them.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from rustllm.plugins.manifest import API, Manifest
from rustllm.version import Version

__all__ = ["Refusal", "Resolution", "resolve"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a plugin cannot run.

    Attributes
    ----------
    plugin : str
    code : str
        ``"api"``, ``"missing"``, ``"version"``, ``"conflict"``, ``"cycle"``, ``"dependency"``,
        ``"disabled"``, ``"trust"``, ``"safe-mode"`` or ``"failed"``.
    reason : str
        Who wanted what, and what was found.
    fix : str
        What the reader can do.
    blocked_by : str or None
        The plugin whose own trouble this is.
    """

    plugin: str
    code: str
    reason: str
    fix: str
    blocked_by: str | None = None

    def __str__(self) -> str:
        return f"{self.plugin}: {self.reason}\n  fix: {self.fix}"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What :func:`resolve` found.

    Attributes
    ----------
    order : tuple of str
        Ids of plugins that can run, each behind everything it needs.
    refusals : mapping of str to Refusal
    depends : mapping of str to tuple of str
        For each plugin in `order`, the plugins that it cannot do without.
    notes : tuple of str
        Facts that block nothing, such as an optional plugin of the wrong version.
    """

    order: tuple[str, ...]
    refusals: Mapping[str, Refusal]
    depends: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Work:
    manifests: Mapping[str, Manifest]
    host: Mapping[str, Version]
    places: Mapping[str, str]
    refusals: dict[str, Refusal]
    live: Collection[str] = ()
    notes: list[str] = field(default_factory=list)

    def found(self, name: str) -> str:
        place = self.places.get(name)
        version = self.host.get(name) or self.manifests[name].version
        return f"{version} ({place})" if place else str(version)

    def standing(self, name: str) -> bool:
        return name in self.manifests and name not in self.refusals


def resolve(
    manifests: Mapping[str, Manifest],
    *,
    host: Mapping[str, Version],
    refused: Mapping[str, Refusal] | None = None,
    places: Mapping[str, str] | None = None,
    live: Collection[str] = (),
) -> Resolution:
    """Resolve a set of plugins.

    Parameters
    ----------
    manifests : mapping of str to Manifest
        By id, one version of each.
    host : mapping of str to Version
        What is there that is no plugin: ``"rustllm"`` and ``"python"``.
    refused : mapping of str to Refusal, optional
        Plugins that may not run for reasons outside their manifests.
    places : mapping of str to str, optional
        Where each plugin was found, for the messages.
    live : collection of str, optional
        Plugins that run already. They stay; what cannot run beside them is refused.

    Returns
    -------
    Resolution
    """
    work = _Work(manifests, host, places or {}, dict(sorted((refused or {}).items())), live)
    for name in sorted(manifests):
        if name not in work.refusals and name not in live:
            _check_alone(work, manifests[name])
    _spread(work)
    _check_conflicts(work)
    _spread(work)
    edges = _edges(work)
    for component in _cycles(edges):
        path = _cycle_path(component, edges)
        causes = [_relation(work, first, second) for first, second in zip(path, path[1:])]
        reason = (
            f"{' -> '.join(_shorten(path))} is a cycle ({'; '.join(_shorten(causes))}); "
            "none of them can be first"
        )
        for name in component:
            work.refusals[name] = Refusal(
                name,
                "cycle",
                reason,
                "remove one of these references from its manifest, or disable one of the plugins",
            )
    _spread(work)
    edges = _edges(work)
    order = _topological(edges)
    depends = {
        name: tuple(sorted(other for other in manifests[name].requires if other in manifests))
        for name in order
    }
    return Resolution(order, dict(sorted(work.refusals.items())), depends, tuple(work.notes))


def _check_alone(work: _Work, manifest: Manifest) -> None:
    """Refuse for what can be said without knowing how the others fare."""
    name = manifest.id
    if manifest.api != API:
        work.refusals[name] = Refusal(
            name,
            "api",
            f"{name} {manifest.version} is written for plugin API {manifest.api}; "
            f"this rustllm speaks API {API}",
            f"install a version of {name} for API {API}, or another rustllm",
        )
        return
    for other, wanted in sorted(manifest.requires.items()):
        version = work.host.get(other)
        if version is None and other in work.manifests:
            version = work.manifests[other].version
        need = f"{other} {wanted}".strip()
        if version is None:
            work.refusals[name] = Refusal(
                name,
                "missing",
                f"{name} {manifest.version} needs {need}; no plugin of that id was found",
                f"install {need}, or disable {name}",
            )
            return
        if version not in wanted:
            work.refusals[name] = Refusal(
                name,
                "version",
                f"{name} {manifest.version} needs {need}; found {work.found(other)}",
                f"install {need}, or a version of {name} that works with {other} {version}",
            )
            return
    for other, wanted in sorted(manifest.optional.items()):
        if other in work.manifests and work.manifests[other].version not in wanted:
            work.notes.append(
                f"{name} {manifest.version} could use {other} {wanted}; found "
                f"{work.found(other)}, so it does without"
            )


def _spread(work: _Work) -> None:
    """Refuse whatever needs a refused plugin, and whatever needs that, once each."""
    dependants: dict[str, list[str]] = {}
    for name in sorted(work.manifests):
        for other in work.manifests[name].requires:
            dependants.setdefault(other, []).append(name)
    heap = sorted(work.refusals)
    while heap:
        cause = heapq.heappop(heap)
        root = work.refusals[cause].blocked_by or cause
        for name in dependants.get(cause, ()):
            if not work.standing(name):
                continue
            refusal = work.refusals[cause]
            work.refusals[name] = Refusal(
                name,
                "dependency",
                f"{name} {work.manifests[name].version} needs {cause}, which cannot run: "
                f"{refusal.reason if root == cause else f'it depends on {root}'}",
                work.refusals[root].fix if root in work.refusals else refusal.fix,
                blocked_by=root,
            )
            heapq.heappush(heap, name)


def _check_conflicts(work: _Work) -> None:
    """Refuse those that name a conflict; of two that name each other, both: we never guess."""
    refusals = []
    for name in sorted(work.manifests):
        if not work.standing(name):
            continue
        manifest = work.manifests[name]
        for other, versions in sorted(manifest.conflicts.items()):
            there = work.host.get(other)
            if there is None and work.standing(other):
                there = work.manifests[other].version
            if there is None or there not in versions:
                continue
            which = f"{other} {versions}".strip()
            found = f"found {work.found(other)}"
            loser = name
            if name in work.live:  # too late to refuse that one
                if other in work.live or other in work.host:
                    continue
                loser, found = other, f"and {name} runs already"
            refusals.append(
                Refusal(
                    loser,
                    "conflict",
                    f"{name} {manifest.version} cannot run beside {which}; {found}",
                    f"disable or uninstall one of {name} and {other}",
                )
            )
    for refusal in refusals:
        work.refusals.setdefault(refusal.plugin, refusal)


def _edges(work: _Work) -> dict[str, set[str]]:
    """For each plugin that still stands, those that must come before it."""
    earlier: dict[str, set[str]] = {
        name: set() for name in sorted(work.manifests) if work.standing(name)
    }
    for name in earlier:
        if name in work.live:  # in place already, whatever anybody would like to be before it
            continue
        manifest = work.manifests[name]
        for other in (*manifest.requires, *manifest.after):
            if other in earlier:
                earlier[name].add(other)
        for other, wanted in manifest.optional.items():
            if other in earlier and work.manifests[other].version in wanted:
                earlier[name].add(other)
        for other in manifest.before:
            if other in earlier and other not in work.live:
                earlier[other].add(name)
    return earlier


def _shorten(parts: list[str]) -> list[str]:
    return parts if len(parts) <= 12 else [*parts[:6], f"({len(parts) - 11} more)", *parts[-5:]]


def _relation(work: _Work, first: str, second: str) -> str:
    """Say why `second` must come before `first`."""
    manifest = work.manifests[first]
    if second in manifest.requires:
        return f"{first} requires {second}"
    if second in manifest.after:
        return f"{first} says after {second}"
    if second in manifest.optional:
        return f"{first} optionally uses {second}"
    return f"{second} says before {first}"


def _cycles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Strongly connected components of two or more (Tarjan's algorithm, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    on_stack: set[str] = set()
    stack: list[str] = []
    found = []
    for root in edges:
        if root in index:
            continue
        work = [(root, iter(sorted(edges[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, others = work[-1]
            for other in others:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(sorted(edges[other]))))
                    break
                if other in on_stack:
                    low[name] = min(low[name], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    component = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        component.append(member)
                        if member == name:
                            break
                    if len(component) > 1:
                        found.append(sorted(component))
    return found


def _cycle_path(component: list[str], edges: Mapping[str, Iterable[str]]) -> list[str]:
    """A shortest cycle through the component's first member, its first name repeated at the end."""
    start = component[0]
    members = set(component)
    came_from: dict[str, str] = {}
    row = [start]
    while row:
        following = []
        for name in row:
            for other in sorted(edges[name]):
                if other == start:
                    path = [start]
                    while name != start:
                        path.append(name)
                        name = came_from[name]
                    return [start, *reversed(path[1:]), start]
                if other in members and other not in came_from:
                    came_from[other] = name
                    following.append(other)
        row = following
    raise AssertionError("a strongly connected component has a cycle")  # pragma: no cover


def _topological(edges: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Kahn's algorithm; of those that are free, the smallest id goes first."""
    later: dict[str, list[str]] = {name: [] for name in edges}
    missing = {}
    for name, earlier in edges.items():
        missing[name] = len(earlier)
        for other in earlier:
            later[other].append(name)
    heap = [name for name, count in missing.items() if count == 0]
    heapq.heapify(heap)
    order = []
    while heap:
        name = heapq.heappop(heap)
        order.append(name)
        for other in later[name]:
            missing[other] -= 1
            if missing[other] == 0:
                heapq.heappush(heap, other)
    return tuple(order)

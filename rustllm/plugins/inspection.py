"""Answers about plugins for people: what is there, what is wrong, why, and who needs whom.

Reads manifests and files only; nothing of any plugin is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rustllm.errors import RustLLMError
from rustllm.plugins.lifecycle import State
from rustllm.plugins.manager import PluginManager
from rustllm.plugins.records import PluginInfo, describe_error
from rustllm.plugins.trust import changed_files, verify_hash

__all__ = ["Finding", "edges", "explain", "find_trouble", "graph_as_dot", "graph_as_text"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is worth knowing.

    Attributes
    ----------
    plugin : str
        Its id, or the place of one that cannot be read.
    level : {"error", "note"}
    text : str
    fix : str
        Empty for a note that asks for nothing.
    """

    plugin: str
    level: str
    text: str
    fix: str = ""


def find_trouble(manager: PluginManager) -> list[Finding]:
    """Return everything about the plugins that is wrong or odd, errors first.

    Checks that every manifest can be read, everything resolves, required plugins are there, files
    are those that were installed, and files are those of the lock file.
    """
    resolution = manager.resolve()
    found = [
        Finding(problem.place, "error", str(problem), "repair its manifest, or uninstall it")
        for problem in manager.problems
    ]
    infos = manager.plugins()
    known = {info.id for info in infos}
    for plugin in sorted(manager.required - known):
        found.append(
            Finding(
                plugin,
                "error",
                f"{plugin} is required and was not found",
                f"install {plugin}, or take it out of plugins.required",
            )
        )
    for info in infos:
        found += _trouble_with(manager, info)
    found += [Finding(note.split(" ")[0], "note", note) for note in resolution.notes]
    found += [Finding(note.split(" ")[0], "note", note) for note in manager.shadowed]
    if manager.safe_mode:
        found.append(Finding("rustllm", "note", "safe mode: nothing but built-in plugins runs"))
    return sorted(found, key=lambda finding: finding.level != "error")


def _trouble_with(manager: PluginManager, info: PluginInfo) -> Iterator[Finding]:
    if info.refusal is not None:
        asked_for = info.refusal.code in ("disabled", "safe-mode")
        level = "note" if asked_for and info.id not in manager.required else "error"
        yield Finding(info.id, level, info.refusal.reason, info.refusal.fix)
    if info.state is State.FAILED:
        yield Finding(info.id, "error", f"{info.id} failed: {describe_error(info.error)}")
    candidate = manager.candidate(info.id)
    try:
        for line in changed_files(candidate):
            yield Finding(info.id, "error", f"since it was installed, {line}", "install it again")
        expected = manager.trusted.sha256(info.id) if manager.trusted is not None else None
        if expected is not None and candidate.origin in ("installed", "folder"):
            verify_hash(candidate, expected)
    except (RustLLMError, OSError) as error:
        yield Finding(info.id, "error", str(error), getattr(error, "hint", None) or "")


def explain(manager: PluginManager, plugin: str) -> list[str]:
    """Say in lines what a plugin is, why it can or cannot run, and who cares.

    Raises
    ------
    PluginError
        There is no such plugin.
    """
    candidate = manager.candidate(plugin)
    manager.resolve()
    infos = {info.id: info for info in manager.plugins()}
    info = infos[plugin]
    manifest = candidate.manifest
    lines = [f"{plugin} {info.version} is {info.state.value}"]
    if info.description:
        lines.append(f"  {info.description}")
    lines.append(f"  found: {info.origin}, {info.place}")
    for offer in info.provides:
        lines.append(f"  provides {offer}")
    for other, versions in sorted(manifest.requires.items()):
        lines.append(f"  requires {other} {versions}".rstrip() + _what_is(manager, infos, other))
    for other, versions in sorted(manifest.optional.items()):
        lines.append(f"  can use {other} {versions}".rstrip() + _what_is(manager, infos, other))
    for other, versions in sorted(manifest.conflicts.items()):
        lines.append(f"  excludes {other} {versions}".rstrip() + _what_is(manager, infos, other))
    for other in sorted(infos):
        if plugin in manager.candidate(other).manifest.requires:
            lines.append(f"  needed by {other} {infos[other].version}")
    if plugin in manager.required:
        lines.append("  required by the setting plugins.required")
    if info.error is not None:
        error: BaseException | None = info.error
        while error is not None:
            lines.append(f"  because {describe_error(error)}")
            error = error.__cause__
    # from the plugin down to the root of its trouble
    cause: str | None = plugin
    seen: set[str] = set()
    while cause is not None and cause not in seen and cause in infos:
        seen.add(cause)
        refusal = infos[cause].refusal
        if refusal is None:
            break
        lines.append(f"  because {refusal.reason}")
        if refusal.blocked_by is None:
            lines.append(f"  fix: {refusal.fix}")
        cause = refusal.blocked_by
    return lines


def _what_is(manager: PluginManager, infos: dict[str, PluginInfo], other: str) -> str:
    if other in manager.host:
        return f": here is {manager.host[other]}"
    if other in infos:
        return f": found {infos[other].version}, {infos[other].state.value}"
    return ": not found"


def edges(manager: PluginManager) -> Iterator[tuple[str, str, str]]:
    """Yield (plugin, relation, other), sorted."""
    for info in manager.plugins():
        manifest = manager.candidate(info.id).manifest
        for relation, others in (
            ("requires", manifest.requires),
            ("optional", manifest.optional),
            ("conflicts", manifest.conflicts),
            ("after", manifest.after),
            ("before", manifest.before),
        ):
            for other in sorted(others):
                yield info.id, relation, other


def graph_as_text(manager: PluginManager) -> list[str]:
    """Return the plugins in the order in which they start, each with what it refers to."""
    mine: dict[str, list[str]] = {}
    for plugin, relation, other in edges(manager):
        mine.setdefault(plugin, []).append(f"  {relation} {other}")
    order = manager.resolve().order
    infos = {info.id: info for info in manager.plugins()}
    lines = []
    for plugin in (*order, *sorted(set(infos).difference(order))):
        lines.append(f"{plugin} {infos[plugin].version} ({infos[plugin].state.value})")
        lines += mine.get(plugin, [])
    return lines


def graph_as_dot(manager: PluginManager) -> list[str]:
    """Return the graph in the language of Graphviz."""
    styles = {"requires": "solid", "optional": "dashed", "after": "dotted", "before": "dotted"}
    lines = ["digraph plugins {", "  rankdir=LR;", "  node [shape=box];"]
    for info in manager.plugins():
        colour = {State.BLOCKED: ", color=red", State.FAILED: ", color=red"}.get(info.state, "")
        lines.append(
            f"  {_quoted(info.id)} [label={_quoted(f'{info.id} {info.version}')}{colour}];"
        )
    for plugin, relation, other in edges(manager):
        look = (
            f'style={styles[relation]}, label="{relation}"'
            if relation in styles
            else ('color=red, dir=none, label="conflicts"')
        )
        lines.append(f"  {_quoted(plugin)} -> {_quoted(other)} [{look}];")
    lines.append("}")
    return lines


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

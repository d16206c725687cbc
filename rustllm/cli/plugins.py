"""Look at plugins without running any: what is there, what is wrong, why, who needs whom.

examples:
  rustllm plugins list
  rustllm plugins doctor
  rustllm plugins why acme.sentences
  rustllm plugins graph --dot | dot -Tsvg > plugins.svg
  rustllm plugins lock plugins.lock
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm.cli.options import add_action_argument
from rustllm.cli.output import Output
from rustllm.errors import PluginError

if TYPE_CHECKING:
    from rustllm.plugins.manager import PluginManager
    from rustllm.plugins.records import PluginInfo

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_action_argument(
        parser,
        {
            "list": "all plugins",
            "doctor": "what is wrong, exit status 7 if anything is",
            "why": "one plugin explained",
            "graph": "who refers to whom",
            "lock": "write a lock file that allows the plugins as they are now",
        },
    )
    parser.add_argument(
        "target", nargs="?", metavar="ID|FILE", help="a plugin for why, a file for lock"
    )
    parser.add_argument("--dot", action="store_true", help="graph in the language of Graphviz")
    parser.add_argument(
        "--folder",
        action="append",
        default=[],
        type=Path,
        help="a folder to look for plugins in, beside installed ones; may be repeated",
    )
    parser.add_argument("--config", type=Path, help="settings file instead of the user's own")


def run(args: Namespace) -> int:
    """Read manifests and answer."""
    output = Output.of(args)
    if args.action in ("why", "lock") and args.target is None:
        from rustllm.errors import ArgumentError

        raise ArgumentError(
            f"plugins {args.action} needs {'an id' if args.action == 'why' else 'a file'}"
        )
    manager = _open(args)
    answers = {"list": _list, "doctor": _doctor, "why": _why, "graph": _graph, "lock": _lock}
    return answers[args.action](manager, args, output)


def _open(args: Namespace) -> PluginManager:
    from rustllm.config import Settings, default_file
    from rustllm.plugins.builtin import make_manager

    settings = Settings.load(file=args.config or default_file())
    manager = make_manager(settings)
    manager.discover(folders=[*settings.plugins.paths, *args.folder])
    manager.resolve()
    return manager


def _as_dict(info: PluginInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "version": info.version,
        "state": info.state.value,
        "origin": info.origin,
        "place": info.place,
        "description": info.description,
        "provides": list(info.provides),
        "requires": dict(info.requires),
        "reason": info.refusal.reason if info.refusal else None,
        "fix": info.refusal.fix if info.refusal else None,
    }


def _list(manager: PluginManager, args: Namespace, output: Output) -> int:
    infos = manager.plugins()
    if output.json:
        output.document(
            "plugins.list",
            plugins=[_as_dict(info) for info in infos],
            problems=[str(problem) for problem in manager.problems],
        )
        return 0
    rows = [(info.id, info.version, info.state.value, info.origin) for info in infos]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    for info, row in zip(infos, rows):
        line = "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]])
        output.line(line)
        if info.refusal is not None:
            output.line(f"    {info.refusal.reason}")
    for problem in manager.problems:
        output.line(f"cannot be read: {problem}")
    return 0


def _doctor(manager: PluginManager, args: Namespace, output: Output) -> int:
    from rustllm.plugins.inspection import find_trouble

    findings = find_trouble(manager)
    errors = sum(finding.level == "error" for finding in findings)
    if output.json:
        output.document(
            "plugins.doctor",
            plugins=len(manager.plugins()),
            errors=errors,
            findings=[
                {"plugin": f.plugin, "level": f.level, "text": f.text, "fix": f.fix}
                for f in findings
            ],
        )
    else:
        for finding in findings:
            output.line(f"{finding.level}: {finding.text}")
            if finding.fix:
                output.line(f"  fix: {finding.fix}")
        n = len(manager.plugins())
        output.line(f"{n} plugin{'s' * (n != 1)}, {errors} error{'s' * (errors != 1)}")
    return PluginError.exit_code if errors else 0


def _why(manager: PluginManager, args: Namespace, output: Output) -> int:
    from rustllm.plugins.inspection import explain

    lines = explain(manager, args.target)
    if output.json:
        info = next(info for info in manager.plugins() if info.id == args.target)
        output.document("plugins.why", plugin=_as_dict(info), lines=lines)
    else:
        output.line("\n".join(lines))
    return 0


def _graph(manager: PluginManager, args: Namespace, output: Output) -> int:
    from rustllm.plugins.inspection import edges, graph_as_dot, graph_as_text

    if output.json:
        output.document(
            "plugins.graph",
            order=list(manager.resolve().order),
            edges=[
                {"plugin": plugin, "relation": relation, "other": other}
                for plugin, relation, other in edges(manager)
            ],
        )
    else:
        output.line("\n".join((graph_as_dot if args.dot else graph_as_text)(manager)))
    return 0


def _lock(manager: PluginManager, args: Namespace, output: Output) -> int:
    from rustllm.plugins.trust import Lock

    candidates = [manager.candidate(info.id) for info in manager.plugins()]
    lock = Lock.of([c for c in candidates if c.origin in ("installed", "folder")])
    lock.write(args.target)
    if output.json:
        output.document(
            "plugins.lock",
            path=args.target,
            plugins=[
                {"id": p.id, "version": p.version, "sha256": p.sha256}
                for p in lock.plugins.values()
            ],
        )
    else:
        for locked in lock.plugins.values():
            output.line(f"{locked.id} {locked.version} {locked.sha256}")
    return 0

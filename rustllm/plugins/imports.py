"""From an entry, ``"module:attribute"``, to the object, by where the plugin was found.

A plugin in a folder is imported below a package of its own, named after its id, so that two
folders may both hold a ``tokenizer.py`` and neither is put on ``sys.path``.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import threading
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

from rustllm.errors import PluginError, PluginTrustError
from rustllm.plugins.discovery import Candidate

__all__ = ["load_entry", "package_of"]

_lock = threading.Lock()


def package_of(candidate: Candidate) -> str | None:
    """Return the package that holds the plugin's code, or None when that is not known."""
    if candidate.origin == "folder":
        plugin = candidate.manifest.id
        readable = re.sub(r"\W", "_", plugin, flags=re.ASCII)
        return f"rustllm_plugin_{readable}_{zlib.crc32(plugin.encode()):08x}"
    if candidate.origin == "object":  # it may live in any module of the host
        return None
    entry = candidate.manifest.plugin
    if entry is None and candidate.manifest.provides:
        entry = candidate.manifest.provides[0].entry
    return None if entry is None else entry.partition(":")[0].partition(".")[0]


def load_entry(candidate: Candidate, entry: str, *, inside_root: bool = False) -> Any:
    """Import what `entry` names.

    Parameters
    ----------
    candidate : Candidate
    entry : str
        ``"module:attribute"``.
    inside_root : bool
        Refuse a module whose file lies outside the plugin's folder, since its hash says nothing
        about it.

    Raises
    ------
    PluginTrustError
        The module lies outside.
    Exception
        Whatever importing raises.
    """
    module_name, _, attribute = entry.partition(":")
    if candidate.origin == "folder":
        module_name = f"{_ensure_package(candidate)}.{module_name}"
    if inside_root:
        _refuse_outside(candidate, module_name)
    found: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise PluginError(
                f"{entry!r}: {module_name} has no {attribute}", plugin=candidate.manifest.id
            ) from None
    return found


def _ensure_package(candidate: Candidate) -> str:
    name = package_of(candidate)
    assert name is not None
    assert candidate.root is not None
    with _lock:
        package = sys.modules.get(name)
        path = str(candidate.root)
        if package is None or list(package.__path__) != [path]:
            for loaded in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
                del sys.modules[loaded]  # another folder with the same id was used before
            package = ModuleType(name)
            package.__path__ = [path]
            sys.modules[name] = package
    return name


def _refuse_outside(candidate: Candidate, module_name: str) -> None:
    if candidate.origin == "folder":  # imported by path from that folder, so always inside
        return
    # The top-level package is looked at because importing a module runs all of its parents.
    top = module_name.partition(".")[0]
    spec = importlib.util.find_spec(top)
    origin = spec.origin if spec is not None else None
    root = candidate.root
    if root is None or origin is None or not Path(origin).resolve().is_relative_to(root.resolve()):
        raise PluginTrustError(
            f"module {module_name} is not inside the folder that the lock file covers",
            hint="the manifest must lie in the plugin's top-level package",
            plugin=candidate.manifest.id,
            path=origin,
        )

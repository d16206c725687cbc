"""Lookups that start no manager: what a built-in manifest names, while nothing says otherwise.

The manager takes longer to import and start than a small model takes to load. What the library
itself offers can be told from its manifests alone, unless a settings file or the environment says
something about plugins, or a manager is running already: then the manager answers.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["lookup"]


def lookup(kind: str, name: str) -> Any:
    """Return what :func:`rustllm.plugins.lookup` returns, sooner for what is built in.

    Raises
    ------
    UnsupportedError, PluginError
        As :func:`rustllm.plugins.lookup`.

    Examples
    --------
    >>> from rustllm.plugins.quick import lookup
    >>> lookup("architecture", "llama").__module__
    'rustllm.models.llama'
    """
    if "rustllm.plugins.builtin" not in sys.modules and not _has_settings():
        entry = _entries().get((kind, name))
        if entry is not None:
            module, _, attribute = entry.partition(":")
            return getattr(import_module(module), attribute)
    from rustllm.plugins.builtin import lookup as ask_manager

    return ask_manager(kind, name)


def _has_settings() -> bool:
    from rustllm.config import default_file

    return any(key.startswith("RUSTLLM_PLUGINS") for key in os.environ) or bool(default_file())


@cache
def _entries() -> dict[tuple[str, str], str]:
    import tomllib

    home = Path(__file__).resolve().parent.parent
    found = {}
    for path in sorted(home.glob("*/rustllm-plugin.toml")):
        for offer in tomllib.loads(path.read_text("utf-8")).get("provides", ()):
            found[offer["kind"], offer["name"]] = offer["entry"]
    return found

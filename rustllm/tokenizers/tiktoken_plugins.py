"""Encodings of other packages, offered as tiktoken's plugins are: modules of ``tiktoken_ext``."""

from __future__ import annotations

import pkgutil
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rustllm.errors import PluginError

__all__ = ["plugin_constructors"]

Constructor = Callable[[], dict[str, Any]]

_OWN = "tiktoken_ext.openai_public"  # tiktoken's own encodings, which are built in here
_lock = threading.Lock()
_found: dict[str, Constructor] | None = None


def plugin_constructors() -> dict[str, Constructor]:
    """Names that installed plugins of tiktoken define, and what gives the arguments of `Encoding`.

    Raises
    ------
    PluginError
        A plugin defines no ``ENCODING_CONSTRUCTORS``, or a name that another one has.
    """
    global _found
    with _lock:
        if _found is None:
            _found = _look()
        return dict(_found)


def _look() -> dict[str, Constructor]:
    try:
        namespace = import_module("tiktoken_ext")
    except ImportError:
        return {}
    found: dict[str, Constructor] = {}
    for _, name, _ in pkgutil.iter_modules(namespace.__path__, "tiktoken_ext."):
        if name == _OWN:
            continue
        constructors = getattr(import_module(name), "ENCODING_CONSTRUCTORS", None)
        if not isinstance(constructors, dict):
            raise PluginError(f"the plugin {name} defines no ENCODING_CONSTRUCTORS", plugin=name)
        for encoding, constructor in constructors.items():
            if encoding in found:
                raise PluginError(
                    f"the encoding {encoding!r} of {name} has the name of another plugin's",
                    plugin=name,
                )
            found[encoding] = constructor
    return found

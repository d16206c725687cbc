"""The library's own tokenizers, models and loaders as plugins, and the manager that has them.

Each floor ships a manifest beside its code, of the same form as a third party's. They are read at
the first lookup, not at import; an entry is imported when it is the one that is asked for.
Installed plugins are looked for only when a name is asked for that is not built in, or when
something asks for all names; so what is built in costs nothing extra and cannot be replaced behind
the user's back.

The manager takes longer to import than a small model takes to load. While no settings say anything
about plugins, a manager could only repeat what the manifests say; so until something needs one, a
built-in name is answered from its manifest, and this module imports nothing of the manager's.
"""

from __future__ import annotations

import os
import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rustllm.config import Settings
    from rustllm.plugins.discovery import Candidate
    from rustllm.plugins.manager import PluginManager
    from rustllm.plugins.registry import Provider, Registry

__all__ = [
    "built_in_candidates",
    "default_manager",
    "for_file",
    "lookup",
    "make_manager",
    "names",
    "providers",
]

# The floors that offer something; each holds a manifest.
FLOORS = ("loaders", "tokenizers", "models")
_HOME = Path(__file__).resolve().parent.parent
_BUILT_IN_IDS = frozenset(f"rustllm.{floor}" for floor in FLOORS)

_lock = threading.Lock()
_manager: PluginManager | None = None
_registry: Registry | None = None
_settings: Settings | None = None
_searched = False
# What the manifests offer, while they alone answer; None before the first lookup.
_entries: dict[tuple[str, str], str] | None = None


def built_in_candidates() -> tuple[Candidate, ...]:
    """Read the manifests of the library's own plugins."""
    import rustllm
    from rustllm.plugins.discovery import Candidate
    from rustllm.plugins.manifest import FILE_NAME, read_manifest

    found = []
    for floor in FLOORS:
        root = _HOME / floor
        manifest = read_manifest(root / FILE_NAME, version=rustllm.__version__)
        found.append(Candidate(manifest, "built-in", f"rustllm.{floor}", root=root))
    return tuple(found)


def make_manager(settings: Settings | None = None) -> PluginManager:
    """Return a new manager with the built-in plugins running and `settings` obeyed.

    Raises
    ------
    ConfigError
        The settings cannot be understood.
    """
    from rustllm.config import Settings, default_file
    from rustllm.plugins.manager import PluginManager

    if settings is None:
        settings = Settings.load(file=default_file())
    plugins = settings.plugins
    manager = PluginManager(
        disabled=plugins.disabled,
        lock=plugins.lock,
        safe_mode=settings.safe_mode,
        settings=plugins.settings,
    )
    built_in = built_in_candidates()
    for candidate in built_in:
        manager._adopt(candidate)
    manager.start(*(candidate.manifest.id for candidate in built_in))
    manager.required = frozenset(plugins.required)
    return manager


def default_manager() -> PluginManager:
    """Return the process's own manager, made at the first call. Safe to call from any thread."""
    global _manager, _registry, _settings
    manager = _manager
    if manager is None:
        from rustllm.config import Settings, default_file
        from rustllm.log import set_levels

        with _lock:
            if _manager is None:
                _settings = Settings.load(file=default_file())
                if _settings.source("log").layer == "file":  # the environment sees to itself
                    set_levels(_settings.log)
                made = make_manager(_settings)
                _registry = made.registry
                _manager = made
            manager = _manager
    return manager


def discover_all() -> PluginManager:
    """Return the process's manager after looking, once, for installed plugins. Starts none."""
    global _searched
    manager = default_manager()
    if not _searched and not manager.safe_mode:
        assert _settings is not None
        manager.discover(folders=_settings.plugins.paths)
        _searched = True
        if manager.required:
            manager.start(*sorted(manager.required))
    return manager


def lookup(kind: str, name: str) -> Any:
    """Return what is offered under `kind` and `name`, importing it if need be.

    Parameters
    ----------
    kind : str
        ``"loader"``, ``"tokenizer_format"``, ``"architecture"``, or a kind of a plugin's own.
    name : str

    Raises
    ------
    UnsupportedError
        Nobody offers it; the message lists what there is. Fields: ``kind``, ``name``.
    PluginError
        An installed plugin would, but cannot run; the message says why.

    Notes
    -----
    One or two dictionary accesses for what is built in or was asked for before. Safe from any
    thread.

    Examples
    --------
    >>> from rustllm.plugins import lookup
    >>> lookup("architecture", "no-such-model")
    Traceback (most recent call last):
    rustllm.errors.UnsupportedError: no architecture 'no-such-model' ...
    """
    registry = _registry
    if registry is None:
        entry = _manifest_entries().get((kind, name))
        if entry is not None:
            module, _, attribute = entry.partition(":")
            return getattr(import_module(module), attribute)
        registry = default_manager().registry
    provider = registry.find(kind, name)
    if provider is not None:
        return provider.get()
    return discover_all().get(kind, name)


def _manifest_entries() -> dict[tuple[str, str], str]:
    """Return what the manifests offer, or nothing where settings may change what it means."""
    global _entries
    entries = _entries
    if entries is None:
        from rustllm._settings_file import default_file

        entries = {}
        configured = any(key.startswith("RUSTLLM_PLUGINS") for key in os.environ)
        if not configured and not default_file():
            for floor in FLOORS:
                text = (_HOME / floor / "rustllm-plugin.toml").read_text("utf-8")
                for offer in _offers(text):
                    entries[offer["kind"], offer["name"]] = offer["entry"]
        _entries = entries
    return entries


def _offers(text: str) -> list[dict[str, str]]:
    """The tables ``[[provides]]`` of our own manifests, which keep to a line for each short text.

    tomllib reads the whole language, and importing it takes longer than loading a small model's
    vocabulary; a test holds the two against each other.
    """
    offers: list[dict[str, str]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.strip() == "[[provides]]"
            if inside:
                offers.append({})
        elif inside and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            if value.count('"') == 2:
                offers[-1][key.strip()] = value.split('"')[1]
    return offers


def names(kind: str) -> tuple[str, ...]:
    """Return every name of `kind` that a built-in or installed plugin offers, sorted."""
    return discover_all().announced(kind)


def providers(kind: str) -> tuple[Provider, ...]:
    """Return the provider of every name of `kind`, starting the plugins that offer one.

    For choosing by metadata, such as which loader knows a file's first bytes. A plugin that cannot
    run is warned about and left out.
    """
    manager = discover_all()
    for name in manager.announced(kind):
        if manager.registry.find(kind, name) is None:
            try:
                manager.get(kind, name)
            except Exception as error:
                from rustllm.log import get_logger

                get_logger("plugins").warning(
                    "left out of a choice", kind=kind, name=name, error=error
                )
    return manager.registry.providers(kind)


def for_file(kind: str, path: str | os.PathLike[str], head: bytes) -> Any:
    """Return what an installed plugin offers for a file that nothing built in knows, or None.

    Parameters
    ----------
    kind : str
        ``"loader"`` or ``"tokenizer_format"``.
    path : path
        Its ending is compared with the provider's ``suffixes``.
    head : bytes
        The beginning of the content, compared with the provider's ``magic`` (hexadecimal), which
        counts for more than a name.

    Raises
    ------
    PluginError
        The plugin that fits cannot run.
    """
    manager = discover_all()
    name = os.fspath(path).lower()
    by_name = None
    for plugin, provision in manager.provisions(kind):
        if plugin in _BUILT_IN_IDS:
            continue
        magic = provision.metadata.get("magic")
        if isinstance(magic, str) and _starts_with(head, magic):
            return manager.get(kind, provision.name)
        suffixes = provision.metadata.get("suffixes", ())
        if by_name is None and magic is None and _ends_with(name, suffixes):
            by_name = provision.name
    return None if by_name is None else manager.get(kind, by_name)


def _ends_with(name: str, suffixes: Any) -> bool:
    if not isinstance(suffixes, list | tuple):
        return False
    return any(isinstance(end, str) and end and name.endswith(end.lower()) for end in suffixes)


def _starts_with(head: bytes, magic: str) -> bool:
    try:
        expected = bytes.fromhex(magic)
    except ValueError:
        return False
    return bool(expected) and head.startswith(expected)


def _forget_manager() -> None:
    """Let the next lookup start afresh; for tests."""
    global _entries, _manager, _registry, _settings, _searched
    with _lock:
        _entries = None
        manager, _manager, _registry, _settings, _searched = _manager, None, None, None, False
    if manager is not None:
        manager.close()

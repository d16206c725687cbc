"""Manifests: what a plugin says about itself, read without importing it.

A manifest is a TOML file named ``rustllm-plugin.toml``::

    api = "1"
    id = "acme.sentences"
    version = "1.4.0"
    description = "Cuts text into sentences"
    plugin = "acme_sentences:Plugin"            # optional: a class with setup, start and stop
    requires = { rustllm = ">=0.1,<1", "acme.unicode" = "~=0.3" }
    optional = { "acme.gpu" = ">=2" }
    conflicts = { "old.sentences" = "" }
    before = ["core.cache"]
    after = ["core.normalize"]

    [[provides]]
    kind = "tokenizer"
    name = "sentences"
    entry = "acme_sentences:load"

Every key is checked; errors name the file, the line and the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from rustllm._source_lines import nearest_line, toml_key_lines
from rustllm.errors import ManifestError, VersionError
from rustllm.version import Version, VersionRange

__all__ = ["API", "FILE_NAME", "Manifest", "Provision", "parse_manifest", "read_manifest"]

API = "1"
FILE_NAME = "rustllm-plugin.toml"

_MAX_BYTES = 1 << 18
_MAX_PROVISIONS = 4096
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9])?", re.ASCII)
_ENTRY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_KEYS = frozenset(
    {
        "after",
        "api",
        "before",
        "conflicts",
        "description",
        "id",
        "optional",
        "plugin",
        "provides",
        "requires",
        "version",
    }
)
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Provision:
    """One thing that a plugin offers.

    Attributes
    ----------
    kind, name : str
        Such as ``"tokenizer"`` and ``"reverse"``.
    entry : str
        ``"module:attribute"``, imported when it is first asked for.
    priority : int
        Of several providers of one name the highest wins.
    metadata : mapping
        Every further key of the table, for those who look providers up.
    """

    kind: str
    name: str
    entry: str
    priority: int = 0
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A plugin's description of itself; see the module's own description for the file."""

    id: str
    version: Version
    api: str = API
    description: str = ""
    plugin: str | None = None
    requires: Mapping[str, VersionRange] = field(default_factory=lambda: _NOTHING)
    optional: Mapping[str, VersionRange] = field(default_factory=lambda: _NOTHING)
    conflicts: Mapping[str, VersionRange] = field(default_factory=lambda: _NOTHING)
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    provides: tuple[Provision, ...] = ()
    path: Path | None = None


def read_manifest(path: Path, *, version: str | None = None) -> Manifest:
    """Read and check a manifest file.

    Parameters
    ----------
    path : Path
    version : str, optional
        Version of the distribution, used when the file gives none.

    Raises
    ------
    ManifestError
        The file cannot be read or breaks a rule. Fields: ``path``, ``line``, ``key``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}", path=str(path)) from error
    if len(data) > _MAX_BYTES:
        raise ManifestError(f"over {_MAX_BYTES} bytes", path=str(path))
    import tomllib

    try:
        text = data.decode("utf-8")
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"not TOML: {error}", path=str(path)) from error
    if version is not None:
        raw.setdefault("version", version)
    return parse_manifest(raw, path=path, text=text)


def parse_manifest(
    raw: Mapping[str, Any], *, path: Path | None = None, text: str | None = None
) -> Manifest:
    """Check the tables of a manifest.

    Parameters
    ----------
    raw : mapping
        As a TOML parser returns it.
    path : Path, optional
        For messages.
    text : str, optional
        The file's text, from which messages take line numbers.

    Raises
    ------
    ManifestError
    """
    return _Reader(raw, path, text).manifest()


class _Reader:
    def __init__(self, raw: Mapping[str, Any], path: Path | None, text: str | None) -> None:
        self.raw = raw
        self.path = path
        self.text = text

    def refuse(self, key: str, message: str, hint: str | None = None) -> NoReturn:
        # the lines are looked for only now that they are needed
        line = None if self.text is None else nearest_line(toml_key_lines(self.text), key)
        raise ManifestError(
            message,
            hint=hint,
            path=str(self.path) if self.path is not None else None,
            line=line,
            key=key,
        )

    def manifest(self) -> Manifest:
        raw = self.raw
        api = self.string("api", required=True)
        plugin_id = self.string("id", required=True)
        if not _ID.fullmatch(plugin_id) or plugin_id in ("rustllm", "python"):
            self.refuse(
                "id", f"{plugin_id!r} cannot be an id", "letters, digits, dots, - and _; not a host"
            )
        try:
            version = Version(self.string("version", required=True))
        except VersionError as error:
            self.refuse("version", error.message, error.hint)
        description = self.string("description")
        if api != API:
            # A later API may have other keys; say no more than what it takes to refuse it.
            return Manifest(plugin_id, version, api, description, path=self.path)
        for key in raw:
            if key not in _KEYS:
                self.refuse(key, "no such key", f"one of {', '.join(sorted(_KEYS))}")
        plugin = self.string("plugin") or None
        if plugin is not None:
            self.check_entry("plugin", plugin)
        return Manifest(
            id=plugin_id,
            version=version,
            api=api,
            description=description,
            plugin=plugin,
            requires=self.ranges("requires", plugin_id),
            optional=self.ranges("optional", plugin_id),
            conflicts=self.ranges("conflicts", plugin_id),
            before=self.ids("before", plugin_id),
            after=self.ids("after", plugin_id),
            provides=self.provisions(),
            path=self.path,
        )

    def string(self, key: str, *, required: bool = False) -> str:
        value = self.raw.get(key)
        if value is None:
            if required:
                self.refuse(key, "the key is missing")
            return ""
        if not isinstance(value, str):
            self.refuse(key, f"must be text, not {type(value).__name__}")
        if len(value) > 2000:
            self.refuse(key, f"is {len(value)} characters long")
        return value

    def check_entry(self, key: str, entry: object) -> None:
        if not isinstance(entry, str) or not _ENTRY.fullmatch(entry):
            self.refuse(key, f"{entry!r} names nothing to import", 'write "module:attribute"')

    def ranges(self, key: str, own: str) -> Mapping[str, VersionRange]:
        value = self.raw.get(key)
        if value is None:
            return _NOTHING
        if not isinstance(value, Mapping):
            self.refuse(key, "must be a table from id to version range")
        found = {}
        for name, text in value.items():
            place = f"{key}.{name}"
            if not isinstance(name, str) or not _ID.fullmatch(name) or name == own:
                self.refuse(place, f"{name!r} cannot be named here")
            if not isinstance(text, str):
                self.refuse(place, "a version range is text", 'write "" for any version')
            try:
                found[name] = VersionRange(text)
            except VersionError as error:
                self.refuse(place, error.message, error.hint)
        return MappingProxyType(found)

    def ids(self, key: str, own: str) -> tuple[str, ...]:
        value = self.raw.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            self.refuse(key, "must be a list of ids")
        for name in value:
            if not isinstance(name, str) or not _ID.fullmatch(name) or name == own:
                self.refuse(key, f"{name!r} cannot be named here")
        return tuple(value)

    def provisions(self) -> tuple[Provision, ...]:
        value = self.raw.get("provides")
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or len(value) > _MAX_PROVISIONS:
            self.refuse("provides", f"must be a list of at most {_MAX_PROVISIONS} tables")
        found: dict[tuple[str, str], Provision] = {}
        for index, table in enumerate(value):
            place = f"provides[{index}]"
            if not isinstance(table, Mapping):
                self.refuse(place, "must be a table with kind, name and entry")
            for name in ("kind", "name"):
                text = table.get(name)
                if not isinstance(text, str) or not text or len(text) > 200:
                    self.refuse(f"{place}.{name}", "must be text")
            self.check_entry(f"{place}.entry", table.get("entry"))
            priority = table.get("priority", 0)
            if isinstance(priority, bool) or not isinstance(priority, int):
                self.refuse(f"{place}.priority", "must be a whole number")
            known = ("kind", "name", "entry", "priority")
            rest = {name: inner for name, inner in table.items() if name not in known}
            identity = (table["kind"], table["name"])
            if identity in found:
                self.refuse(place, f"{table['kind']} {table['name']!r} is offered twice")
            metadata = MappingProxyType(rest) if rest else _NOTHING
            found[identity] = Provision(*identity, table["entry"], priority, metadata)
        return tuple(found.values())

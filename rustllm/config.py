"""Typed settings in layers: defaults < file < environment < arguments.

A class of settings is written down once, with types, defaults and bounds; every value that is
loaded is checked, every error names the source and the line, and every setting can say where its
value came from. :class:`Settings` are this library's own, shown by ``rustllm config show``.
"""

from __future__ import annotations

import difflib
import os
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self, get_args, get_origin, get_type_hints

from rustllm._settings_file import default_file
from rustllm._source_lines import json_key_lines, nearest_line, toml_key_lines
from rustllm.errors import ArgumentError, ConfigError, FileAccessError, FileMissingError

__all__ = ["Config", "PluginSettings", "Settings", "Source", "default_file", "setting"]

_MAX_FILE_BYTES = 1 << 20
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from.

    Attributes
    ----------
    layer : {"default", "file", "environment", "argument"}
    name : str
        Path of the file, name of the variable or of the argument; empty for a default.
    line : int or None
        Line in the file, counted from 1.
    value : object
        The value this source asked for.
    """

    layer: str
    name: str
    line: int | None
    value: Any

    def __str__(self) -> str:
        if self.layer == "default":
            return "default"
        if self.layer == "argument":
            return f"argument {self.name}"
        return f"{self.name}:{self.line}" if self.line is not None else self.name


@dataclass(frozen=True, slots=True)
class _Setting:
    default: Any
    doc: str = ""
    minimum: float | None = None
    maximum: float | None = None


def setting(
    default: Any, doc: str = "", *, minimum: float | None = None, maximum: float | None = None
) -> Any:
    """Declare one setting in a class of settings.

    Parameters
    ----------
    default : object
    doc : str
        One sentence, shown by ``rustllm config show``.
    minimum, maximum : float, optional
        Bounds of a number, both included.
    """
    return _Setting(default, doc, minimum, maximum)


class Config:
    """Base of a class of settings; each annotated attribute is one setting.

    Types: ``bool``, ``int``, ``float``, ``str``, ``pathlib.Path``, ``Literal``, an ``Enum``,
    ``tuple[T, ...]``, ``dict[str, T]``, ``T | None`` and another class of settings, whose keys get
    a dotted prefix.

    Notes
    -----
    Loaded objects cannot be changed, so threads share them freely. Loading is linear in the size
    of the file, which may have at most 1 MiB.

    Examples
    --------
    >>> from rustllm import Config
    >>> from rustllm.config import setting
    >>> class Server(Config):
    ...     port: int = setting(8080, "where to listen", minimum=1, maximum=65535)
    ...     names: tuple[str, ...] = ()
    >>> server = Server.load(prefix="SERVER", environ={"SERVER_NAMES": "a,b"},
    ...                      arguments={"port": 9000})
    >>> server.port, server.names, str(server.source("names"))
    (9000, ('a', 'b'), 'SERVER_NAMES')
    """

    _declared: ClassVar[dict[str, _Setting]] = {}
    _sources: dict[str, tuple[Source, ...]]

    def __init_subclass__(cls) -> None:
        declared = dict(cls._declared)
        for name in cls.__dict__.get("__annotations__", {}):
            if name.startswith("_"):
                continue
            default = cls.__dict__.get(name, _MISSING)
            if not isinstance(default, _Setting):
                default = _Setting(default)
            declared[name] = default
            if name in cls.__dict__:
                delattr(cls, name)
        cls._declared = declared

    @classmethod
    def load(
        cls,
        *,
        file: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        arguments: Mapping[str, Any] | None = None,
        prefix: str = "RUSTLLM",
    ) -> Self:
        """Load all layers and check every value.

        Parameters
        ----------
        file : path, optional
            A ``.toml`` or ``.json`` file, which must exist.
        environ : mapping, optional
            The environment; default ``os.environ``. Setting ``a.b`` is variable ``PREFIX_A_B``;
            lists are written with commas, tables as ``k=v,k=v``.
        arguments : mapping, optional
            Values by dotted key; ``None`` means not given.
        prefix : str
            Of environment variables.

        Raises
        ------
        ConfigError
            A key is unknown, a value has the wrong type or is out of bounds. Fields: ``key``,
            ``source``, ``line``.
        FileMissingError, FileAccessError
            The file cannot be read.
        """
        leaves = dict(_leaves(cls, ""))
        found: dict[str, list[Source]] = {key: [] for key in leaves}
        for key, leaf in leaves.items():
            if leaf.setting.default is not _MISSING:
                found[key].append(Source("default", "", None, leaf.setting.default))
        if file is not None:
            path = Path(file)
            raw, lines = _read(path)
            for key, value in _flatten(raw, leaves, "", path, lines):
                line = nearest_line(lines, key)
                converted = _Conversion(key, str(path), line, leaves[key], base=path.parent)(value)
                found[key].append(Source("file", str(path), line, converted))
        for key, leaf in leaves.items():
            variable = f"{prefix}_{key}".upper().replace(".", "_")
            text = (os.environ if environ is None else environ).get(variable)
            if text is not None:
                converted = _Conversion(key, variable, None, leaf, textual=True)(text)
                found[key].append(Source("environment", variable, None, converted))
        for key, value in (arguments or {}).items():
            if key not in leaves:
                _refuse_key(key, leaves, "arguments", None)
            if value is not None:
                converted = _Conversion(key, f"argument {key}", None, leaves[key])(value)
                found[key].append(Source("argument", key, None, converted))
        for key, sources in found.items():
            if not sources:
                raise ConfigError("no value, and it has no default", key=key, source="defaults")
        winners = {key: tuple(reversed(sources)) for key, sources in found.items()}
        return cls._build(winners, "")

    @classmethod
    def _build(cls, sources: dict[str, tuple[Source, ...]], prefix: str) -> Self:
        self = object.__new__(cls)
        hints = _hints(cls)
        mine = {}
        for name in cls._declared:
            key = prefix + name
            nested = _nested(hints[name])
            if nested is not None:
                value: Any = nested._build(sources, key + ".")
                for inner, chain in value._sources.items():
                    mine[f"{name}.{inner}"] = chain
            else:
                value = sources[key][0].value
                mine[name] = sources[key]
            self.__dict__[name] = value
        self.__dict__["_sources"] = mine
        return self

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("loaded settings cannot be changed; load again with arguments=")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("loaded settings cannot be changed")

    def __getitem__(self, key: str) -> Any:
        return self.source(key).value

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def source(self, key: str) -> Source:
        """Return where the value of `key` came from."""
        return self.provenance(key)[0]

    def provenance(self, key: str) -> tuple[Source, ...]:
        """Return every source that gave `key` a value, the one in force first.

        Raises
        ------
        ConfigError
            There is no such setting.
        """
        sources = self._sources.get(key)
        if sources is None:
            _refuse_key(key, self._sources, "this call", None)
        return sources

    def describe(self, key: str) -> str:
        """Return the sentence that documents `key`."""
        for name, leaf in _leaves(type(self), ""):
            if name == key:
                return leaf.setting.doc
        return _refuse_key(key, self._sources, "this call", None)

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={self[key]!r}" for key in self)
        return f"{type(self).__name__}({values})"


@dataclass(frozen=True, slots=True)
class _Leaf:
    kind: Any
    setting: _Setting


def _hints(cls: type[Config]) -> dict[str, Any]:
    hints = cls.__dict__.get("_resolved_hints")
    if hints is None:
        hints = get_type_hints(cls)
        cls._resolved_hints = hints  # type: ignore[attr-defined]
    return typing.cast("dict[str, Any]", hints)


def _nested(kind: Any) -> type[Config] | None:
    return kind if isinstance(kind, type) and issubclass(kind, Config) else None


def _leaves(cls: type[Config], prefix: str) -> Iterator[tuple[str, _Leaf]]:
    hints = _hints(cls)
    for name, declared in cls._declared.items():
        nested = _nested(hints[name])
        if nested is not None:
            yield from _leaves(nested, f"{prefix}{name}.")
        else:
            yield prefix + name, _Leaf(hints[name], declared)


def _refuse_key(key: str, known: Any, source: str, line: int | None) -> NoReturn:
    close = difflib.get_close_matches(key, list(known), n=1)
    place = f"{source}:{line}" if line is not None else source
    hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(sorted(known))}"
    raise ConfigError(f"{place}: no such setting", hint=hint, key=key, source=source, line=line)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise FileMissingError("no such settings file", path=str(path)) from error
    except OSError as error:
        raise FileAccessError(
            f"cannot read the settings file: {error.strerror}", path=str(path), errno=error.errno
        ) from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path}: over {_MAX_FILE_BYTES} bytes", source=str(path))
    try:
        text = data.decode("utf-8")
        if path.suffix == ".json":
            import json

            raw = json.loads(text)
            lines = json_key_lines(text)
        else:
            import tomllib

            raw = tomllib.loads(text)
            lines = toml_key_lines(text)
    except (ValueError, RecursionError) as error:
        # both parsers say the line in their message
        raise ConfigError(f"{path}: {error}", source=str(path)) from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: the file must hold a table of settings", source=str(path))
    return raw, lines


def _flatten(
    raw: dict[str, Any], leaves: dict[str, _Leaf], prefix: str, path: Path, lines: dict[str, int]
) -> Iterator[tuple[str, Any]]:
    for name, value in raw.items():
        key = prefix + name
        if key in leaves:
            yield key, value
        elif isinstance(value, dict) and any(leaf.startswith(key + ".") for leaf in leaves):
            yield from _flatten(value, leaves, key + ".", path, lines)
        else:
            _refuse_key(key, leaves, str(path), nearest_line(lines, key))


class _Conversion:
    """Turns one raw value into the type of its setting, or says why it cannot."""

    __slots__ = ("base", "key", "leaf", "line", "source", "textual")

    def __init__(
        self,
        key: str,
        source: str,
        line: int | None,
        leaf: _Leaf,
        *,
        textual: bool = False,
        base: Path | None = None,
    ) -> None:
        self.key = key
        self.source = source
        self.line = line
        self.leaf = leaf
        self.textual = textual
        self.base = base

    def __call__(self, value: Any) -> Any:
        return self._convert(value, self.leaf.kind)

    def _refuse(self, value: Any, wanted: str) -> NoReturn:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        place = f"{self.source}:{self.line}" if self.line is not None else self.source
        raise ConfigError(
            f"{place}: {shown} is not {wanted}",
            key=self.key,
            source=self.source,
            line=self.line if self.line is not None else None,
            hint=self.leaf.setting.doc or None,
        )

    def _convert(self, value: Any, kind: Any) -> Any:
        origin = get_origin(kind)
        if origin in (types.UnionType, typing.Union):
            return self._optional(value, kind)
        if origin is Literal:
            return self._choice(value, {choice: choice for choice in get_args(kind)})
        if origin is tuple:
            return self._tuple(value, get_args(kind)[0])
        if origin is dict:
            return self._table(value, get_args(kind)[1])
        if kind is Any:
            return value
        if isinstance(kind, type):
            if issubclass(kind, Enum):
                if isinstance(value, kind):
                    return value
                return self._choice(value, {member.value: member for member in kind})
            if kind is bool:
                return self._bool(value)
            if kind in (int, float):
                return self._number(value, kind)
            if kind is str:
                if not isinstance(value, str):
                    self._refuse(value, "text")
                return value
            if kind is Path:
                return self._path(value)
        raise ArgumentError(f"setting {self.key} has type {kind}, which settings cannot have")

    def _optional(self, value: Any, kind: Any) -> Any:
        inner = [part for part in get_args(kind) if part is not type(None)]
        if len(inner) != 1:
            raise ArgumentError(f"setting {self.key}: of unions only T | None is possible")
        if value is None or (self.textual and value.strip().lower() in ("", "none")):
            return None
        return self._convert(value, inner[0])

    def _choice(self, value: Any, choices: dict[Any, Any]) -> Any:
        for choice, meaning in choices.items():
            if (value == choice and type(value) is type(choice)) or (
                self.textual and value == str(choice)
            ):
                return meaning
        return self._refuse(value, "one of " + ", ".join(map(str, choices)))

    def _bool(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if self.textual and value.strip().lower() in _TRUE | _FALSE:
            return value.strip().lower() in _TRUE
        return self._refuse(value, "true or false")

    def _number(self, value: Any, kind: type) -> Any:
        wanted = "a whole number" if kind is int else "a number"
        if self.textual:
            try:
                value = kind(value)
            except ValueError:
                self._refuse(value, wanted)
        allowed = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            self._refuse(value, wanted)
        low, high = self.leaf.setting.minimum, self.leaf.setting.maximum
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            if low is not None and high is not None:
                self._refuse(value, f"from {low} to {high}")
            self._refuse(value, f"{low} or more" if low is not None else f"{high} or less")
        return kind(value)

    def _path(self, value: Any) -> Path:
        if not isinstance(value, str | os.PathLike):
            self._refuse(value, "a path")
        try:
            path = Path(value).expanduser()
        except (RuntimeError, ValueError):  # "~someone" who does not exist
            self._refuse(value, "a path with a known home folder")
        # a relative path in a file is relative to that file, not to wherever the process runs
        return path if self.base is None or path.is_absolute() else self.base / path

    def _tuple(self, value: Any, kind: Any) -> tuple[Any, ...]:
        if self.textual:
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            self._refuse(value, "a list")
        return tuple(self._convert(part, kind) for part in value)

    def _table(self, value: Any, kind: Any) -> dict[str, Any]:
        if self.textual:
            pairs = [part.partition("=") for part in value.split(",") if part.strip()]
            if any(not separator for _, separator, _ in pairs):
                self._refuse(value, "of the form key=value,key=value")
            value = {name.strip(): inner.strip() for name, _, inner in pairs}
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            self._refuse(value, "a table")
        return {name: self._convert(inner, kind) for name, inner in value.items()}


class PluginSettings(Config):
    """Settings of the plugin manager."""

    paths: tuple[Path, ...] = setting((), "folders to look for plugins in, beside installed ones")
    disabled: tuple[str, ...] = setting((), "ids of plugins to leave alone")
    required: tuple[str, ...] = setting((), "ids of plugins that must be active")
    lock: Path | None = setting(None, "lock file; only plugins in it, with these hashes, may run")
    settings: dict[str, Any] = setting({}, "a table of settings for each plugin, by id")


class Settings(Config):
    """Settings of the library.

    Examples
    --------
    >>> from rustllm.config import Settings
    >>> settings = Settings.load(environ={"RUSTLLM_PLUGINS_DISABLED": "acme.rag"})
    >>> settings.plugins.disabled
    ('acme.rag',)
    """

    safe_mode: bool = setting(False, "run with built-in plugins only")
    log: str = setting("", "log levels, such as info or rustllm.plugins=debug")
    plugins: PluginSettings

"""Which plugins may run: an allow-list with hashes of their files.

A plugin runs inside the process and is not sandboxed, so the one question worth asking is asked
before its code is imported: is this, byte for byte, what somebody decided to allow? The answer is
kept in a lock file::

    format = 1

    [[plugin]]
    id = "acme.sentences"
    version = "1.4.0"
    sha256 = "5f0c..."

The hash covers every file in the folder of the manifest except byte-code caches.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rustllm.errors import FileAccessError, FileFormatError, FileMissingError, PluginTrustError
from rustllm.plugins.discovery import Candidate

__all__ = ["Lock", "LockedPlugin", "changed_files", "hash_files", "hash_plugin", "verify_hash"]

_MAX_FILES = 20_000
_MAX_LOCK_BYTES = 1 << 22
_CACHE = "__pycache__"
_CODE = (".py", ".so", ".pyd", ".pyc", ".dll", ".dylib")


def hash_files(root: Path) -> dict[str, str]:
    """Return the sha256 of every file below `root`, by path relative to it, with slashes.

    Raises
    ------
    PluginTrustError
        A link leads out of the folder, there are over 20,000 files, or one cannot be read.
    """
    found: dict[str, str] = {}
    resolved = root.resolve()
    try:
        for folder, folders, names in os.walk(root, onerror=_raise):
            folders[:] = sorted(name for name in folders if name != _CACHE)
            for name in sorted([*names, *(f for f in folders if Path(folder, f).is_symlink())]):
                path = Path(folder, name)
                if path.is_symlink() and not path.resolve().is_relative_to(resolved):
                    raise PluginTrustError(
                        "a link leads out of the plugin's folder", path=str(path)
                    )
                if path.is_dir():
                    continue
                if len(found) == _MAX_FILES:
                    raise PluginTrustError(f"over {_MAX_FILES} files", path=str(root))
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[path.relative_to(root).as_posix()] = digest
    except OSError as error:
        raise PluginTrustError(f"cannot be read: {error.strerror}", path=str(root)) from error
    return found


def _raise(error: OSError) -> None:
    raise error


def hash_plugin(candidate: Candidate) -> str:
    """Return one sha256 over all files of a plugin, the same on every machine.

    Raises
    ------
    PluginTrustError
        The plugin was handed over as an object, so it has no files, or they cannot be read.
    """
    if candidate.root is None:
        raise PluginTrustError(
            "the plugin is an object without files, so it has no hash",
            plugin=candidate.manifest.id,
        )
    whole = hashlib.sha256()
    for name, digest in sorted(hash_files(candidate.root).items()):
        whole.update(f"{digest}  {name}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def verify_hash(candidate: Candidate, expected: str) -> None:
    """Raise unless the plugin's files are the ones that were allowed.

    Raises
    ------
    PluginTrustError
        Fields: ``plugin``, ``expected``, ``actual``.
    """
    actual = hash_plugin(candidate)
    if actual != expected.lower():
        raise PluginTrustError(
            f"the files of {candidate.manifest.id} are not the ones that were allowed "
            f"(sha256 {actual[:16]}..., allowed {expected[:16]}...)",
            hint="look at what changed, then write the lock file again",
            plugin=candidate.manifest.id,
            expected=expected,
            actual=actual,
        )


def changed_files(candidate: Candidate) -> tuple[str, ...]:
    """Compare a plugin's files with the hashes its installer wrote down.

    Returns
    -------
    tuple of str
        A line for each file that was changed or removed, and for each file of code that the
        installer does not know. Empty for plugins without such a list.
    """
    if candidate.record is None or candidate.root is None:
        return ()
    base = candidate.record.parent.parent.resolve()
    root = candidate.root.resolve()
    expected: dict[Path, str] = {}
    with candidate.record.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            path = (base / row[0]).resolve() if row else base
            if len(row) >= 2 and path.is_relative_to(root):
                expected[path] = row[1]
    if not expected:  # installed in place, for development: the list names no file of the package
        return ()
    lines = []
    there = {root / name: digest for name, digest in hash_files(root).items()}
    for path, recorded in sorted(expected.items()):
        name = path.relative_to(root).as_posix()
        if path not in there:
            if _CACHE not in path.parts:
                lines.append(f"{name} is missing")
        elif recorded.startswith("sha256="):
            try:
                digest = base64.urlsafe_b64decode(recorded[7:] + "==").hex()
            except binascii.Error:
                digest = ""
            if digest != there[path]:
                lines.append(f"{name} has been changed")
    for path in sorted(there):
        if path not in expected and path.suffix in _CODE:
            lines.append(f"{path.relative_to(root).as_posix()} was not installed with it")
    return tuple(lines)


@dataclass(frozen=True, slots=True)
class LockedPlugin:
    """One line of a lock file."""

    id: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file: the plugins that may run, with the hash of their files."""

    plugins: Mapping[str, LockedPlugin]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Lock:
        """Read a lock file.

        Raises
        ------
        FileMissingError, FileAccessError, FileFormatError
        """
        import tomllib

        try:
            with Path(path).open("rb") as file:
                data = file.read(_MAX_LOCK_BYTES + 1)
        except FileNotFoundError as error:
            raise FileMissingError("no such lock file", path=str(path)) from error
        except OSError as error:
            raise FileAccessError(
                f"cannot read the lock file: {error.strerror}", path=str(path), errno=error.errno
            ) from error
        try:
            if len(data) > _MAX_LOCK_BYTES:
                raise ValueError("too long")
            raw = tomllib.loads(data.decode("utf-8"))
            if raw.get("format") != 1:
                raise ValueError("format is not 1")
            plugins = {}
            for table in raw.get("plugin", []):
                locked = LockedPlugin(table["id"], table["version"], table["sha256"])
                if not re.fullmatch(r"[0-9a-fA-F]{64}", locked.sha256):
                    raise ValueError(f"sha256 of {locked.id} is not 64 hexadecimal digits")
                if locked.id in plugins:
                    raise ValueError(f"{locked.id} is there twice")
                plugins[locked.id] = locked
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
            raise FileFormatError(f"not a lock file of plugins: {what}", path=str(path)) from error
        return cls(plugins)

    @classmethod
    def of(cls, candidates: list[Candidate]) -> Lock:
        """Hash plugins as they are now."""
        plugins = {}
        for candidate in sorted(candidates, key=lambda candidate: candidate.manifest.id):
            manifest = candidate.manifest
            plugins[manifest.id] = LockedPlugin(
                manifest.id, str(manifest.version), hash_plugin(candidate)
            )
        return cls(plugins)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the lock file, whole or not at all."""
        text = "# Plugins that may run, and the sha256 over the files of each.\nformat = 1\n"
        for locked in self.plugins.values():
            text += "\n[[plugin]]\n"
            for key in ("id", "version", "sha256"):
                text += f"{key} = {json.dumps(getattr(locked, key))}\n"
        target = Path(path)
        temporary = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            temporary.write_text(text, encoding="utf-8", newline="\n")
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise FileAccessError(
                f"cannot write the lock file: {error.strerror}", path=str(path), errno=error.errno
            ) from error

    def sha256(self, plugin: str) -> str | None:
        """Return the hash that `plugin` must have, or None when it may not run."""
        locked = self.plugins.get(plugin)
        return None if locked is None else locked.sha256

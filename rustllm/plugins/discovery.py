"""Finding plugins, without importing any.

Three ways in: an installed distribution with an entry point in group ``rustllm.plugins`` whose
value names the package that holds the manifest; a folder with a manifest, or a folder of such
folders; an object handed over by the host. What cannot be read is reported, never skipped silently.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import util as import_util
from pathlib import Path
from typing import Any

from rustllm.errors import ManifestError, RustLLMError
from rustllm.plugins.manifest import FILE_NAME, Manifest, read_manifest

__all__ = ["GROUP", "Candidate", "Problem", "find_in_folder", "find_installed"]

GROUP = "rustllm.plugins"

_MAX_ENTRY_POINT_BYTES = 1 << 20
_SECTION = re.compile(r"^\s*\[([^\]\n]+)\]\s*$")
_ENTRY = re.compile(r"^\s*([^=#;\n][^=\n]*?)\s*=\s*([\w.]+)\s*(?::[\w.]+)?\s*(?:\[.*\])?\s*$")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that was found.

    Attributes
    ----------
    manifest : Manifest
    origin : {"built-in", "installed", "folder", "object"}
    place : str
        For people: where it was found.
    root : Path or None
        The folder that holds the manifest and all the plugin's code.
    record : Path or None
        The installer's list of file hashes.
    instance : object or None
        The plugin itself, when the host handed it over.
    """

    manifest: Manifest
    origin: str
    place: str
    root: Path | None = None
    record: Path | None = None
    instance: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """A plugin that was found and cannot be read."""

    place: str
    error: RustLLMError

    def __str__(self) -> str:
        # the error names the file itself
        return str(self.error) if self.place in str(self.error) else f"{self.place}: {self.error}"


def find_in_folder(folder: str | os.PathLike[str]) -> Iterator[Candidate | Problem]:
    """Yield the plugin in `folder`, or the plugins in its sub-folders, by name."""
    folder = Path(folder)
    if (folder / FILE_NAME).is_file():
        yield _read_folder(folder)
        return
    try:
        entries = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        yield Problem(
            str(folder),
            ManifestError(f"cannot look for plugins there: {error.strerror}", path=str(folder)),
        )
        return
    for path in entries:
        if (Path(path) / FILE_NAME).is_file():
            yield _read_folder(Path(path))


def _read_folder(folder: Path) -> Candidate | Problem:
    try:
        manifest = read_manifest(folder / FILE_NAME)
    except ManifestError as error:
        return Problem(str(folder), error)
    return Candidate(manifest, "folder", str(folder), root=folder)


def find_installed(path: Sequence[str] | None = None) -> Iterator[Candidate | Problem]:
    """Yield plugins of installed distributions, by folder and name.

    Parameters
    ----------
    path : sequence of str, optional
        Folders to look in; default ``sys.path``. Of a distribution that is installed more than
        once the first one counts, as it does for ``import``.

    Notes
    -----
    Reads the ``entry_points.txt`` of every distribution and nothing else of those that are not
    plugins. Distributions inside zip files are found through :mod:`importlib.metadata`.
    """
    seen: set[str] = set()
    for place in sys.path if path is None else path:
        if Path(place).is_file():
            found = list(_entry_points_in_archive(place))
        else:
            found = list(_entry_points_in_folder(place or "."))
        names = {name for name, _, _, _ in found}
        for name, version, package, info in found:
            if package is not None and name not in seen:
                yield _read_installed(name, version, package, info)
        seen |= names


_EntryPoint = tuple[str, str, str | None, Path | None]


def _entry_points_in_folder(folder: str) -> Iterator[_EntryPoint]:
    try:
        entries = sorted(
            Path(entry.path)
            for entry in os.scandir(folder)
            if entry.name.endswith((".dist-info", ".egg-info"))
        )
    except OSError:  # sys.path may name folders that are not there
        return
    for path in entries:
        stem = path.stem
        name, _, version = stem.partition("-")
        name = re.sub(r"[-_.]+", "-", name).lower()
        version = version.partition("-py")[0]
        yield name, version, None, None
        try:
            with (path / "entry_points.txt").open("rb") as file:
                data = file.read(_MAX_ENTRY_POINT_BYTES)
        except OSError:
            continue
        if GROUP.encode() in data:
            for package in _packages(data.decode("utf-8", "replace")):
                yield name, version, package, path


def _entry_points_in_archive(archive: str) -> Iterator[_EntryPoint]:
    from importlib import metadata

    for distribution in metadata.distributions(path=[archive]):
        name = re.sub(r"[-_.]+", "-", distribution.name).lower()
        yield name, distribution.version, None, None
        for package in _packages(distribution.read_text("entry_points.txt") or ""):
            yield name, distribution.version, package, None


def _packages(text: str) -> Iterator[str]:
    section = ""
    for line in text.splitlines():
        header = _SECTION.match(line)
        if header:
            section = header[1].strip()
        elif section == GROUP:
            entry = _ENTRY.match(line)
            if entry:
                yield entry[2]


def _read_installed(
    name: str, version: str, package: str, info: Path | None
) -> Candidate | Problem:
    place = f"{name} {version}"
    try:
        root = _package_folder(package, info)
        manifest = read_manifest(root / FILE_NAME, version=version or None)
    except ManifestError as error:
        return Problem(place, error)
    record = info / "RECORD" if info is not None and (info / "RECORD").is_file() else None
    return Candidate(manifest, "installed", f"{place} in {root}", root=root, record=record)


def _package_folder(package: str, info: Path | None) -> Path:
    """Find a package's folder; importing it is out of the question."""
    if info is not None:
        beside = info.parent.joinpath(*package.split("."))
        if (beside / FILE_NAME).is_file():
            return beside
    top, *rest = package.split(".")
    try:
        spec = import_util.find_spec(top)  # of a top-level name: looks, does not import
    except (ImportError, ValueError) as error:
        raise ManifestError(f"package {package} cannot be found: {error}") from error
    places: Iterable[str] = (spec.submodule_search_locations or ()) if spec is not None else ()
    for place in places:
        folder = Path(place).joinpath(*rest)
        if (folder / FILE_NAME).is_file():
            return folder
    raise ManifestError(
        f"package {package} holds no {FILE_NAME}",
        hint="ship the manifest as package data, or uninstall the distribution",
    )

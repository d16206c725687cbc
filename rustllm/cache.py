"""Where fetched files live, and how one gets its final name only when it is whole.

Not a general cache: nothing is evicted, every file was asked for by name and has a published hash.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rustllm.errors import FileAccessError, HashMismatchError, RustLLMError, StateError

__all__ = [
    "Progress",
    "cache_dir",
    "file_lock",
    "forget_verified",
    "is_verified",
    "sha256_of",
    "store_verified",
]

# What happens, bytes done, bytes in all (None when unknown).
Progress = Callable[[str, int, int | None], None]

_CHUNK_BYTES = 1 << 20


def cache_dir() -> Path:
    """Return the folder for fetched files: ``RUSTLLM_CACHE``, or the platform's cache folder.

    Examples
    --------
    >>> import os
    >>> from rustllm.cache import cache_dir
    >>> os.environ["RUSTLLM_CACHE"] = "/tmp/elsewhere"
    >>> cache_dir().as_posix()
    '/tmp/elsewhere'
    >>> del os.environ["RUSTLLM_CACHE"]
    """
    named = os.environ.get("RUSTLLM_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData/Local") / "rustllm" / "Cache"
    xdg = os.environ.get("XDG_CACHE_HOME")
    if xdg and Path(xdg).is_absolute():  # the specification says to ignore relative ones
        return Path(xdg) / "rustllm"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/rustllm"
    return Path.home() / ".cache" / "rustllm"


@contextmanager
def access_errors(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turn what the operating system says of a file into :class:`FileAccessError`."""
    try:
        yield
    except RustLLMError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        hint = None
        if error.errno == errno.ENOSPC:
            reason = "the disk is full"
            hint = "free some space or set RUSTLLM_CACHE to a folder on another disk"
            if needed is not None:
                reason += f"; {needed / 1e6:.0f} MB are needed"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "set RUSTLLM_CACHE to a folder that you may write"
        where = error.filename if isinstance(error.filename, str) else str(path)
        raise FileAccessError(
            reason, hint=hint, path=where, errno=error.errno, needed=needed
        ) from error


@contextmanager
def file_lock(path: Path, *, timeout: float = 3600.0, poll: float = 0.1) -> Iterator[None]:
    """Hold an exclusive lock between processes and threads on a lock file.

    The operating system drops the lock when the holder dies, so a killed process leaves no trace.

    Raises
    ------
    StateError
        Another process still holds it after ``timeout`` seconds.
    """
    with access_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + timeout
        while not try_lock(fd):
            if time.monotonic() > deadline:
                raise StateError(
                    f"another process has held {path} for {timeout:.0f} s",
                    hint="wait for it, or end it",
                    path=str(path),
                )
            time.sleep(poll)
        yield
    finally:
        os.close(fd)  # closing releases the lock


if sys.platform == "win32":
    import msvcrt

    def try_lock(fd: int) -> bool:
        """Lock a file against other holders until it is closed; tell whether that could be done."""
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def try_lock(fd: int) -> bool:
        """Lock a file against other holders until it is closed; tell whether that could be done."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """Return the SHA-256 of a file in hexadecimal, reading it once."""
    import hashlib

    digest = hashlib.sha256()
    with access_errors(path), path.open("rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        done = 0
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(f"checking {path.name}", done, total)
    return digest.hexdigest()


def store_verified(
    chunks: Iterable[bytes],
    path: Path,
    *,
    sha256: str,
    n_bytes: int,
    progress: Progress | None = None,
) -> None:
    """Write ``chunks`` to ``path``, which appears whole and with the right hash, or not at all.

    Parameters
    ----------
    chunks : iterable of bytes
        The content in order.
    path : Path
        Final name; an existing file is replaced at the end, in one step.
    sha256 : str
        Expected hash, hexadecimal.
    n_bytes : int
        Expected size; writing stops at the first byte too many.

    Raises
    ------
    HashMismatchError
        The content differs; nothing is left behind.
    FileAccessError
        The disk is full or the folder not writable; nothing is left behind.
    """
    import hashlib

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    digest = hashlib.sha256()
    done = 0
    try:
        with access_errors(path, needed=n_bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb", buffering=0) as file:
                for chunk in chunks:
                    done += len(chunk)
                    if done > n_bytes:
                        break
                    digest.update(chunk)
                    view = memoryview(chunk)
                    while view:  # an unbuffered write may be short, as on a full disk
                        view = view[file.write(view) :]
                    if progress is not None:
                        progress(f"unpacking {path.name}", done, n_bytes)
                os.fsync(file.fileno())
        actual = digest.hexdigest()
        if done != n_bytes or actual != sha256:
            size = "" if done == n_bytes else f" and not {n_bytes} bytes long"
            raise HashMismatchError(
                f"what was fetched is not the published file: its SHA-256 differs{size}; removed",
                hint="try again; if it stays so, the index that served it is not to be trusted",
                path=str(path),
                expected=sha256,
                actual=actual,
            )
        from rustllm.serialize.atomic import sync_folder

        with access_errors(path):
            partial.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()
    _remember_verified(path, sha256)


def is_verified(path: Path, sha256: str, progress: Progress | None = None) -> bool:
    """Tell whether a file has this hash; hashed once, then known by its size and time of change.

    A file that was changed since is hashed again. Use :func:`forget_verified` first to hash it in
    any case.
    """
    try:
        stat = path.stat()
    except OSError:
        return False
    try:
        known = json.loads(_marker(path).read_text("utf-8"))
        if known == {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}:
            return True
    except (OSError, ValueError):
        pass
    if sha256_of(path, progress) != sha256:
        return False
    _remember_verified(path, sha256)
    return True


def forget_verified(path: Path) -> None:
    """Make :func:`is_verified` hash this file again."""
    with suppress(OSError):
        _marker(path).unlink()


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that ``folder`` (or its nearest parent) is on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    from shutil import disk_usage

    return disk_usage(folder).free


def _marker(path: Path) -> Path:
    # The file may be in a folder that is not ours to write, so what is known of it is kept here.
    import hashlib

    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    return cache_dir() / "verified" / f"{name}.json"


def _remember_verified(path: Path, sha256: str) -> None:
    marker = _marker(path)
    partial = marker.with_suffix(f".{os.getpid()}.partial")
    with suppress(OSError):  # a cache that cannot be written only means hashing again
        stat = path.stat()
        known = {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        marker.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(known), "utf-8")
        partial.replace(marker)

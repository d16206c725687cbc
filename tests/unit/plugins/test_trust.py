"""Allow-list, file hashes, lock files."""

import base64
import hashlib
import sys

import pytest
from plugin_samples import Recorder, manifest, write_plugin

from rustllm.errors import FileAccessError, FileFormatError, FileMissingError, PluginTrustError
from rustllm.plugins import Lock, PluginManager, State
from rustllm.plugins.discovery import Candidate, find_in_folder, find_installed
from rustllm.plugins.imports import load_entry
from rustllm.plugins.trust import changed_files, hash_files, hash_plugin, verify_hash

CODE = "from plugin_samples import Recorder as P\n"


@pytest.fixture
def folder(tmp_path):
    return write_plugin(tmp_path / "p", "locked.p", CODE, extra='plugin = "code:P"\n')


def candidate(folder):
    (found,) = find_in_folder(folder)
    return found


def test_the_hash_covers_names_and_contents_but_no_caches(folder):
    first = hash_plugin(candidate(folder))
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "code.pyc").write_bytes(b"x")
    assert hash_plugin(candidate(folder)) == first
    (folder / "data").write_text("")
    second = hash_plugin(candidate(folder))
    (folder / "data").rename(folder / "other")
    assert len({first, second, hash_plugin(candidate(folder))}) == 3
    assert set(hash_files(folder)) == {"code.py", "other", "rustllm-plugin.toml"}


def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    (tmp_path / "secret").write_text("x")
    (folder / "inside").symlink_to(folder / "code.py")
    hash_files(folder)
    (folder / "outside").symlink_to(tmp_path / "secret")
    with pytest.raises(PluginTrustError, match="link leads out"):
        hash_files(folder)
    (folder / "outside").unlink()
    (folder / "dir").symlink_to(tmp_path)
    with pytest.raises(PluginTrustError, match="link leads out"):
        hash_files(folder)


def test_a_lock_file_comes_back_as_it_was_written(folder, tmp_path):
    lock = Lock.of([candidate(folder)])
    lock.write(tmp_path / "plugins.lock")
    assert Lock.read(tmp_path / "plugins.lock") == lock
    assert list(tmp_path.glob("*.part")) == []
    verify_hash(candidate(folder), lock.sha256("locked.p").upper())


@pytest.mark.parametrize(
    "text",
    [
        "format = 2",
        "format = 1\nplugin = 3",
        "format = 1\n[[plugin]]\nid = 'a'\nversion = '1'",
        "format = 1\n[[plugin]]\nid = 'a'\nversion = '1'\nsha256 = 'abc'",
        "format = 1\n[[plugin]]\nid = 'a'\nversion = '1'\nsha256 = 3",
        "\x00",
        "a = " + "[" * 20_000,
    ],
)
def test_a_damaged_lock_file_is_a_typed_error(tmp_path, text):
    path = tmp_path / "plugins.lock"
    path.write_text(text)
    with pytest.raises(FileFormatError):
        Lock.read(path)
    with pytest.raises(FileMissingError):
        PluginManager(lock=tmp_path / "none")


def test_only_what_is_in_the_lock_file_runs(folder, tmp_path):
    write_plugin(tmp_path / "q", "stranger", CODE, extra='plugin = "code:P"\n')
    manager = PluginManager(lock=Lock.of([candidate(folder)]), safe_mode=False)
    manager.discover(installed=False, folders=[tmp_path])
    manager.add(Recorder(), manifest("mine"))  # an object is the host's own choice
    report = manager.start()
    assert report.started == ("locked.p", "mine")
    assert report.blocked["stranger"].code == "trust"
    assert not [name for name in sys.modules if "stranger" in name]


def test_changed_files_are_not_imported(folder):
    lock = Lock.of([candidate(folder)])
    (folder / "code.py").write_text("raise RuntimeError('imported')\n")
    manager = PluginManager(lock=lock, safe_mode=False)
    manager.discover(installed=False, folders=[folder])
    error = manager.start().failed["locked.p"]
    assert isinstance(error, PluginTrustError)
    assert error.expected == lock.sha256("locked.p")
    assert manager.state("locked.p") is State.FAILED


def install(site, code):
    package = write_plugin(site / "trusted_pkg", "trusted", extra='plugin = "trusted_pkg:P"\n')
    (package / "__init__.py").write_text(code)
    info = site / "trusted-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[rustllm.plugins]\nt = trusted_pkg\n")
    rows = []
    for path in sorted(package.iterdir()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
        rows.append(f"trusted_pkg/{path.name},sha256={digest.decode().rstrip('=')},1")
    rows.append("trusted_pkg/__pycache__/__init__.cpython-311.pyc,,")
    (info / "RECORD").write_text("\n".join([*rows, "trusted-1.0.dist-info/RECORD,,"]) + "\n")
    return package


def test_files_are_compared_with_what_the_installer_wrote_down(tmp_path):
    package = install(tmp_path, CODE)
    (found,) = find_installed([str(tmp_path)])
    assert changed_files(found) == ()
    (package / "__init__.py").write_text("changed")
    (package / "extra.py").write_text("")
    (package / "note.txt").write_text("")
    assert changed_files(found) == (
        "__init__.py has been changed",
        "extra.py was not installed with it",
    )
    (package / "rustllm-plugin.toml").unlink()
    assert "rustllm-plugin.toml is missing" in changed_files(found)


def test_with_a_lock_code_outside_the_hashed_folder_is_refused(tmp_path):
    (found,) = find_in_folder(write_plugin(tmp_path / "x", "x"))
    outside = Candidate(found.manifest, "installed", "x", root=found.root)
    with pytest.raises(PluginTrustError, match="not inside the folder"):
        load_entry(outside, "json:loads", inside_root=True)
    assert load_entry(outside, "json:loads") is __import__("json").loads


def test_an_object_has_no_hash():
    from rustllm.plugins import parse_manifest

    with pytest.raises(PluginTrustError, match="no hash"):
        hash_plugin(Candidate(parse_manifest(manifest("a")), "object", "here", instance=Recorder()))


def test_files_that_cannot_be_read_or_written_are_typed_errors(folder, tmp_path):
    with pytest.raises(FileAccessError, match="cannot read the lock file"):
        Lock.read(tmp_path)
    with pytest.raises(FileAccessError, match="cannot write the lock file"):
        Lock.of([candidate(folder)]).write(tmp_path / "nowhere" / "lock.toml")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(PluginTrustError, match="cannot be read"):
        hash_files(tmp_path / "nowhere")


def test_a_lock_file_that_is_too_long_or_says_a_plugin_twice_is_refused(folder, tmp_path):
    path = tmp_path / "lock.toml"
    Lock.of([candidate(folder)]).write(path)
    text = path.read_text()
    entry = text[text.index("[[plugin]]") :]
    path.write_text(text + entry)
    with pytest.raises(FileFormatError, match="is there twice"):
        Lock.read(path)
    path.write_text(text + "#" * (1 << 24))
    with pytest.raises(FileFormatError, match="too long"):
        Lock.read(path)


def test_a_folder_of_too_many_files_is_refused(folder, monkeypatch):
    monkeypatch.setattr("rustllm.plugins.trust._MAX_FILES", len(hash_files(folder)))
    hash_files(folder)
    (folder / "one-more").touch()
    with pytest.raises(PluginTrustError, match="files"):
        hash_files(folder)

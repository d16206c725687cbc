"""The library's own formats are plugins, found through the same registry, at little cost."""

import os
import subprocess
import sys
import tomllib

import pytest
from plugin_samples import write_plugin

from rustllm.errors import PluginError, UnsupportedError
from rustllm.plugins import builtin, default_manager, lookup, names
from rustllm.plugins.imports import load_entry
from rustllm.plugins.lifecycle import State


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("RUSTLLM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    builtin._forget_manager()
    yield
    builtin._forget_manager()


def run(code, **environ):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_entry_of_every_built_in_manifest_can_be_imported():
    found = builtin.built_in_candidates()
    assert [c.manifest.id for c in found] == [f"rustllm.{floor}" for floor in builtin.FLOORS]
    for candidate in found:
        assert candidate.manifest.provides
        for provision in candidate.manifest.provides:
            assert load_entry(candidate, provision.entry) is not None


def test_a_built_in_format_is_looked_up_by_name():
    from rustllm.loaders.gguf import GGUFFile

    assert lookup("loader", "gguf") is GGUFFile
    assert default_manager().state("rustllm.loaders") is State.ACTIVE
    assert "gguf" in names("loader")


def test_every_built_in_name_is_the_same_with_and_without_a_manager():
    entries = dict(builtin._manifest_entries())
    assert len(entries) > 20
    before = {key: lookup(*key) for key in entries}
    assert builtin._manager is None, "the manifests were enough"
    assert {(kind, name) for kind, name in entries} == {
        (p.kind, p.name) for c in builtin.built_in_candidates() for p in c.manifest.provides
    }
    default_manager()
    assert {key: lookup(*key) for key in entries} == before


@pytest.mark.parametrize("configured", [False, True])
def test_a_built_in_name_needs_a_manager_only_where_settings_speak(configured):
    code = """
import sys
import tomllib
from rustllm.plugins import lookup
lookup("architecture", "llama")
print("rustllm.plugins.manager" in sys.modules)
"""
    environ = {"RUSTLLM_PLUGINS_DISABLED": "acme.any"} if configured else {}
    assert run(code, **environ).strip() == str(configured)


def test_importing_reads_no_manifest_and_a_lookup_imports_only_its_own_module():
    code = """
import sys, rustllm
assert not [m for m in sys.modules if m.startswith("rustllm.plugins")], "import rustllm"
from rustllm.plugins import lookup
from rustllm.plugins.builtin import default_manager
assert "tomllib" not in sys.modules, "import of the plugins package"
default_manager()
print(sorted(m for m in sys.modules if m.startswith(("rustllm.loaders.", "importlib.metadata"))))
lookup("loader", "gguf")
print("rustllm.loaders.safetensors" in sys.modules, "rustllm.loaders.gguf" in sys.modules)
"""
    assert run(code).split("\n")[:2] == ["[]", "False True"]


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(UnsupportedError, match="gguf"):
        lookup("loader", "no-such-format")


def test_a_third_party_plugin_is_started_when_its_name_is_asked_for(tmp_path, monkeypatch):
    provides = '[[provides]]\nkind = "loader"\nname = "{0}"\nentry = "code:load"\n'
    write_plugin(
        tmp_path / "p" / "one", "third.party", "load = 'mine'\n", extra=provides.format("mine")
    )
    write_plugin(
        tmp_path / "p" / "two",
        "blocked.party",
        extra='requires = { none = ">=2" }\n' + provides.format("other"),
    )
    # a built-in name is not replaced behind the user's back
    write_plugin(tmp_path / "p" / "three", "taker", "load = 1\n", extra=provides.format("gguf"))
    monkeypatch.setenv("RUSTLLM_PLUGINS_PATHS", str(tmp_path / "p"))
    assert lookup("loader", "mine") == "mine"
    assert {"gguf", "mine", "other"} <= set(names("loader"))
    with pytest.raises(PluginError, match="blocked.party, which cannot run: .*needs none >=2"):
        lookup("loader", "other")
    assert lookup("loader", "gguf").__name__ == "GGUFFile"
    assert default_manager().state("taker") is State.RESOLVED
    assert {p.name for p in builtin.providers("loader")} >= {"gguf", "mine"}


def test_a_disabled_or_safe_process_does_not_run_it(tmp_path, monkeypatch):
    provides = '[[provides]]\nkind = "loader"\nname = "mine"\nentry = "code:load"\n'
    write_plugin(tmp_path / "p", "third.party", "load = 1\n", extra=provides)
    monkeypatch.setenv("RUSTLLM_PLUGINS_PATHS", str(tmp_path / "p"))
    monkeypatch.setenv("RUSTLLM_PLUGINS_DISABLED", "third.party")
    with pytest.raises(PluginError, match="is disabled"):
        lookup("loader", "mine")
    monkeypatch.delenv("RUSTLLM_PLUGINS_DISABLED")
    monkeypatch.setenv("RUSTLLM_SAFE_MODE", "1")
    builtin._forget_manager()
    with pytest.raises(UnsupportedError):
        lookup("loader", "mine")
    assert lookup("loader", "gguf") is not None


def test_eight_threads_get_the_same_manager():
    import threading

    found, barrier = [], threading.Barrier(8)

    def ask():
        barrier.wait()
        found.append((default_manager(), lookup("loader", "gguf")))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(found)) == 1


LOADER = """
class Opened:
    def __init__(self, path, **options):
        self.path, self.options = path, options


def tokenizer(path, **options):
    from rustllm.testing import ByteTokenizer

    return ByteTokenizer()
"""


def test_files_that_nothing_built_in_knows_are_offered_to_plugins(tmp_path, monkeypatch):
    from rustllm.loaders.opening import open_file
    from rustllm.tokenizers import load_tokenizer

    provides = (
        '[[provides]]\nkind = "loader"\nname = "odd"\nentry = "code:Opened"\nmagic = "0bad"\n'
        '[[provides]]\nkind = "loader"\nname = "named"\nentry = "code:Opened"\n'
        'suffixes = [".odd"]\n'
        '[[provides]]\nkind = "tokenizer_format"\nname = "odd"\nentry = "code:tokenizer"\n'
        'magic = "0bad"\n'
        '[[provides]]\nkind = "loader"\nname = "broken"\nentry = "code:Opened"\nmagic = "xy"\n'
    )
    write_plugin(tmp_path / "p", "third.files", LOADER, extra=provides)
    binary, named, other = (tmp_path / name for name in ("a.bin", "b.odd", "c.bin"))
    binary.write_bytes(b"\x0b\xad\x00\x01" * 8)
    named.write_text("plain words")
    other.write_bytes(b"\x00\x01\x02\x03" * 8)
    assert type(open_file(binary)).__name__ != "Opened"
    with pytest.raises(UnsupportedError):
        load_tokenizer(binary)
    builtin._forget_manager()
    monkeypatch.setenv("RUSTLLM_PLUGINS_PATHS", str(tmp_path / "p"))
    assert open_file(binary, mmap=False).options == {"mmap": False}
    assert type(open_file(named)).__name__ == "Opened"
    assert type(open_file(other)).__name__ != "Opened"
    assert load_tokenizer(binary).encode("a") == [97]


def test_an_architecture_comes_from_a_plugin_and_an_unknown_one_is_named(tmp_path, monkeypatch):
    from rustllm.models.load import architecture

    provides = '[[provides]]\nkind = "architecture"\nname = "mine"\nentry = "code:plan"\n'
    write_plugin(tmp_path / "p", "third.arch", "def plan(config): return 1\n", extra=provides)
    monkeypatch.setenv("RUSTLLM_PLUGINS_PATHS", str(tmp_path / "p"))
    assert architecture("mine")(None) == 1
    assert architecture("llama").__module__ == "rustllm.models.llama"
    with pytest.raises(UnsupportedError, match="known: .*llama") as caught:
        architecture("none")
    assert caught.value.key == "general.architecture"


@pytest.mark.parametrize("floor", builtin.FLOORS)
def test_the_short_reader_of_our_manifests_reads_what_tomllib_does(floor):
    text = (builtin._HOME / floor / "rustllm-plugin.toml").read_text("utf-8")
    full = [
        {key: offer[key] for key in ("kind", "name", "entry")}
        for offer in tomllib.loads(text)["provides"]
    ]
    short = [
        {key: offer[key] for key in ("kind", "name", "entry")} for offer in builtin._offers(text)
    ]
    assert short == full

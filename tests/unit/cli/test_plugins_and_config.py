"""`rustllm plugins` and `rustllm config`: answers without importing a plugin."""

import json
import sys

import pytest
from plugin_samples import write_plugin

from rustllm.cli import main

EXPLODE = "raise RuntimeError('imported')\n"


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name in ("CONFIG", "SAFE_MODE", "PLUGINS_PATHS", "PLUGINS_LOCK", "LOG"):
        monkeypatch.delenv(f"RUSTLLM_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    folder = tmp_path / "plugins"
    write_plugin(folder / "a", "acme.a", EXPLODE, extra='requires = { "acme.b" = ">=2" }\n')
    write_plugin(
        folder / "b",
        "acme.b",
        EXPLODE,
        extra='plugin = "code:P"\n[[provides]]\nkind = "t"\nname = "x"\nentry = "code:x"\n',
    )
    return folder


@pytest.fixture
def call(world, capsys):
    def call(*words, status=0):
        extra = ["--folder", str(world)] if words[0] == "plugins" else []
        assert main([*words, *extra]) == status
        assert not [name for name in sys.modules if name.startswith("rustllm_plugin_acme")]
        return capsys.readouterr()

    return call


def test_list_shows_every_plugin_and_why_it_cannot_run(call):
    out = call("plugins", "list").out
    assert "acme.b" in out
    assert "acme.a 1.0 needs acme.b >=2; found 1.0" in out
    listed = json.loads(call("plugins", "list", "--json").out)["plugins"]
    states = {entry["id"]: entry["state"] for entry in listed}
    assert states["acme.a"] == "blocked"
    assert states["acme.b"] == "resolved"
    assert states["rustllm.loaders"] == "active"


def test_doctor_tells_by_its_status_whether_anything_is_wrong(call, world):
    report = call("plugins", "doctor", status=7).out
    assert "fix: install acme.b >=2" in report
    found = json.loads(call("plugins", "doctor", "--json", status=7).out)
    assert found["errors"] == 1
    (world / "a" / "rustllm-plugin.toml").write_text("api = 1\n")
    assert "must be text" in call("plugins", "doctor", status=7).out
    for path in (world / "a").iterdir():
        path.unlink()
    assert "0 errors" in call("plugins", "doctor").out


def test_why_follows_the_chain_to_its_root(call, world):
    write_plugin(world / "c", "acme.c", extra='requires = { "acme.a" = "" }\n')
    lines = call("plugins", "why", "acme.c").out
    assert "requires acme.a: found 1.0, blocked" in lines
    assert "because acme.a 1.0 needs acme.b >=2" in lines
    assert "needed by acme.a 1.0" in call("plugins", "why", "acme.b").out
    assert json.loads(call("plugins", "why", "acme.a", "--json").out)["plugin"]["fix"]
    assert "did you mean acme.a?" in call("plugins", "why", "acme.aa", status=7).err
    assert "needs an id" in call("plugins", "why", status=2).err


def test_graph_prints_text_dot_and_json(call):
    assert "  requires acme.b" in call("plugins", "graph").out
    dot = call("plugins", "graph", "--dot").out
    assert dot.startswith("digraph plugins {")
    assert '"acme.a" -> "acme.b"' in dot
    edges = json.loads(call("plugins", "graph", "--json").out)["edges"]
    assert {"plugin": "acme.a", "relation": "requires", "other": "acme.b"} in edges


def test_lock_allows_what_is_there_and_nothing_else(call, world, tmp_path, monkeypatch):
    lock = tmp_path / "plugins.lock"
    assert "acme.b 1.0 " in call("plugins", "lock", str(lock)).out
    monkeypatch.setenv("RUSTLLM_PLUGINS_LOCK", str(lock))
    write_plugin(world / "new", "acme.new")
    (world / "b" / "code.py").write_text("changed\n")
    report = call("plugins", "doctor", status=7).out
    assert "acme.new 1.0 is not in the lock file" in report
    assert "the files of acme.b are not the ones that were allowed" in report


def test_config_show_names_the_source_of_every_value(call, tmp_path, monkeypatch):
    file = tmp_path / "s.toml"
    file.write_text('\n[plugins]\ndisabled = ["a"]\n')
    monkeypatch.setenv("RUSTLLM_PLUGINS_DISABLED", "b")
    monkeypatch.setenv("RUSTLLM_SAFE_MODE", "1")
    out = call("config", "show", "--config", str(file)).out
    assert "safe_mode = true" in out
    assert 'plugins.disabled = ["b"]' in out
    assert f'#   overrides ["a"] of {file}:3' in out
    shown = json.loads(call("config", "show", "--config", str(file), "--json").out)["settings"]
    assert shown["plugins.disabled"]["source"] == "RUSTLLM_PLUGINS_DISABLED"
    assert shown["safe_mode"]["value"] is True


def test_a_mistake_in_the_settings_names_file_and_line(call, tmp_path):
    file = tmp_path / "s.toml"
    file.write_text("\nsafe_mod = true\n")
    message = call("config", "show", "--config", str(file), status=2).err
    assert f"{file}:2" in message
    assert "did you mean safe_mode?" in message

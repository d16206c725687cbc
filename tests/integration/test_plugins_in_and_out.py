"""A plugin that is a real distribution: installed, found, used, refused, locked, uninstalled."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec

import pytest
from paths import ROOT

EXAMPLE = ROOT / "examples/plugin-reverse-tokenizer"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(find_spec(name) for name in ("pip", "setuptools")), reason="needs pip, setuptools"
    ),
]


class Venv:
    """A fresh environment that sees this one's packages, and rustllm from this tree."""

    def __init__(self, folder):
        self.folder = folder
        self.python = str(folder / "venv/bin/python")
        self.call(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"))
        (self.site,) = (folder / "venv/lib").glob("python*/site-packages")
        places = [
            str(ROOT),
            *dict.fromkeys(sysconfig.get_paths()[k] for k in ("purelib", "platlib")),
        ]
        (self.site / "outer.pth").write_text("\n".join(places) + "\n")

    def call(self, *command, ok=True, **environ):
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("RUSTLLM_", "PYTHON"))}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**keep, "HOME": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", **environ},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if ok:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def pip(self, *words):
        return self.call(
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "--disable-pip-version-check",
            *words,
        )

    def install(self, source):
        self.pip(
            "install", "--no-build-isolation", "--no-deps", "--no-index", "--force-reinstall",
            "--no-compile", str(source),
        )  # fmt: skip

    def rustllm(self, *words, **keys):
        return self.call(self.python, "-m", "rustllm", *words, **keys)

    def plugin(self, **environ):
        listed = json.loads(self.rustllm("plugins", "list", "--json", **environ).stdout)["plugins"]
        return next((entry for entry in listed if entry["id"] == "example.reverse"), None)

    def run(self, code, **keys):
        return self.call(self.python, "-W", "error", "-c", code, **keys)


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    return Venv(tmp_path_factory.mktemp("venv"))


@pytest.fixture
def source(tmp_path):
    return shutil.copytree(EXAMPLE, tmp_path / "example")


USE = """
import sys
from rustllm.plugins import default_manager, lookup, names
assert "reverse" in names("tokenizer")
assert not [m for m in sys.modules if "rustllm_reverse" in m], "imported by looking"
tokenizer = lookup("tokenizer", "reverse")()
ids = tokenizer.encode("h\\u00e9 \\U0001f600")
assert tokenizer.decode(ids) == "h\\u00e9 \\U0001f600"
manager = default_manager()
assert manager.channel("example.reverse.count").request("four", timeout=30) == 4
assert manager.hook("tokenizer.names")() == ["reverse"]
left = manager.stop("example.reverse")["example.reverse"]
assert not left, left
print(ids)
"""


def test_from_installation_to_removal(venv, source):
    assert venv.plugin() is None

    # installed and discovered, with the version of the distribution, without being imported
    venv.install(source)
    found = venv.plugin()
    assert (found["version"], found["state"], found["origin"]) == ("1.0.0", "resolved", "installed")
    assert venv.rustllm("plugins", "doctor").stdout.endswith("0 errors\n")

    # used, from Python and from the command line
    assert venv.run(USE).stdout.startswith("[151, 60, 86, 223,")
    assert venv.rustllm("encode", "--tokenizer", "reverse", "hi").stdout.split() == ["151", "150"]

    # disabled; and in safe mode
    refused = venv.run(USE, ok=False, RUSTLLM_PLUGINS_DISABLED="example.reverse")
    assert "example.reverse 1.0.0 is disabled" in refused.stderr
    assert venv.plugin(RUSTLLM_PLUGINS_DISABLED="example.reverse")["state"] == "disabled"
    assert venv.plugin(RUSTLLM_SAFE_MODE="1")["state"] == "blocked"

    # locked: runs as it is, and not after a change
    lock = str(venv.folder / "plugins.lock")
    venv.rustllm("plugins", "lock", lock)
    venv.run(USE, RUSTLLM_PLUGINS_LOCK=lock)
    module = venv.site / "rustllm_reverse/tokenizer.py"
    module.write_text(module.read_text() + "\nprint('changed')\n")
    refused = venv.run(USE, ok=False, RUSTLLM_PLUGINS_LOCK=lock)
    assert "PluginTrustError" in refused.stderr
    assert "changed" not in refused.stdout
    doctor = venv.rustllm("plugins", "doctor", ok=False)
    assert doctor.returncode == 7
    assert "tokenizer.py has been changed" in doctor.stdout

    # a later version that works with another rustllm only is refused, with the reason
    manifest = source / "src/rustllm_reverse/rustllm-plugin.toml"
    manifest.write_text(manifest.read_text().replace(">=0.1,<2", ">=99"))
    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace('"1.0.0"', '"2.0.0"'))
    venv.install(source)
    found = venv.plugin()
    assert (found["version"], found["state"]) == ("2.0.0", "blocked")
    assert "needs rustllm >=99; found 0." in found["reason"]
    why = venv.rustllm("plugins", "why", "example.reverse").stdout
    assert "requires rustllm >=99: here is 0." in why
    assert "fix: install rustllm >=99" in why
    refused = venv.run(USE, ok=False)
    assert "cannot run: example.reverse 2.0.0 needs rustllm >=99" in refused.stderr

    # uninstalled
    venv.pip("uninstall", "--yes", "rustllm-reverse-tokenizer")
    assert venv.plugin() is None
    assert not (venv.site / "rustllm_reverse").exists()


def test_an_editable_installation_is_found_too(venv, source):
    venv.pip(
        "install", "--no-build-isolation", "--no-deps", "--no-index", "--editable", str(source)
    )
    try:
        found = venv.plugin()
        assert (found["state"], found["origin"]) == ("resolved", "installed")
        assert str(source) in found["place"]
        venv.run(USE)
        assert venv.rustllm("plugins", "doctor").returncode == 0
    finally:
        venv.pip("uninstall", "--yes", "rustllm-reverse-tokenizer")

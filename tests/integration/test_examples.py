"""Every program of examples/ runs as it stands, without a warning, and says something."""

import ast
import os
import subprocess
import sys

import pytest
from paths import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
pytestmark = pytest.mark.skipif(not EXAMPLES, reason="examples are not part of this tree")


def run(path, folder):
    # In a folder of its own, so that nothing of the tree is found by accident and nothing is left.
    return subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, tmp_path, request):
    if "load_model" in path.read_text("utf-8"):
        request.getfixturevalue("smollm2_path")
    done = run(path, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and not done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(path):
    text = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 80


def test_the_list_of_examples_is_complete():
    listed = (ROOT / "examples/README.md").read_text("utf-8")
    for path in (ROOT / "examples").iterdir():
        if path.name != "README.md" and not path.name.startswith((".", "_")):
            assert f"({path.name})" in listed, path.name


def test_an_example_that_fails_is_noticed(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(3)\n")
    assert run(broken, tmp_path).returncode == 3

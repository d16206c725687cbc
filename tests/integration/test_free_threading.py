"""What setup.py marks as running without Python's lock, and what the page says of the rest."""

import ast
import re
import subprocess
import sys
import sysconfig

import pytest
from paths import ROOT

MODULES = {path.stem for path in (ROOT / "rustllm").rglob("*.pyx")}


def marked():
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text("utf-8"))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FREE_THREADED":
            return set(node.value.value.split())
    raise AssertionError("setup.py has no FREE_THREADED")


def explained():
    page = (ROOT / "docs/free-threading.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_module_is_marked_or_explained_and_none_both():
    assert marked() | explained() == MODULES
    assert not marked() & explained()


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="an ordinary Python")
@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_lock_comes_back_for_unmarked_modules_alone(module):
    code = f"import sys, rustllm._core.{module}; print(sys._is_gil_enabled())"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert (done.stdout.strip(), done.stderr) == (str(module not in marked()), "")

"""Imports run downwards only, over the floors that docs/architecture.md draws."""

import ast
import re
from pathlib import Path

import pytest
from paths import ROOT

PACKAGE = ROOT / "rustllm"
FLOORS = {
    "_core": 0,
    "plugins": 2,
    "loaders": 3,
    "tokenizers": 4,
    "models": 5,
    "corpus": 6,
    "integrations": 6,
    "cli": 7,
}
FOUNDATION = 1  # every other module of rustllm
SOURCES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])


def floor_of(module: str) -> int:
    parts = module.split(".")
    return FLOORS.get(parts[1], FOUNDATION) if len(parts) > 1 else FOUNDATION


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of_python(text: str) -> set[str]:
    """Every module of ours that is imported, at the top or later; a type's name is no import."""
    tree = ast.parse(text)
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(id(child) for statement in node.body for child in ast.walk(statement))
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.split(".")[0] == "rustllm"}


def imports_of_cython(text: str) -> set[str]:
    found = re.findall(r"^\s*from\s+(rustllm[\w.]*)\s+c?import", text, re.MULTILINE)
    found += re.findall(r"^\s*c?import\s+(rustllm[\w.]*)", text, re.MULTILINE)
    return set(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_run_downwards_only(path):
    if path.name.startswith(("__init__.", "__main__.")) and path.parent == PACKAGE:
        pytest.skip("hands out the names of every floor")
    text = path.read_text("utf-8")
    imports = imports_of_python(text) if path.suffix == ".py" else imports_of_cython(text)
    own = floor_of(module_of(path))
    upwards = sorted(name for name in imports if floor_of(name) > own)
    assert upwards == []


def test_the_check_sees_an_upward_import():
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import rustllm.cli\n"
    assert imports_of_python(text) == set()
    assert imports_of_python("def f():\n    from rustllm.cli import main\n") == {"rustllm.cli.main"}
    assert imports_of_cython("from rustllm.loaders.gguf cimport x\n") == {"rustllm.loaders.gguf"}
    assert floor_of("rustllm.cli.main") > floor_of("rustllm.models") > floor_of("rustllm.errors")

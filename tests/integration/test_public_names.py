"""Every public name can be had, is documented, and is known to a type checker."""

import ast
import inspect
import subprocess
import sys

import pytest
from paths import ROOT

import rustllm

SOURCE = (ROOT / "rustllm/__init__.py").read_text("utf-8")


def test_all_is_what_is_handed_out():
    assert set(rustllm.__all__) == {"__version__", *rustllm._PUBLIC}
    assert set(rustllm.__all__) <= set(dir(rustllm))


@pytest.mark.parametrize("name", sorted(rustllm._PUBLIC))
def test_a_public_name_is_there_and_documented(name):
    value = getattr(rustllm, name)
    if inspect.ismodule(value) or inspect.isclass(value) or callable(value):
        text = inspect.getdoc(value)
        assert text and len(text) > 20


def test_a_type_checker_sees_every_public_name():
    tree = ast.parse(SOURCE)
    seen = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                if isinstance(child, (ast.Import, ast.ImportFrom)):
                    seen.update(alias.asname or alias.name for alias in child.names)
    assert seen == set(rustllm._PUBLIC)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        rustllm.no_such_name  # noqa: B018


def test_every_public_name_loads_without_the_optional_packages():
    optional = "jinja2 tiktoken tokenizers gguf torch transformers safetensors rich regex"
    code = (
        "import sys\n"
        f"for name in {optional!r}.split(): sys.modules[name] = None\n"
        "import rustllm\n"
        "for name in rustllm.__all__: getattr(rustllm, name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr

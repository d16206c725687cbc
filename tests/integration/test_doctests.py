"""Every example in a docstring runs, in Python and in compiled modules alike."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import rustllm
from rustllm.errors import MissingDependencyError


def docstrings():
    """Name, text and module of every docstring with an example, each once."""
    seen = set()
    for info in pkgutil.walk_packages(rustllm.__path__, "rustllm."):
        if info.name == "rustllm.__main__":
            continue
        try:
            module = importlib.import_module(info.name)
        except MissingDependencyError:
            continue
        pending = [(info.name, module)]
        while pending:
            name, value = pending.pop()
            text = getattr(value, "__doc__", None)
            if isinstance(text, str) and ">>>" in text and (name, text) not in seen:
                seen.add((name, text))
                yield name, text, vars(module)
            if not (inspect.ismodule(value) or inspect.isclass(value)):
                continue
            for key, member in vars(value).items():
                if isinstance(member, (staticmethod, classmethod)):
                    member = member.__func__
                if isinstance(member, property):
                    member = member.fget
                home = getattr(member, "__module__", None)
                if not inspect.ismodule(member) and home == info.name and callable(member):
                    pending.append((f"{name}.{key}", member))


EXAMPLES = sorted(docstrings(), key=lambda example: example[0])


@pytest.mark.parametrize(("name", "text", "names"), EXAMPLES, ids=[e[0] for e in EXAMPLES])
def test_the_examples_run(name, text, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest(text, dict(names), name, None, None)
    failures = []
    runner = doctest.DocTestRunner(optionflags=options, verbose=False)
    runner.run(test, out=failures.append)
    assert not runner.failures, "".join(failures)


def test_there_are_examples_in_compiled_modules_too():
    assert any(name.startswith("rustllm._core.") for name, _, _ in EXAMPLES)
    assert len(EXAMPLES) > 40

"""The examples in the docstrings of the memory and error modules run as written."""

import doctest
from importlib import import_module

import pytest

MODULES = [
    "rustllm._core.alloc",
    "rustllm._core.arena",
    "rustllm._core.context",
    "rustllm._core.cow",
    "rustllm._core.intern",
    "rustllm._core.pool",
    "rustllm._core.utf8",
    "rustllm._core.view",
    "rustllm.allocators",
    "rustllm.error_conversion",
    "rustllm.error_report",
    "rustllm.errors",
    "rustllm.memory",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_as_written(name):
    outcome = doctest.testmod(import_module(name))
    assert outcome.failed == 0
    assert outcome.attempted > 0 or name == "rustllm.memory"

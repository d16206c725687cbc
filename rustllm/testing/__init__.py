"""Tests that any implementation of a trait can run, and small implementations to test against.

Derive from a kit, give `make`, and let pytest collect it, or call its `run`::

    class TestMine(rustllm.testing.TokenizerConformance):
        def make(self):
            return MyTokenizer()
"""

from rustllm.testing.conformance import (
    BuilderConformance,
    ConfigConformance,
    Conformance,
    LanguageModelConformance,
    ModelConformance,
    PluginConformance,
    TokenConformance,
    TokenizerConformance,
)
from rustllm.testing.hostile import check_parser, each_allocation_failing, mutations
from rustllm.testing.reference import (
    BigramBuilder,
    BigramConfig,
    BigramModel,
    BigramState,
    ByteTokenizer,
)

__all__ = [
    "BigramBuilder",
    "BigramConfig",
    "BigramModel",
    "BigramState",
    "BuilderConformance",
    "ByteTokenizer",
    "ConfigConformance",
    "Conformance",
    "LanguageModelConformance",
    "ModelConformance",
    "PluginConformance",
    "TokenConformance",
    "TokenizerConformance",
    "check_parser",
    "each_allocation_failing",
    "mutations",
]

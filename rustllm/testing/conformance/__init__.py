"""The kits: checks that every implementation of a trait has to pass."""

from rustllm.testing.conformance.base import Conformance
from rustllm.testing.conformance.model import (
    BuilderConformance,
    ConfigConformance,
    LanguageModelConformance,
    ModelConformance,
)
from rustllm.testing.conformance.plugin import PluginConformance, TokenConformance
from rustllm.testing.conformance.tokenizer import TokenizerConformance

__all__ = [
    "BuilderConformance",
    "ConfigConformance",
    "Conformance",
    "LanguageModelConformance",
    "ModelConformance",
    "PluginConformance",
    "TokenConformance",
    "TokenizerConformance",
]

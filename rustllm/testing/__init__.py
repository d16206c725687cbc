"""Tests that any implementation of a trait can run, and small implementations to test against."""

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
    "ByteTokenizer",
]

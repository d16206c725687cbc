"""Lazy iterators over tokens: windows, chunks, batches, and `TokenIterator` with all as methods."""

from rustllm.iterators.batching import batched
from rustllm.iterators.grouping import ArrayGroups, chunks, windows
from rustllm.iterators.tokens import TokenIterator

__all__ = ["ArrayGroups", "TokenIterator", "batched", "chunks", "windows"]

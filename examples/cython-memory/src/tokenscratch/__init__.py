"""N-grams of tokens, counted in memory of rustllm."""

from tokenscratch._ngrams import count_ngrams, repeated

__all__ = ["count_ngrams", "repeated"]

"""Tokenizers: every common vocabulary, exactly."""

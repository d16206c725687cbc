"""Compiled floor: memory, tokens, kernels. Imports nothing above it but numpy."""

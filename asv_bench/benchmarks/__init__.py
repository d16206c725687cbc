"""Benchmarks by capability; `asv run --quick --python=same` runs them on the working tree."""

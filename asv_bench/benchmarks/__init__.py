"""Benchmarks by capability; `asv run --quick --python=same` runs them on the working tree."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("rustllm") is None:  # built in place and not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

"""Measuring and comparing: warm-up, repeats, medians with their spread, interleaved rounds, JSON.

`measure` times one callable; `compare` times several in turn, so that a machine that slows down
slows all of them, and gives ratios with the uncertainty they have.
"""

from rustllm.bench.comparison import Comparison, Ratio, compare
from rustllm.bench.machine import machine_facts
from rustllm.bench.measurement import Measurement, measure

__all__ = ["Comparison", "Measurement", "Ratio", "compare", "machine_facts", "measure"]

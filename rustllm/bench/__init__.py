"""Measuring and comparing: warm-up, repeats, medians with their spread, interleaved rounds, JSON.

`measure` times one callable; `compare` times several in turn, so that a machine that slows down
slows all of them, and gives ratios with the uncertainty they have. `measure_peaks` finds the limits
of the machine, and a `Roofline` holds kernels beside them.
"""

from rustllm.bench.comparison import Comparison, Ratio, compare
from rustllm.bench.machine import machine_facts
from rustllm.bench.measurement import Measurement, measure
from rustllm.bench.peaks import Peaks, measure_peaks
from rustllm.bench.roofline import KernelSpeed, Roofline
from rustllm.bench.roofline_plot import draw_roofline

__all__ = [
    "Comparison",
    "KernelSpeed",
    "Measurement",
    "Peaks",
    "Ratio",
    "Roofline",
    "compare",
    "draw_roofline",
    "machine_facts",
    "measure",
    "measure_peaks",
]

"""Two ways of doing one thing, timed in turn, with the uncertainty of their ratio."""

import numpy as np

from rustllm import bench, windows

ids = np.arange(20_000, dtype=np.uint32)


def views():
    return sum(len(window) for window in windows(ids, 64, stride=16))


def slices():
    return sum(len(ids[i : i + 64]) for i in range(0, len(ids) - 63, 16))


# Each candidate has its turn in every round: what slows the machine down slows both.
result = bench.compare(
    {"windows": views, "slices": slices}, rounds=5, min_time=0.002, check=lambda a, b: a == b
)
print(result)
ratio = result.ratio("windows", to="slices")
print(f"95 in 100 resamplings lie between {ratio.low:.2f} and {ratio.high:.2f}")

#!/usr/bin/env python3
"""Count the instructions of the kernels on an emulated aarch64, level by level.

    tools/aarch64.sh build/aarch64 && python tools/neon_counts.py build/aarch64

Emulation says nothing about time. It does say how many instructions a level takes for the same
result, counted as `instruction_gate.py` counts: the difference between many repetitions and few.
The folder is the one that `aarch64.sh` compiled into. Needs qemu-user and gcc.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
LEVELS = ("scalar", "neon", "dotprod")
#: Workloads of instruction_workloads.py whose code differs between the levels.
WORKLOADS = (
    "linear_q4_1_one",
    "linear_q4_1_many",
    "linear_q5_0_one",
    "linear_q5_0_many",
    "linear_q8_0_one",
    "linear_q8_0_many",
    "linear_q6_k_one",
    "linear_q6_k_many",
    "linear_f16_one",
    "attend_one",
    "attend_many",
    "silu",
    "softmax",
)


def count(folder: Path, plugin: Path, level: str, workload: str, repetitions: int) -> int:
    """Return the instructions of a process that repeats a workload so often."""
    sysroot = folder / "sysroot"
    done = subprocess.run(
        ["qemu-aarch64", "-cpu", "max", "-plugin", str(plugin), "-d", "plugin"]
        + ["-L", str(sysroot), str(next((sysroot / "usr" / "bin").glob("python3.*[0-9]")))]
        + [str(TOOLS / "instruction_workloads.py"), workload, str(repetitions)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": f"{folder / 'tree'}:{folder / 'site'}",
            "RUSTLLM_SIMD": level,
            "OPENBLAS_NUM_THREADS": "1",
        },
    )
    found = re.search(r"instructions: (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"{workload}: {done.stderr[-2000:]}")
    return int(found[1])


def main() -> int:
    """Print a table: instructions of one repetition at every level."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what aarch64.sh compiled into")
    parser.add_argument("workload", nargs="*", default=WORKLOADS, help="(default: all)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        plugin = Path(work) / "instructions.so"
        subprocess.run(
            [
                "gcc",
                "-O2",
                "-shared",
                "-fPIC",
                "-o",
                str(plugin),
                str(TOOLS / "qemu_instructions.c"),
            ],
            check=True,
        )
        print("| kernel |", " | ".join(LEVELS), "| fewer, neon | fewer, dotprod |")
        print("|---|" + "---:|" * (len(LEVELS) + 2))
        for name in args.workload:
            counts = []
            for level in LEVELS:
                few, many = (count(args.folder, plugin, level, name, n) for n in (2, 6))
                counts.append((many - few) / 4)
            ratios = [f"{counts[0] / counts[i]:.1f}" for i in (1, 2)]
            print(f"| {name} |", " | ".join([*(f"{c:,.0f}" for c in counts), *ratios]), "|")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

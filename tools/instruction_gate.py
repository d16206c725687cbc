#!/usr/bin/env python3
"""Count the instructions of the hot kernels with callgrind, and fail where they grew.

    python tools/instruction_gate.py                 compare with tools/instruction_counts.json
    python tools/instruction_gate.py --update        write that file
    python tools/instruction_gate.py encode_english  some of them

Wall time on a shared machine swings by tens of percent; instructions repeat to a few in a thousand.
A workload is run once with n and once with 3n repetitions, and the difference, divided by 2n, is
what one repetition takes: the start of Python and the set-up cancel out. Valgrind knows no AVX-512,
so the AVX2 kernels are counted (the portable ones where there is no AVX2).

The counts belong to a compiler's major version and a machine's architecture; where neither is on
record nothing can be said, and the gate passes with a note.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tools" / "instruction_counts.json"
WORKLOADS = ROOT / "tools" / "instruction_workloads.py"
TOLERANCE = 0.02


def machine() -> str:
    """Return what counts depend on: architecture, compiler and interpreter."""
    done = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True, check=True)
    gcc = done.stdout.strip().split(".")[0]
    return f"{platform.machine()}-gcc{gcc}-py{sys.version_info.major}.{sys.version_info.minor}"


def count(workload: str, repetitions: int, package: Path = ROOT) -> int:
    """Return the instructions of a process that repeats a workload so often.

    `package` is the folder that rustllm is imported from.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["setarch", "-R"] * bool(shutil.which("setarch"))
            + ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
            + [sys.executable, str(WORKLOADS), workload, str(repetitions)],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONHASHSEED": "0",
                "PYTHONPATH": str(package),
                "PYTHONMALLOC": "malloc",
                "OPENBLAS_NUM_THREADS": "1",
            },
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"{workload}: {done.stderr[-2000:]}")
    return int(found[1])


def measure(workload: str, repetitions: int, package: Path = ROOT) -> float:
    """Return the instructions of one repetition."""
    once, thrice = (count(workload, times * repetitions, package) for times in (1, 3))
    return (thrice - once) / (2 * repetitions)


def workloads() -> dict[str, int]:
    """Return the names of the workloads and how often each is repeated."""
    done = subprocess.run(
        [sys.executable, str(WORKLOADS), "--list"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def main() -> int:
    """Measure, compare, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workload", nargs="*", help="(default: all)")
    parser.add_argument("--update", action="store_true", help="record what is measured")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="(default: %(default)s)")
    parser.add_argument("--record", type=Path, default=RECORD, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for tool in ("valgrind", "gcc"):
        if shutil.which(tool) is None:
            parser.error(f"{tool} is not installed")
    known = workloads()
    if unknown := [name for name in args.workload if name not in known]:
        parser.error(f"no workload {unknown[0]}; there are {', '.join(known)}")
    chosen = {name: n for name, n in known.items() if not args.workload or name in args.workload}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        counts = dict(zip(chosen, pool.map(measure, chosen, chosen.values()), strict=True))
    if args.json:
        print(json.dumps({name: round(value) for name, value in counts.items()}))
    record = json.loads(args.record.read_text("utf-8")) if args.record.exists() else {}
    before = record.get(machine(), {})
    worse = []
    for name, value in counts.items():
        line = f"{name:20} {value:15,.0f}"
        if name in before:
            ratio = value / before[name]
            line += f"  {ratio - 1:+7.2%}"
            if ratio > 1 + args.tolerance:
                worse.append(name)
                line += "  more than is allowed"
        print(line, file=sys.stderr)
    if args.update:
        record[machine()] = {**before, **{name: round(value) for name, value in counts.items()}}
        args.record.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")
        return 0
    if not before:
        print(f"no counts on record for {machine()}: nothing to compare with", file=sys.stderr)
    if worse:
        print(
            f"{len(worse)} of {len(counts)} kernels take more instructions: {', '.join(worse)}\n"
            "If that is meant, record it: python tools/instruction_gate.py --update",
            file=sys.stderr,
        )
    return bool(worse)


if __name__ == "__main__":
    sys.exit(main())

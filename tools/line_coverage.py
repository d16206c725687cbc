#!/usr/bin/env python3
"""One figure for the lines of Python and Cython that the tests run.

    python tools/line_coverage.py                         # build, run the suite, print the figure
    python tools/line_coverage.py tests/unit/loaders      # these tests only
    python tools/line_coverage.py --append tests/property # ... and these too
    python tools/line_coverage.py --report                # print again what was counted before
    python tools/line_coverage.py --missing loaders/gguf  # ... with the lines of some modules

Copies the tree to a folder of its own (``build/coverage``, or ``--folder``), compiles the Cython
modules there with ``RUSTLLM_BUILD=coverage`` and runs the tests there, one process for each kind.
Lines of Python are counted by coverage.py, those of Cython by gcc (``tools/cython_lines.py`` says
which lines count), child processes included in both. Prints every file, worst first, then the
figures: Python, Cython, and both together, which is the one that ``--least`` is about (below it the
exit status is 1). Lines of the C headers have a figure of their own and are not in the one: which
of them run depends on the instruction sets that the machine has.

Needs gcc with its gcov, git, and the extras ``test`` and ``coverage``. Tests that need more
packages (``reference``, ``arrow``, ``plot``...) are skipped without them, and what only they run is
then missing. What a process did that ended by a signal it does not handle is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cython_lines import lines_run

ROOT = Path(__file__).resolve().parent.parent
PARTS = ["tests/unit", "tests/property", "tests/fuzz", "tests/integration"]
# Tests of builds and documents, which make copies and environments of their own and so run no line
# here; and one whose long prompts outlast its limit of time in a build without optimisation.
LEFT_OUT = [
    "tests/integration/test_asv_setup.py",
    "tests/integration/test_cython_example.py",
    "tests/integration/test_documentation.py",
    "tests/integration/test_instruction_gate.py",
    "tests/integration/test_packaging.py",
    "tests/fuzz/test_fuzz_loaders.py::test_sanitizers_find_nothing_in_damaged_files",
    "tests/unit/models/test_memory_exhausted.py::test_a_process_at_its_limit_of_memory_can_go_on",
]
SETTINGS = """\
[run]
source = rustllm
parallel = True
patch = subprocess, _exit
concurrency = multiprocessing, thread
sigterm = True
data_file = {folder}/counted/lines
[report]
exclude_also =
    if TYPE_CHECKING:
    raise NotImplementedError
    ^\\s*\\.\\.\\.$
"""

Row = tuple[str, int, list[int]]  # name, lines, those that did not run


def copy_and_build(folder: Path) -> None:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, target)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder,
        env={**os.environ, "RUSTLLM_BUILD": "coverage"},
        check=True,
    )


def run_part(folder: Path, part: str) -> str:
    """Count one part; the last line of pytest's output."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        environment.setdefault("RUSTLLM_SHARED", str(shared))
    tests = ["pytest", "-q", "-p", "no:cacheprovider", *part.split()]
    tests += [f"--deselect={name}" for name in LEFT_OUT]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "coverage", "run", "--rcfile", ".coveragerc", "-m", *tests],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    log = folder / "logs" / (re.sub(r"\W+", "-", part)[:60] + ".txt")
    log.write_text(done.stdout, "utf-8")
    last = done.stdout.strip().rpartition("\n")[2].strip("= ")
    if done.returncode not in (0, 5):
        last += f" (exit {done.returncode}, see {log})"
    return f"{last} [{time.monotonic() - began:.0f} s]"


def python_rows(folder: Path) -> list[Row]:
    """Combine what coverage.py counted; earlier counts stay, so that parts can follow another."""
    counted = folder / "counted"
    how: dict[str, Any] = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
    coverage = [sys.executable, "-m", "coverage"]
    rules = ["--rcfile", ".coveragerc"]
    if any(counted.glob("lines.*")):
        subprocess.run([*coverage, "combine", "--append", "-q", *rules, "counted"], **how)
    subprocess.run([*coverage, "json", "-q", *rules, "-o", "counted/report.json"], **how)
    files = json.loads((counted / "report.json").read_text())["files"]
    return [
        (name, file["summary"]["num_statements"], file["missing_lines"])
        for name, file in files.items()
    ]


def ranges(lines: list[int]) -> str:
    """Lines as ``3, 7-9``."""
    found: list[list[int]] = []
    for line in lines:
        if found and found[-1][1] == line - 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in found)


def share(title: str, rows: list[Row]) -> float:
    """Print the figure of some files and return it."""
    total = sum(row[1] for row in rows)
    ran = total - sum(len(row[2]) for row in rows)
    print(f"{title:9} {ran / max(total, 1):7.2%}  {ran} of {total} lines")
    return ran / max(total, 1)


def print_figures(folder: Path, missing: str | None) -> float:
    python = python_rows(folder)
    cython, headers = (
        [
            (name, len(lines), sorted(line for line, ran in lines.items() if not ran))
            for name, lines in counts.items()
        ]
        for counts in lines_run(folder)
    )
    rows = [row for row in python + cython if row[1]]
    shown = rows if missing is None else [row for row in rows + headers if missing in row[0]]
    for name, total, absent in sorted(shown, key=lambda row: (-len(row[2]) / row[1], row[0])):
        print(f"{1 - len(absent) / total:7.1%} {len(absent):5d} of {total:5d}  {name}")
        if missing is not None and absent:
            print(f"{'':23}{ranges(absent)}")
    print()
    share("C headers", headers)
    share("Python", python)
    share("Cython", cython)
    return share("together", rows)


def main(arguments: list[str]) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tests", nargs="*", help="paths of tests (default: the suite)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "coverage")
    parser.add_argument("--least", type=float, default=95.0, help="per cent (default: 95)")
    parser.add_argument("--report", action="store_true", help="neither build nor run")
    parser.add_argument("--append", action="store_true", help="keep what was counted before")
    parser.add_argument("--missing", metavar="NAME", help="print the lines of matching files")
    options = parser.parse_args(arguments)

    folder = options.folder.resolve()
    counted = folder / "counted"
    if not options.report and options.missing is None:
        if not options.append:
            shutil.rmtree(counted, ignore_errors=True)
            for old in folder.glob("build/temp*/**/*.gcda"):
                old.unlink()
        for name in (counted, folder / "logs"):
            name.mkdir(parents=True, exist_ok=True)
        copy_and_build(folder)
        (folder / ".coveragerc").write_text(SETTINGS.format(folder=folder))
        for part in [" ".join(options.tests)] if options.tests else PARTS:
            print(f"{part}: {run_part(folder, part)}", flush=True)
    together = print_figures(folder, options.missing)
    if together * 100 < options.least:
        print(f"below {options.least:g} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

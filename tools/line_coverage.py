#!/usr/bin/env python3
"""One figure for the lines of Python and Cython that the tests run.

    python tools/line_coverage.py                         # build, run the suite, print the figure
    python tools/line_coverage.py tests/unit/loaders      # these tests only
    python tools/line_coverage.py --report                # print again what was counted before
    python tools/line_coverage.py --missing loaders/gguf  # ... with the lines of some modules

Copies the tree to a folder of its own (``build/coverage``, or ``--folder``), compiles the Cython
modules there with ``RUSTLLM_BUILD=coverage`` (line tracing, in functions without the GIL too), runs
each of the folders of tests in a process of its own under coverage.py with Cython's plug-in, child
processes included, and prints every module, worst first, then the figures. Exit status 1 if the
combined one is below ``--least``. Needs the extras ``test`` and ``coverage``, and ``git``.

A traced line costs a hundred times an ordinary one. A test that takes more than ``--seconds`` of
the processor is therefore left there: what it ran until then counts, and it is reported as skipped.
Tests of failing allocations are left out, because the tracer itself needs memory; so the lines that
only they reach are missing from the figure, and so are those that run only on threads that Python
does not know. C headers are not counted.
Tests that need more packages (``reference``, ``arrow``, ``plot``...) are skipped without them, and
what only they run is not counted either.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The smallest folders last: what is counted early shows a broken build early.
PARTS = [
    "tests/unit/memory tests/unit/iterators tests/unit/stream tests/unit/types tests/unit/testing",
    "tests/unit/plugins tests/unit/traits tests/unit/serialize tests/unit/bench",
    "tests/unit/test_config.py tests/unit/test_error_context.py tests/unit/test_errors.py"
    " tests/unit/test_log.py tests/unit/test_parallel.py",
    "tests/unit/loaders",
    "tests/unit/_core",
    "tests/unit/ops tests/unit/models",
    "tests/unit/constrain",
    "tests/unit/corpus",
    "tests/unit/tokenizers",
    "tests/unit/cli",
    "tests/unit/integrations",
    "tests/property",
    "tests/fuzz",
    "tests/integration",
]
# What a traced build cannot pass or need not run: failing allocations (of the tracer too), eight
# threads on an arena whose steps the tracer takes apart, and tests of building, of documents and of
# type checkers, which run no line of the package here.
LEFT_OUT = [
    "tests/unit/memory/test_arena.py::test_eight_threads_share_one_arena",
    "tests/unit/memory/test_nomemory.py",
    "tests/unit/testing/test_hostile.py::"
    "test_every_failing_allocation_of_a_window_iterator_is_a_memory_error",
    "tests/integration/test_allocation_failure.py",
    "tests/integration/test_asv_setup.py",
    "tests/integration/test_cython_example.py",
    "tests/integration/test_documentation.py",
    "tests/integration/test_instruction_gate.py",
    "tests/integration/test_packaging.py",
    "tests/fuzz/test_fuzz_loaders.py::test_sanitizers_find_nothing_in_damaged_files",
]
# Texts of megabytes: a call into compiled code cannot be left before it ends, which takes minutes.
LEFT_OUT += [
    f"tests/unit/tokenizers/{name}"
    for name in (
        "test_batches.py::test_a_long_text_gives_the_ids_of_its_pieces_in_one",
        "test_batches.py::test_a_text_of_several_windows_gives_the_ids_of_one",
        "test_batches.py::test_a_special_token_is_found_wherever_it_is_in_a_long_text",
        "test_batches.py::test_a_surrogate_pair_over_the_border_of_a_window_is_one_character",
        "test_encodings.py::test_a_megabyte_of_one_thing_takes_no_time_to_speak_of",
    )
]
# Those of coverage.py that are below everything it runs.
MAIN_FILES = ("__main__", "cmdline", "execfile")
SETTINGS = """\
[run]
plugins = Cython.Coverage
source = rustllm
parallel = True
core = ctrace
patch = subprocess
concurrency = multiprocessing, thread
sigterm = True
data_file = {folder}/counted/lines
[report]
exclude_also =
    if TYPE_CHECKING:
    raise NotImplementedError
    ^\\s*\\.\\.\\.$
"""


# -- as a plug-in of pytest: `-p line_coverage` ------------------------------------------------


def pytest_configure() -> None:
    """Keep to one core: traced threads of one team only wait for each other's turn with the GIL."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sys.setswitchinterval(0.0005)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    """Leave a test that takes too long; what it ran stays counted."""

    def leave(number: int, frame: Any) -> None:
        while frame is not None:
            # The tracer must not be left with its lock held: this is tried again soon.
            place = Path(frame.f_code.co_filename)
            if place.parent.name == "coverage" and place.stem not in MAIN_FILES:
                return
            if place.name == "Coverage.py":
                return
            frame = frame.f_back
        pytest.skip("left: too long under tracing")

    limit = float(os.environ["LINE_COVERAGE_SECONDS"])
    # Processor time, so that a busy machine runs the same lines; the clock for tests that wait.
    timers = ((signal.SIGPROF, signal.ITIMER_PROF, 1), (signal.SIGALRM, signal.ITIMER_REAL, 20))
    before = [(number, signal.signal(number, leave)) for number, _, _ in timers]
    for _, timer, times in timers:
        signal.setitimer(timer, times * limit, 0.5)
    try:
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)
        for number, handler in before:
            signal.signal(number, handler)


# -- as a command ------------------------------------------------------------------------------


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


def run_part(folder: Path, part: str, seconds: float) -> str:
    """Count one part; the last line of pytest's output."""
    paths = [str(folder / "tools"), str(folder)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "LINE_COVERAGE_SECONDS": str(seconds),
    }
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        environment.setdefault("RUSTLLM_SHARED", str(shared))
    tests = ["pytest", "-q", "-p", "no:cacheprovider", "-p", "line_coverage", *part.split()]
    tests += [f"--deselect={name}" for name in LEFT_OUT]
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
    return last if done.returncode in (0, 5) else f"{last}  (exit {done.returncode}, see {log})"


def count(folder: Path) -> dict[str, Any]:
    """Combine what was counted; what coverage.py says of every file."""
    counted = folder / "counted"
    how: dict[str, Any] = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
    coverage = [sys.executable, "-m", "coverage"]
    rules = ["--rcfile", ".coveragerc"]
    if any(counted.glob("lines.*")):
        # Earlier counts stay: parts can be run one after another.
        subprocess.run([*coverage, "combine", "--append", "-q", *rules, "counted"], **how)
    subprocess.run([*coverage, "json", "-q", *rules, "-o", "counted/report.json"], **how)
    report: dict[str, Any] = json.loads((counted / "report.json").read_text())["files"]
    return report


def ranges(lines: list[int]) -> str:
    """Lines as ``3, 7-9``."""
    found: list[list[int]] = []
    for line in lines:
        if found and found[-1][1] == line - 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in found)


def print_figures(files: dict[str, Any], missing: str | None) -> float:
    rows = []
    for name, file in files.items():
        total = file["summary"]["num_statements"]
        if total:
            covered = file["summary"]["covered_lines"]
            rows.append((covered / total, total - covered, total, name, file["missing_lines"]))
    for share, absent, total, name, lines in sorted(rows, key=lambda row: (row[0], -row[1])):
        print(f"{share:7.1%} {absent:5d} of {total:5d}  {name}")
        if missing is not None and missing in name and lines:
            print(f"{'':23}{ranges(lines)}")
    print()
    figures = {}
    for title, chosen in (
        ("Python", [row for row in rows if row[3].endswith(".py")]),
        ("Cython", [row for row in rows if not row[3].endswith(".py")]),
        ("together", rows),
    ):
        total = sum(row[2] for row in chosen)
        covered = total - sum(row[1] for row in chosen)
        figures[title] = covered / max(total, 1)
        print(f"{title:9} {figures[title]:7.2%}  {covered} of {total} lines")
    return figures["together"]


def main(arguments: list[str]) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tests", nargs="*", help="paths of tests (default: the suite)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "coverage")
    parser.add_argument("--least", type=float, default=95.0, help="per cent (default: 95)")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="of the processor, for a test (default: 6)"
    )
    parser.add_argument("--report", action="store_true", help="neither build nor run")
    parser.add_argument("--append", action="store_true", help="keep what was counted before")
    parser.add_argument("--missing", metavar="NAME", help="print the lines of matching modules")
    options = parser.parse_args(arguments)

    folder = options.folder.resolve()
    counted = folder / "counted"
    if not options.report and options.missing is None:
        if not options.append:
            shutil.rmtree(counted, ignore_errors=True)
        for name in (counted, folder / "logs"):
            name.mkdir(parents=True, exist_ok=True)
        copy_and_build(folder)
        (folder / ".coveragerc").write_text(SETTINGS.format(folder=folder))
        for part in [" ".join(options.tests)] if options.tests else PARTS:
            print(f"{part}: {run_part(folder, part, options.seconds)}", flush=True)
    together = print_figures(count(folder), options.missing)
    if together * 100 < options.least:
        print(f"below {options.least:g} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

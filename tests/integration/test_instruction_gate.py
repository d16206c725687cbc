"""The gate on instruction counts counts the same twice, and lets no growth through."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from paths import ROOT

GATE = ROOT / "tools/instruction_gate.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GATE.exists(), reason="tools are not part of this tree"),
    pytest.mark.skipif(
        not (shutil.which("valgrind") and shutil.which("gcc")), reason="no valgrind or no gcc"
    ),
]


def gate(record, *arguments):
    return subprocess.run(
        [sys.executable, str(GATE), "--record", str(record), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )


def test_a_kernel_that_takes_more_is_refused_and_the_same_one_passes(tmp_path):
    record = tmp_path / "counts.json"
    assert gate(record, "pool_lease", "--update").returncode == 0
    counts = json.loads(record.read_text())
    ((machine, found),) = counts.items()
    assert found["pool_lease"] > 100
    same = gate(record, "pool_lease")
    assert same.returncode == 0, same.stderr
    # As if it had taken a tenth less before.
    record.write_text(json.dumps({machine: {"pool_lease": found["pool_lease"] * 0.9}}))
    worse = gate(record, "pool_lease")
    assert worse.returncode == 1 and "pool_lease" in worse.stderr


def test_a_workload_that_does_not_exist_is_named(tmp_path):
    done = gate(tmp_path / "counts.json", "no_such_kernel")
    assert done.returncode == 2 and "no_such_kernel" in done.stderr

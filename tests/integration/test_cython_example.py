"""Somebody else's distribution compiles against our installed .pxd files and works."""

import os
import shutil
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from paths import ROOT

import rustllm

EXAMPLE = ROOT / "examples" / "cython-memory"

USE = """
import collections, numpy as np
import tokenscratch
from rustllm._core.alloc import heap_stats

ids = np.random.default_rng(0).integers(0, 9, 5000).tolist()
for n in (1, 2, 5):
    expected = collections.Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))
    assert tokenscratch.count_ngrams(ids, n) == expected, n
assert tokenscratch.count_ngrams([], 3) == {}
held = heap_stats()
for _ in range(200):
    tokenscratch.count_ngrams(ids, 3)
assert heap_stats() == held, "the second call on allocates nothing"
lease = tokenscratch.repeated([1, 2, 3], 1000)
assert lease.tolist() == [1, 2, 3] * 1000
lease.release()
print("works")
"""


@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="examples are not part of this tree")
def test_a_separate_distribution_builds_on_the_pxd_files_and_runs(tmp_path):
    pytest.importorskip("Cython")
    if not PathFinder.find_spec("setuptools"):  # not imported: it patches distutils as it is
        pytest.skip("no setuptools")
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("build", "*.c", "*.so"))
    installed = str(Path(rustllm.__file__).parents[1])
    environment = {**os.environ, "CFLAGS": "-O1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(project / "src"), installed])

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("setup.py", "-q", "build_ext", "--inplace")
    # --inplace puts the module beside its package only where setuptools finds the package.
    assert list((project / "src" / "tokenscratch").glob("_ngrams*.so"))
    assert run("-c", USE) == "works\n"

"""Damaged model files: typed errors, in this build and under sanitizers."""

import subprocess
import sys
from pathlib import Path

import fuzz_loaders
import numpy as np
import pytest
import run_asan

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("target", fuzz_loaders.TARGETS)
def test_damaged_files_raise_typed_errors_or_load(target):
    with np.errstate(all="ignore"):
        outcomes = {fuzz_loaders.run_case(target, seed) for seed in range(1500)}
    expected = {"loaded", "FileFormatError"}
    if target != "lines":
        expected.add("TruncatedFileError")
    if target in ("gguf", "safetensors"):
        expected.add("UnsupportedError")
    assert expected <= outcomes


@pytest.mark.slow
@pytest.mark.skipif(run_asan.sanitizer_library() is None, reason="no libasan")
def test_sanitizers_find_nothing_in_damaged_files():
    told = subprocess.run(
        [
            sys.executable,
            str(HERE / "run_asan.py"),
            "--runs",
            "1500",
            "--seed",
            "10000",
            "--target",
            "gguf",
            "--target",
            "safetensors",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "gguf: 1500 cases" in told.stdout

"""Damaged corpora, unfinished runs, arrays and tables: typed errors, and never other ids."""

import fuzz_folders
import numpy as np
import pytest


@pytest.mark.parametrize("target", fuzz_folders.TARGETS)
def test_damage_raises_typed_errors_or_does_no_harm(target):
    if target == "tables":
        pytest.importorskip("pyarrow")
    with np.errstate(all="ignore"):
        outcomes = {fuzz_folders.run_case(target, seed) for seed in range(400)}
    assert {"loaded", "FileFormatError"} <= outcomes

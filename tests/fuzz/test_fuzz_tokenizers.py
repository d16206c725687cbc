"""Damaged tokenizer files: typed errors, or a tokenizer that works."""

import fuzz_tokenizers
import pytest


@pytest.mark.parametrize("target", fuzz_tokenizers.USES)
def test_damaged_files_raise_typed_errors_or_load(target):
    outcomes = {fuzz_tokenizers.run_case(target, seed) for seed in range(400)}
    assert "loaded" in outcomes
    assert target == "tekken" or "FileFormatError" in outcomes

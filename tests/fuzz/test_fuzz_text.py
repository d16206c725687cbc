"""Mutated text gives the ids of the peers."""

import fuzz_text
import pytest
from paths import needs_shared


@needs_shared
@pytest.mark.parametrize("target", fuzz_text.USES)
def test_mutated_text_gives_the_ids_of_the_peer(target):
    pytest.importorskip(target.partition("-")[0])
    for seed in (*fuzz_text.KEPT.get(target, ()), *range(150)):
        fuzz_text.run_case(target, seed)

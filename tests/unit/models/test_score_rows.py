"""Rows of scores: nobody's row is handed out twice, and pages come back."""

import gc

import numpy as np
import pytest

from rustllm.models.score_rows import ScoreRows


@pytest.mark.parametrize("width", [100, 49152, 262144, 600_000])
def test_a_kept_row_stays_as_it_was(width):
    rows, kept = ScoreRows(width), []
    for i in range(40):
        row = rows.take()
        assert row.shape == (1, width)
        assert row.dtype == np.float32
        row[:] = i
        kept.append(row[0])  # a view, as models return it
    assert [float(row[0]) for row in kept] == list(range(40))
    assert all((row == row[0]).all() for row in kept)


@pytest.mark.parametrize("held", [0, 1])
def test_a_caller_that_drops_rows_gets_the_same_pages_again(held):
    rows, places, last = ScoreRows(262144), set(), []
    for _ in range(40):
        last.append(rows.take())
        places.add(last[-1].ctypes.data)
        del last[: len(last) - held]
    assert len(places) <= 4


def test_rows_outlive_what_handed_them_out():
    rows = ScoreRows(262144)
    row = rows.take()
    row[:] = 7
    del rows
    gc.collect()
    assert (row == 7).all()

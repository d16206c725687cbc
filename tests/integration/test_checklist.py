"""docs/checklist.md names only what exists, and ticks nothing without a proof."""

import re

import pytest
from paths import ROOT

import rustllm

TEXT = (ROOT / "docs/checklist.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if re.match(r"\| (yes|part|no) ", line)
]


def exists(name: str) -> bool:
    if re.fullmatch(r"rustllm(\.\w+)+", name):
        value = rustllm
        for part in name.split(".")[1:]:
            value = getattr(value, part, None)
        return value is not None
    path, _, test = name.partition("::")
    file = ROOT / path
    return file.exists() and (not test or f"def {test}(" in file.read_text("utf-8"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_row_names_only_what_exists(row):
    _, _, where, proof = row
    names = re.findall(r"`([\w./:-]+[/.][\w./:-]+)`", f"{where} {proof}")
    assert [name for name in names if not exists(name)] == []


@pytest.mark.parametrize("row", [r for r in ROWS if r[0] == "yes"], ids=lambda row: row[1])
def test_what_is_ticked_has_a_proof(row):
    assert re.search(r"`(tests/|\.ci/run)", row[3])


def test_what_is_not_done_says_what_is_missing():
    assert all(re.sub(r"`[^`]*`|[,; ]", "", row[3]) for row in ROWS if row[0] != "yes")


def test_the_check_sees_what_is_missing():
    assert exists("rustllm.Arena") and not exists("rustllm.NoSuchName")
    assert exists("setup.py") and not exists("no/such/file.py")
    this = "tests/integration/test_checklist.py"
    assert exists(f"{this}::test_the_check_sees_what_is_missing")
    assert not exists(f"{this}::test_that_is_not_there")

"""What a type checker says about right and wrong uses, and that the wrong ones also raise.

A line of a case that ends in ``# E: code`` must be an error of that code; every other line must be
none. The cases are then run: each wrong use stands in a block that must raise.
"""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

CASES = Path(__file__).parent / "cases"
FILES = sorted(path for path in CASES.glob("*.py") if path.name != "expect.py")
_MARK = re.compile(r"# E: ([\w-]+(?:, [\w-]+)*)$")
_ERROR = re.compile(r"^(?P<path>[^:]+):(?P<line>\d+): error: (?P<text>.*)\[(?P<code>[\w-]+)\]$")


@pytest.fixture(scope="module")
def reported():
    """Errors of one run of mypy over all cases: {(file, line): {codes}}."""
    pytest.importorskip("mypy")
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--show-error-codes",
         "--hide-error-context", "--no-pretty", "--no-color-output", "--config-file=",
         "--follow-imports=silent", *map(str, FILES)],
        cwd=ROOT, env={"MYPYPATH": f"{ROOT}:{CASES}", "PATH": ""}, text=True, capture_output=True,
    )  # fmt: skip
    assert result.returncode in (0, 1), result.stdout + result.stderr
    errors: dict[tuple[str, int], set[str]] = {}
    for line in result.stdout.splitlines():
        if (found := _ERROR.match(line)) is not None:
            key = (Path(found["path"]).name, int(found["line"]))
            errors.setdefault(key, set()).add(found["code"])
        else:
            assert ": note: " in line, line
    return errors


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_checker_reports_exactly_the_marked_errors(path, reported):
    expected = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if (mark := _MARK.search(line)) is not None:
            expected[number] = set(mark[1].split(", "))
    got = {line: codes for (name, line), codes in reported.items() if name == path.name}
    assert got == expected
    assert expected, "a case without a wrong use proves nothing"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_same_mistakes_raise_at_run_time(path, monkeypatch):
    pytest.importorskip("typing_extensions")
    monkeypatch.syspath_prepend(CASES)
    source = path.read_text()
    runpy.run_path(str(path))
    lines = source.splitlines()
    for number, line in enumerate(lines):
        if _MARK.search(line):
            block = "\n".join(lines[max(0, number - 1) : number])
            assert "with raises(" in block, f"line {number + 1} is not checked at run time"

"""What the counter of Cython lines says of a small module whose lines are known to run or not."""

import os
import shutil
import subprocess
import sys

import pytest
from paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from cython_lines import lines_run, logical_lines  # noqa: E402

sys.path.remove(str(ROOT / "tools"))

SOURCE = '''\
"""Counted."""
from libc.stdlib cimport free, malloc

cdef int LIMIT = 3


cdef int over(int x) noexcept nogil:
    if x > LIMIT:
        return 1
    return 0


cdef class Box:
    """Of memory."""

    cdef void* data

    def __cinit__(self, size_t n):
        self.data = malloc(n)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.data)


def total(
    values, int bad=0,
):
    """Of the values that are not over."""
    cdef int x, found = 0
    for x in values:
        with nogil:
            if over(x):
                continue
            found += x
    if bad:
        try:
            raise ValueError(
                f"{found} is bad"
            )
        finally:
            found = 0
    elif found > 100: found = 100
    return found


def never():
    x = 1
    return x
'''


def test_lines_that_belong_together_and_comments():
    text = 'x = f(  # (\n    "a)#",\n) + \\\n  1\n"""\n[\n"""\ny = 2\n'
    found = logical_lines(text)
    assert {line: first for line, (first, _) in found.items()} == {
        **dict.fromkeys((1, 2, 3, 4), 1),
        **dict.fromkeys((5, 6, 7), 5),
        8: 8,
    }
    assert found[1][1] == 'x = f( "a)#", ) + 1'


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcov") is None, reason="no gcov")
def test_the_lines_of_a_module_that_ran_and_those_that_did_not(tmp_path):
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / "rustllm/_core/simd").mkdir(parents=True)
    for folder in ("rustllm", "rustllm/_core"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "rustllm/counted.pyx").write_text(SOURCE)
    environment = {**os.environ, "RUSTLLM_BUILD": "coverage", "RUSTLLM_BUILD_JOBS": "1"}
    run = "from rustllm.counted import Box, total; Box(3); print(total([1, 2, 3, 4, 5], bad=0))"
    for command in (["setup.py", "-q", "build_ext", "--inplace"], ["-c", run]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "6\n"
    cython, headers = lines_run(tmp_path)
    assert headers == {} and list(cython) == ["rustllm/counted.pyx"]
    lines = cython["rustllm/counted.pyx"]
    text = SOURCE.split("\n")
    ran = [text[line - 1].strip() for line, did in sorted(lines.items()) if did]
    did_not = [text[line - 1].strip() for line, did in sorted(lines.items()) if not did]
    assert ran == [
        "cdef int LIMIT = 3",
        "if x > LIMIT:",
        "return 1",
        "return 0",
        "self.data = malloc(n)",
        "if self.data == NULL:",
        "free(self.data)",
        "cdef int x, found = 0",
        "for x in values:",
        "with nogil:",
        "if over(x):",
        "continue",
        "found += x",
        "if bad:",
        "elif found > 100: found = 100",
        "return found",
    ]
    assert did_not == ["raise MemoryError", "raise ValueError(", "found = 0", "x = 1", "return x"]

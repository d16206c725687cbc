"""Every request for memory or a thread by the compiled modules fails once, and nothing breaks."""

import os
import shutil
import subprocess
import sys

import pytest
from paths import ROOT

FOLDER = ROOT / "tests/allocation"
NAMES = (
    "memory", "iterators", "encoding", "training", "files", "word_piece", "unigram", "model",
    "a_step_of_a_state_in_use", "constraint", "operations",
)  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and glibc")
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("a sanitizer has an allocator of its own")
    made = tmp_path_factory.mktemp("failing") / "failing_malloc.so"
    source = FOLDER / "failing_malloc.c"
    built = subprocess.run(
        [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", made, source]
        + ["-ldl", "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "__libc_" in built.stderr:
        pytest.skip("the C library is not glibc")
    assert not built.returncode, built.stderr
    return made


def run(name, library):
    paths = [ROOT / "tests", ROOT, os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", FOLDER / "scenarios.py", name],
        env={
            **os.environ,
            "LD_PRELOAD": str(library),
            "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path),
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_request_may_fail(name, library):
    done = run(name, library)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 0


def test_the_sweep_finds_what_is_left_behind(library):
    done = run("forgetting", library)
    assert done.returncode
    assert "blocks are left" in done.stderr

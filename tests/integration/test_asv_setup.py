"""The benchmark suite's set-up notices a slow-down: shown on a project of one function."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
from paths import ROOT

CONFIG = ROOT / "asv_bench/asv.conf.json"
WORKFLOW = ROOT / ".github/workflows/ci.yml"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("asv") is None, reason="no asv"),
    pytest.mark.skipif(not CONFIG.exists(), reason="the benchmarks are not part of this tree"),
]

PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "slowed"
version = "1"
[tool.setuptools]
py-modules = ["slowed"]
"""
BENCHMARK = """\
import slowed

def time_work():
    slowed.work()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository whose `main` is fast and whose `slow` does the same four times."""
    folder = tmp_path_factory.mktemp("slowed")
    environment = {
        **os.environ,
        "HOME": str(folder),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "ASV_RUNNER": "",
    }

    def run(*command, cwd=folder):
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500
        )

    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
    run("git", "init", "-q", "-b", "main")
    (folder / "pyproject.toml").write_text(PROJECT)
    bench = folder / "asv_bench" / "benchmarks"
    bench.mkdir(parents=True)
    (bench / "__init__.py").touch()
    (bench / "work.py").write_text(BENCHMARK)
    # Our own settings, but for what is needed to build our own project.
    text = re.sub(r"^\s*//.*$", "", CONFIG.read_text("utf-8"), flags=re.MULTILINE)
    config = json.loads(text)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    config |= {"project": "slowed", "pythons": [version], "matrix": {"req": {"build": []}}}
    (bench.parent / "asv.conf.json").write_text(json.dumps(config))
    for times, branch in ((1, "main"), (4, "slow")):
        run("git", "checkout", "-q", "-B", branch)
        (folder / "slowed.py").write_text(
            f"def work():\n    return sum(i * i for i in range(20_000 * {times}))\n"
        )
        run("git", "add", ".")
        run(*git, "commit", "-q", "-m", f"{times} times")
    run("git", "checkout", "-q", "main")
    done = run(sys.executable, "-m", "asv", "machine", "--yes", cwd=bench.parent)
    assert done.returncode == 0, done.stderr
    return lambda *command: run(sys.executable, "-m", "asv", *command, cwd=bench.parent)


def factor():
    """The factor by which the workflow lets a benchmark grow."""
    found = re.search(r"asv continuous --factor (\S+)", WORKFLOW.read_text("utf-8"))
    return found[1]


def test_a_slow_down_fails_and_a_speed_up_passes(project):
    slower = project("continuous", "--factor", factor(), "main", "slow")
    assert slower.returncode == 1, slower.stdout + slower.stderr
    assert "PERFORMANCE DECREASED" in slower.stdout
    faster = project("continuous", "--factor", factor(), "slow", "main")
    assert faster.returncode == 0, faster.stdout + faster.stderr
    published = project("publish")
    assert published.returncode == 0, published.stdout + published.stderr

"""What is in the distributions, and that the headers stand on their own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
HEADERS = sorted((ROOT / "rustllm").rglob("*.h"))


def test_run_time_needs_numpy_only():
    assert [d.split(">")[0] for d in PROJECT["project"]["dependencies"]] == ["numpy"]


def test_the_version_is_the_same_everywhere():
    import rustllm

    assert rustllm.__version__ == PROJECT["project"]["version"]
    assert f"## {rustllm.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_licence_is_mit_and_is_shipped():
    assert "MIT" in (ROOT / "LICENSE").read_text("utf-8")
    assert PROJECT["project"]["license"] == "MIT"


def test_readme_has_its_two_commands_once_each():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    for command in (
        'python -m pip install . && rustllm generate "Why is the sky blue?"',
        'python -m pip install -e ".[test]" && pytest',
    ):
        assert lines.count(command) == 1


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
@pytest.mark.parametrize("header", HEADERS, ids=lambda p: p.name)
def test_a_header_compiles_alone_without_a_warning(header):
    done = subprocess.run(
        ["gcc", "-x", "c", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        + ["-I", str(ROOT / "rustllm/_core/simd"), "-isystem", sysconfig.get_path("include")]
        + ["-include", str(header), "/dev/null"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_importing_loads_neither_numpy_nor_any_floor():
    code = "import rustllm, sys; print(*sorted(m for m in sys.modules if m.startswith('rustllm')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["rustllm", "rustllm._lazy"]


def build_sdist(tree: Path) -> Path:
    target = Path(tempfile.mkdtemp(dir=tree.parent))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import setuptools.build_meta as b; b.build_sdist({str(target)!r})",
        ],
        cwd=tree,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return next(target.glob("*.tar.gz"))


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler's arguments are gcc's")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_warning_of_cython_stops_the_build(tmp_path, jobs):
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / "rustllm").mkdir()
    (tmp_path / "rustllm/warned.pyx").write_text("def f(x):\n    return x\n    x = 1\n")
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=tmp_path,
        env={**os.environ, "RUSTLLM_BUILD_JOBS": jobs},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0 and "Unreachable code" in done.stdout + done.stderr


@pytest.mark.slow
def test_sdist_holds_the_sources_no_generated_c_and_the_same_bytes_twice(tmp_path):
    # Not imported here: setuptools patches distutils as it is imported.
    for requirement in PROJECT["build-system"]["requires"]:
        requirement, _, only_on = requirement.partition(";")
        if "win32" in only_on and sys.platform != "win32":
            continue
        name, _, least = requirement.partition(">=")
        have = tuple(map(int, version(name).split(".")[:2]))
        assert have >= tuple(map(int, least.split("."))), f"{requirement} is not installed"
    tree = tmp_path / "tree"
    shutil.copytree(
        ROOT,
        tree,
        ignore=shutil.ignore_patterns(
            "*.so", "*.c", "*.html", "build", ".git", "*.egg-info", "__pycache__", ".*_cache"
        ),
    )
    (tree / "rustllm/_core/leftover.c").write_text("int generated;\n")
    first = build_sdist(tree)
    (tree / "rustllm/py.typed").touch()  # only its time of change
    assert build_sdist(tree).read_bytes() == first.read_bytes()
    with tarfile.open(first) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for pattern in ("*.pyx", "*.pxd", "*.pyi", "*.h", "*.py"):
        for path in (ROOT / "rustllm").rglob(pattern):
            assert path.relative_to(ROOT).as_posix() in names
    for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md"):
        assert name in names
    bad = [name for name in names if Path(name).suffix in (".c", ".so", ".pyc", ".pyd", ".html")]
    assert bad == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the compiler writes the time into a DLL")
def test_a_wheel_has_the_same_bytes_wherever_and_by_whomever_it_is_built(tmp_path):
    wheels = []
    # Of two modules; tools/two_builds.sh does the same with all of them.
    for place, umask, seed in (("one", 0o022, "1"), ("a longer/place", 0o077, "2")):
        tree = tmp_path / place
        (tree / "rustllm/_core/simd").mkdir(parents=True)
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / name, tree / name)
        (tree / "rustllm/__init__.py").write_text("")
        (tree / "rustllm/said.pyi").write_text("def said(x: object) -> int: ...\n")
        (tree / "rustllm/said.pyx").write_text("def said(x):\n    return len(x) + 1\n")
        (tree / "rustllm/told.pyx").write_text("cdef class Told:\n    cdef public list parts\n")
        for path in tree.rglob("*"):
            path.chmod(0o777 & ~umask if path.is_dir() else 0o666 & ~umask)
        done = subprocess.run(
            [sys.executable, "-c", "import setuptools.build_meta as b; b.build_wheel('dist')"],
            cwd=tree,
            env={
                **os.environ,
                "SOURCE_DATE_EPOCH": "1700000000",
                "PYTHONHASHSEED": seed,
                "RUSTLLM_BUILD": "debug",  # whose symbols would name the place
                "RUSTLLM_BUILD_JOBS": seed,
            },
            umask=umask,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        wheels.append(next((tree / "dist").glob("*.whl")))
    with zipfile.ZipFile(wheels[0]) as one, zipfile.ZipFile(wheels[1]) as other:
        assert sum(name.endswith(".so") for name in one.namelist()) == 2
        for first, second in zip(one.infolist(), other.infolist(), strict=True):
            assert (first.filename, first.external_attr, first.CRC) == (
                second.filename,
                second.external_attr,
                second.CRC,
            )
    assert wheels[0].read_bytes() == wheels[1].read_bytes()

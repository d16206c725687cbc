"""Build what a fuzzer of files needs with sanitizers, and run it.

``python tests/fuzz/run_asan.py [--fuzzer folders] [arguments of the fuzzer]`` copies the sources to
a temporary folder, compiles the modules that are needed with ``RUSTLLM_BUILD=asan`` and runs
``fuzz_loaders.py``, or ``fuzz_folders.py``, under the sanitizer's run-time library. Needs gcc with
libasan. Exit status 0 means: no finding.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
_CORE = re.compile(r"^\s*(?:from|import)\s+rustllm\._core(?:\.(\w+)|\s+c?import\s+(\w+))", re.M)


# Where each fuzzer's imports are, in the package.
FUZZERS = {
    "loaders": ["errors.py", "loaders/*.py"],
    "folders": [
        *("errors.py", "loaders/*.py", "corpus/*.py", "serialize/*.py", "traits/*.py"),
        *("types/*.py", "iterators/*.py", "plugins/*.py", "testing/*.py", "*.py"),
        "tokenizers/stream_encoder.py",
    ],
}


def needed_modules(fuzzer: str) -> set[str]:
    """Compiled modules that a fuzzer imports, itself or through others."""
    package = ROOT / "rustllm"
    unread = [ROOT / f"tests/fuzz/fuzz_{fuzzer}.py"]
    unread += [path for pattern in FUZZERS[fuzzer] for path in package.glob(pattern)]
    found: set[str] = set()
    while unread:
        for dotted, imported in _CORE.findall(unread.pop().read_text()):
            name = dotted or imported
            for kind in (".pyx", ".pxd", ".py"):
                source = package / "_core" / (name + kind)
                if source.exists() and (name + kind) not in found:
                    found.add(name + kind)
                    unread.append(source)
    return {name.removesuffix(".pyx") for name in found if name.endswith(".pyx")}


def sanitizer_library() -> str | None:
    """What to load first: gcc's libasan, and libstdc++, whose exceptions it watches; or None."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    found = []
    for name in ("libasan.so", "libstdc++.so.6"):
        told = subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False
        ).stdout.strip()
        if Path(told).is_absolute():
            found.append(str(Path(told).resolve()))
    return " ".join(found) if found and "libasan" in found[0] else None


def copy_sources(to: Path, fuzzer: str) -> None:
    """The package without the compiled modules that a fuzzer does not need."""
    modules = needed_modules(fuzzer)

    def skip(folder: str, names: list[str]) -> list[str]:
        return [
            name
            for name in names
            if name.endswith((".so", ".c", ".html", ".pyd"))
            or name == "__pycache__"
            or (name.endswith(".pyx") and name[:-4] not in modules)
        ]

    shutil.copytree(ROOT / "rustllm", to / "rustllm", ignore=skip)
    shutil.copytree(ROOT / "tests", to / "tests", ignore=skip)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to / name)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--fuzzer", choices=FUZZERS, default="loaders")
    own, arguments = parser.parse_known_args(arguments)
    library = sanitizer_library()
    if library is None:
        print("gcc with libasan is needed", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory(prefix="rustllm-asan-") as name:
        work = Path(name)
        copy_sources(work, own.fuzzer)
        built = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=work,
            env={**os.environ, "RUSTLLM_BUILD": "asan"},
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            print(built.stdout + built.stderr, file=sys.stderr)
            return built.returncode
        environment = {
            **os.environ,
            "LD_PRELOAD": library,
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": str(work),
            # Python keeps memory until it exits; a leak is not what is looked for here.
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=64",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }

        def fuzz(*more: str, **how: Any) -> int:
            command = [sys.executable, f"tests/fuzz/fuzz_{own.fuzzer}.py", *more]
            return subprocess.run(command, cwd=work, env=environment, check=False, **how).returncode

        if fuzz("--read-too-far", capture_output=True) == 0:
            print("the sanitizer does not see a read past the end", file=sys.stderr)
            return 78
        return fuzz(*arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

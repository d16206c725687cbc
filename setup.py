"""Compile the extension modules; everything declarative is in pyproject.toml.

``RUSTLLM_BUILD`` selects a profile:

``release`` (default)
    ``-O3``, no bounds checks.
``debug``
    bounds checks, assertions, symbols.
``coverage``
    gcc's counters in the generated C; ``tools/line_coverage.py`` reads them.
``asan``
    address and undefined-behaviour sanitizers, with bounds checks.

On Windows the compiler is the clang of the package ``ziglang``, which the build installs.

``RUSTLLM_LTO=1`` adds link-time optimisation, ``RUSTLLM_BUILD_JOBS`` says how many compilers run at
once. All switches, and what they were measured to do, are in ``docs/building.md``.
"""

import gzip
import io
import multiprocessing
import os
import re
import shlex
import sys
import sysconfig
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy
from Cython.Build import cythonize
from Cython.Compiler import Errors, Options
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

PROFILES = ("release", "debug", "coverage", "asan")
profile = os.environ.get("RUSTLLM_BUILD", "release")
if profile not in PROFILES:
    sys.exit(f"RUSTLLM_BUILD={profile!r} is not a profile; choose one of {', '.join(PROFILES)}")

PLATFORM = sysconfig.get_platform()  # what is compiled for
WINDOWS = PLATFORM.startswith("win")
if WINDOWS and profile == "asan":
    sys.exit("RUSTLLM_BUILD=asan: the compiler for Windows has no sanitizers")

jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
jobs = int(os.environ.get("RUSTLLM_BUILD_JOBS", jobs))
checked = profile in ("debug", "asan")
Options.docstrings = True

directives = {
    "language_level": 3,
    "boundscheck": checked,
    "wraparound": checked,
    "initializedcheck": checked,
    "cdivision": True,
    "embedsignature": False,
    "binding": True,
}

# Modules that keep nothing between calls, or only what threads may share without the GIL: what
# never changes, atomic counters, objects that lock themselves. What the others lack, and what that
# means on a free-threaded Python, is in docs/free-threading.md; a test holds the two together.
FREE_THREADED = """
    alloc arrays attend automaton borders bpe byte_level cache coder cow dispatch experts from_utf8
    gemm hooks intern json_text linear peaks quant rank_file rowwise scan segment sizes specials
    split status text threads unicode unigram unigram_seeds utf8 view vocab wordpiece zeroed
"""

# Every floating-point result must be the same on every path, so contraction is never left to the
# compiler: a kernel that wants a fused multiply-add writes one.
compile_args = ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
# Our own C is silent under -Wall -Wextra; these are what the generated code around it needs.
compile_args += ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function"]
compile_args += ["-Wno-missing-field-initializers", "-Wno-cast-function-type", "-Wno-sign-compare"]
link_args: list[str] = []
# What a build makes does not say where it was made; only the counters of lines must know.
if not WINDOWS and profile != "coverage":
    compile_args.append(f"-ffile-prefix-map={Path.cwd()}=.")
macros = [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
if profile == "release":
    compile_args += ["-O3", "-g0"]
    macros += [("NDEBUG", "1")]
elif profile == "debug":
    compile_args += ["-O1", "-g", "-UNDEBUG"]
elif profile == "coverage":
    compile_args += ["-O0", "-g0", "--coverage", "-fprofile-update=atomic"]
    link_args.append("--coverage")
else:
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args += ["-O1", "-g", "-fno-omit-frame-pointer", "-UNDEBUG", *sanitize]
    link_args += sanitize

lto = os.environ.get("RUSTLLM_LTO", "0")
if lto not in ("0", "1"):
    sys.exit(f"RUSTLLM_LTO={lto!r} is neither 0 nor 1")
if lto == "1":
    compile_args.append("-flto")
    link_args += ["-flto", "-O3"]

HEADERS = {p.name: p for p in Path("rustllm").rglob("*.h")}


def headers_of(source: Path) -> list[str]:
    """Return the headers that a module includes, itself or through what it cimports."""
    found: set[Path] = set()
    pending = [source]
    while pending:
        path = pending.pop()
        if path in found or not path.exists():
            continue
        found.add(path)
        text = path.read_text("utf-8")
        if path.suffix == ".h":
            names = re.findall(r'#(?:include|define RL_TEMPLATE) "([^"]+)"', text)
        else:
            names = re.findall(r'^cdef extern from "([^"]+)"', text, re.MULTILINE)
            modules = re.findall(r"^from (rustllm[\w.]*) cimport", text, re.MULTILINE)
            pending += [Path(*module.split(".")).with_suffix(".pxd") for module in modules]
            pending.append(path.with_suffix(".pxd"))
        pending += [HEADERS[name] for name in names if name in HEADERS]
    return sorted(str(path) for path in found if path.suffix == ".h")


extensions = [
    Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        include_dirs=["rustllm/_core/simd", numpy.get_include()],
        depends=headers_of(source),
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=[*link_args, *([] if WINDOWS else ["-pthread"])],
        libraries=[] if WINDOWS else ["m"],
    )
    for source in sorted(Path("rustllm").rglob("*.pyx"))
]


def clang_for_windows() -> list[str]:
    """Return the command of a compiler that can make extensions for Windows, or end the build.

    The kernels are written with vector types and per-function instruction sets, which Microsoft's
    compiler has not, and GCC did not align wide vectors on Windows' stack (its bug 54412, mended in
    2026): a crash now and then. ``simd/target.h`` refuses both.
    """
    if "CC" in os.environ:
        return shlex.split(os.environ["CC"], posix=os.name != "nt")
    targets = {"win-amd64": "x86_64-windows-gnu", "win-arm64": "aarch64-windows-gnu"}
    if PLATFORM not in targets:
        sys.exit(f"rustllm is for 64-bit Windows, and this Python is for {PLATFORM}")
    if find_spec("ziglang") is None:
        sys.exit(
            "on Windows rustllm is compiled by clang: run `pip install ziglang`, which brings one, "
            "or set CC to a clang whose target is x86_64-w64-windows-gnu; neither Microsoft's "
            "compiler nor GCC will do (docs/building.md)"
        )
    return [sys.executable, "-m", "ziglang", "cc", "-target", targets[PLATFORM]]


class BuildInParallel(build_ext):
    """Compile on every core unless told otherwise, and on Windows with clang."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = jobs

    def build_extensions(self) -> None:
        if WINDOWS:
            self.use_clang(clang_for_windows())
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        super().build_extension(ext)
        if WINDOWS:  # what other programs would link to an extension with
            library = ext.name.rpartition(".")[2] + ".lib"
            Path(self.get_ext_fullpath(ext.name)).with_name(library).unlink(missing_ok=True)

    def use_clang(self, command: list[str]) -> None:
        """Put a compiler with the options of GCC in the place of Microsoft's."""
        from distutils.unixccompiler import UnixCCompiler

        given, self.compiler = self.compiler, UnixCCompiler(force=self.force)
        self.compiler.set_executables(
            compiler=command, compiler_so=command, linker_so=[*command, "-shared", "-s"]
        )
        for name in ("include_dirs", "macros", "libraries", "library_dirs"):
            setattr(self.compiler, name, getattr(given, name))


class ReproducibleWheel(bdist_wheel):
    """The modes of files are the same whatever those of the tree and the umask are."""

    def write_wheelfile(self, wheelfile_base: str, *more: str) -> None:
        super().write_wheelfile(wheelfile_base, *more)  # the last before all is packed
        for path in Path(wheelfile_base).parent.rglob("*"):
            if path.is_file():
                path.chmod(0o755 if path.suffix == ".so" else 0o644)


class ReproducibleSdist(sdist):
    """With ``SOURCE_DATE_EPOCH`` set, the same tree gives the same bytes."""

    def make_distribution(self) -> None:
        super().make_distribution()
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None:
            return
        for archive in self.archive_files:
            if not archive.endswith(".tar.gz"):
                continue
            with tarfile.open(archive) as old:
                entries = sorted(old.getmembers(), key=lambda entry: entry.name)
                files = [(e, old.extractfile(e).read() if e.isfile() else None) for e in entries]
            with (
                Path(archive).open("wb") as raw,
                gzip.GzipFile("", "wb", 9, raw, mtime=int(epoch)) as packed,
                tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
            ):
                for entry, content in files:
                    clean = tarfile.TarInfo(entry.name)
                    clean.type, clean.size, clean.mtime = entry.type, entry.size, int(epoch)
                    clean.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
                    new.addfile(clean, None if content is None else io.BytesIO(content))


# The processes that translate must inherit the settings below, and newer Pythons do not fork.
FORKS = "fork" in multiprocessing.get_all_start_methods()
if FORKS:
    multiprocessing.set_start_method("fork", force=True)

# Every warning of level 1; those of level 0 come from Cython's own memoryview code.
Errors.LEVEL = 1
Options.warning_errors = True

modules = [
    module
    for marked in (True, False)
    for module in cythonize(
        [e for e in extensions if (e.name.rpartition(".")[2] in FREE_THREADED.split()) == marked],
        nthreads=jobs if FORKS else 0,
        compiler_directives={**directives, "freethreading_compatible": marked},
    )
]

setup(
    ext_modules=modules,
    cmdclass={
        "build_ext": BuildInParallel,
        "bdist_wheel": ReproducibleWheel,
        "sdist": ReproducibleSdist,
    },
)

"""Allocation, text slices and error contexts, each beside what one would use otherwise.

The loops in `allocation_loops.pyx` are compiled when first needed, against the rustllm and cymem
that are installed: what an allocation costs other people's Cython is the question.
"""

import hashlib
import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

import rustllm
from rustllm import Arena, TextSlice, TokenPool
from rustllm.errors import error_context
from rustllm.memory import ByteView, validate_utf8

try:
    from cymem.cymem import Pool
except ImportError:
    Pool = None

N_BLOCKS = 10_000


def compiled_loops() -> ModuleType:
    """The module `allocation_loops`, compiled once for each version of everything it depends on."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    source = Path(__file__).with_name("allocation_loops.pyx")
    core = Path(rustllm.__file__).parent / "_core"
    parts = [source, core / "arena.pxd", core / "pool.pxd"]
    key = hashlib.sha256(b"".join(part.read_bytes() for part in parts) + sys.version.encode())
    folder = Path(tempfile.gettempdir()) / f"rustllm-bench-{key.hexdigest()[:16]}"
    built = next(folder.glob("allocation_loops*.so"), None)
    if built is None:
        folder.mkdir(exist_ok=True)
        copy = folder / source.name
        copy.write_bytes(source.read_bytes())
        extension = Extension("allocation_loops", [str(copy)], extra_compile_args=["-O3"])
        options = {"build_lib": str(folder), "build_temp": str(folder)}
        command = Distribution(
            {
                "ext_modules": cythonize(
                    [extension],
                    include_path=[str(core.parents[1]), *sys.path],
                    compiler_directives={"language_level": 3},
                    quiet=True,
                ),
                "options": {"build_ext": options},
            }
        ).get_command_obj("build_ext")
        command.ensure_finalized()
        command.run()
        built = next(folder.glob("allocation_loops*.so"))
    spec = importlib.util.spec_from_file_location("allocation_loops", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class AllocateFromCython:
    """10,000 small blocks in a compiled loop; all but malloc also give them back together."""

    params = [["arena", "arena_shared", "token_pool", "cymem", "malloc_free"], [16, 64, 1024]]
    param_names = ["allocator", "bytes"]

    def setup_cache(self):
        compiled_loops()

    def setup(self, allocator: str, size: int) -> None:
        if Pool is None:
            raise NotImplementedError("cymem is not installed")
        self.loop = getattr(compiled_loops(), allocator)
        self.arena = Arena(chunk_size=1 << 24)
        self.pool = TokenPool()
        self.arena.alloc(1 << 24)[:] = bytes(1 << 24)  # pages touched, as after a first round
        self.arena.reset()

    def time_10000_blocks(self, allocator: str, size: int) -> None:
        if allocator == "cymem":
            self.loop(Pool(), N_BLOCKS, size)
        elif allocator == "token_pool":
            self.loop(self.pool, N_BLOCKS, size)
        else:
            self.loop(self.arena, N_BLOCKS, size)
            self.arena.reset()


class AllocateFromPython:
    """One buffer of bytes or tokens, made and dropped."""

    params = [
        ["Arena.alloc", "Arena.alloc_array", "TokenPool.lease", "bytearray", "numpy.empty"],
        [64, 4096, 1 << 20],
    ]
    param_names = ["allocator", "bytes"]

    def setup(self, allocator: str, size: int) -> None:
        arena, pool = Arena(chunk_size=1 << 26), TokenPool()
        pool.lease(size // 4).release()

        def from_arena() -> None:
            for _ in range(50):
                arena.alloc(size)
            arena.reset()

        def array_from_arena() -> None:
            for _ in range(50):
                arena.alloc_array(size // 4, np.uint32)
            arena.reset()

        def from_pool() -> None:
            for _ in range(50):
                pool.lease(size // 4).release()

        def from_bytearray() -> None:
            for _ in range(50):
                bytearray(size)

        def from_numpy() -> None:
            for _ in range(50):
                np.empty(size // 4, np.uint32)

        self.make = {
            "Arena.alloc": from_arena,
            "Arena.alloc_array": array_from_arena,
            "TokenPool.lease": from_pool,
            "bytearray": from_bytearray,
            "numpy.empty": from_numpy,
        }[allocator]

    def time_50_buffers(self, allocator: str, size: int) -> None:
        self.make()


class HoldManyBlocks:
    """Peak memory of the process with 200,000 blocks of 64 bytes alive."""

    params = ["Arena", "cymem", "bytearray", "numpy.empty"]
    param_names = ["allocator"]

    def setup(self, allocator: str) -> None:
        if allocator == "cymem" and Pool is None:
            raise NotImplementedError("cymem is not installed")

    def peakmem_200000_blocks(self, allocator: str) -> None:
        if allocator == "Arena":
            self.kept = Arena()
            compiled_loops().arena(self.kept, 200_000, 64)
        elif allocator == "cymem":
            self.kept = Pool()
            compiled_loops().cymem(self.kept, 200_000, 64)
        elif allocator == "bytearray":
            self.kept = [bytearray(64) for _ in range(200_000)]
        else:
            self.kept = [np.empty(64, np.uint8) for _ in range(200_000)]


class ValidateUtf8:
    """16 MiB of text; divide by the time for bytes a second."""

    params = [["rustllm", "bytes.decode"], ["english", "one percent accents", "chinese"]]
    param_names = ["validator", "text"]

    def setup(self, validator: str, text: str) -> None:
        piece = {
            "english": "The quick brown fox jumps over the lazy dog. ",
            "one percent accents": "The quick brown fox jumps over the lazy dog, " * 2 + "né ",
            "chinese": "敏捷的棕色狐狸跳过了懒狗。",
        }[text].encode()
        self.data = piece * ((1 << 24) // len(piece))
        self.check = validate_utf8 if validator == "rustllm" else bytes.decode

    def time_16_mebibytes(self, validator: str, text: str) -> None:
        self.check(self.data)


class CutText:
    """50,000 short lines, cut into lines, and each line into fields."""

    params = ["TextSlice", "ByteView", "str", "bytes"]
    param_names = ["kind"]

    def setup(self, kind: str) -> None:
        text = "alpha\tbeta\tgamma\n" * 50_000
        self.text = {"TextSlice": TextSlice, "ByteView": lambda t: ByteView(t.encode())}.get(
            kind, {"str": str, "bytes": str.encode}.get(kind)
        )(text)
        self.separator = "\t" if kind in ("TextSlice", "str") else b"\t"

    def time_lines(self, kind: str) -> None:
        for _ in self.text.splitlines():
            pass

    def time_fields(self, kind: str) -> None:
        separator = self.separator
        for line in self.text.splitlines():
            line.split(separator)

    def peakmem_lines(self, kind: str) -> None:
        self.kept = self.text.splitlines()


class ErrorContext:
    """What saying what is being done costs while nothing fails; divide by 1000."""

    def time_1000_contexts(self) -> None:
        for offset in range(1000):
            with error_context("loading tensor", name="output.weight", offset=offset):
                pass

    def time_1000_bare_rounds(self) -> None:
        for _ in range(1000):
            pass

"""Feed the loaders files that were damaged at random; nothing but a typed error may come of it.

``python tests/fuzz/fuzz_loaders.py --runs 100000 --seed 7`` fuzzes the build that is importable;
``tests/fuzz/run_asan.py`` makes one with the address and undefined-behaviour sanitizers and runs
this under it. Every case is told by its seed alone, so that a failure can be replayed with
``--only``.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import io
import itertools
import json
import lzma
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_TESTS), str(_TESTS.parent)]

import gguf_bytes as raw  # noqa: E402
import numpy as np  # noqa: E402
from driving import arguments, outcome_of, run_cases, timed  # noqa: E402

from rustllm._core import quant  # noqa: E402
from rustllm._core.json_text import scan_texts  # noqa: E402
from rustllm.loaders.detect import detect_format  # noqa: E402
from rustllm.loaders.gguf import GGUFFile  # noqa: E402
from rustllm.loaders.records import stream_records  # noqa: E402
from rustllm.loaders.safetensors import SafetensorsFile  # noqa: E402
from rustllm.loaders.text import read_text, stream_text  # noqa: E402

# No file of a few kilobytes may cost more than this.
SECONDS_A_CASE = 2.0
NUMBERS = [0, 1, 2, 3, 4, 8, 9, 12, 13, 31, 32, 63, 64, 65, 255, 2**15, 2**16, 2**20, 2**31 - 1]
NUMBERS += [
    2**31,
    2**32 - 1,
    2**40,
    2**40 + 1,
    2**61,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 32,
    2**64 - 1,
]


def every_block_type() -> bytes:
    """A valid file with one tensor of each block type."""
    fields = [raw.field("general.architecture", raw.STR, "demo")]
    tensors = []
    data = b""
    for type_id in quant.BLOCK_FORMATS:
        tensors.append(raw.tensor(f"t{type_id}", [256, 2], type_id, len(data)))
        block = bytes((7 * i + type_id) % 60 for i in range(quant.n_bytes(type_id, 512)))
        data += block.ljust(-(-len(block) // 32) * 32, b"\0")
    return raw.gguf(fields, tensors, data)


def small_safetensors() -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, dtype, shape, size in (
        ("a", "F32", [2, 3], 24),
        ("b", "BF16", [4], 8),
        ("c", "BOOL", [2], 2),
        ("d", "I64", [], 8),
        ("e", "F16", [0, 7], 0),
    ):
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + bytes(i % 2 for i in range(at))


def use_gguf(data: Any, strict: bool) -> None:
    file = GGUFFile.from_buffer(data, strict=strict)
    for value in file.metadata.values():
        if hasattr(value, "as_bytes_list"):
            value.as_bytes_list()
            value.as_list()
        elif isinstance(value, np.ndarray):
            value.astype(np.float64).sum()
    for tensor in file.tensors.values():
        tensor.data.sum()
        if tensor.n_elements < 1 << 20:
            tensor.dequantize()
    file.check_data()


def use_safetensors(data: Any, strict: bool) -> None:
    file = SafetensorsFile.from_buffer(data)
    for array in file.tensors.values():
        array.astype(np.float64).sum()


def use_lines(data: Any, strict: bool) -> None:
    """The scanner of JSON lines says what json.loads says, or nothing."""
    for line in data.tobytes().split(b"\n"):
        exact = np.frombuffer(line, np.uint8).copy()  # so that a read too far is one
        spans = np.zeros((1, 2), np.int64)
        _, n, _ = scan_texts(exact, 0, len(exact), b"text", spans, 0)
        if n:
            text = exact[spans[0, 0] : spans[0, 1]].tobytes().decode()
            if json.loads(line)["text"] != text:
                raise AssertionError("another text than json.loads finds")
        elif strict:
            list(stream_records(io.BytesIO(line), "jsonl", encoding="utf-8"))


TEXT = 'id,text\n1,"one, two"\n2,ß 語 😀\n\n3,four\n' * 20
LINES = "\n".join(json.dumps({"id": i, "text": "ß" * i}) for i in range(30))


def some_texts() -> list[bytes]:
    """Texts in several encodings and compressions."""
    plain = [TEXT.encode(), LINES.encode(), TEXT.encode("utf-16"), TEXT.encode("utf-32-be")]
    packed = [gzip.compress(plain[0]), bz2.compress(plain[1]), lzma.compress(plain[2])]
    for module in ("zstandard", "lz4.frame"):
        with contextlib.suppress(ImportError):
            packed.append(importlib.import_module(module).compress(plain[0]))
    return plain + packed


def use_text(data: Any, strict: bool) -> None:
    raw_bytes = data.tobytes()
    told = detect_format(raw_bytes)
    fallback = None if strict else "latin-1"
    whole = read_text(io.BytesIO(raw_bytes), fallback=fallback)
    pieces = list(stream_text(io.BytesIO(raw_bytes), 64, fallback=fallback))
    if "".join(pieces) != whole:
        raise AssertionError("the pieces are not the text")
    for unit in ("line", "paragraph", "document"):
        how: dict[str, Any] = {"unit": unit, "fallback": fallback, "separator": "\n\n"}
        stream = stream_text(io.BytesIO(raw_bytes), **how)
        pieces = list(itertools.islice(stream, 5))
        rest = stream_text(io.BytesIO(raw_bytes), start=stream.offset, **how)
        if list(stream) != list(rest):
            raise AssertionError(f"resuming by {unit} gives another rest")
    if told.kind in ("json", "jsonl", "csv", "tsv"):
        list(stream_records(io.BytesIO(raw_bytes), told.kind, fallback=fallback))


def header_size(data: bytes) -> int:
    """Where damage does most: up to the tensors' data."""
    if data[:4] == b"GGUF":
        return GGUFFile.from_buffer(data).data_start
    if data[8:9] == b"{":
        return 8 + int.from_bytes(data[:8], "little")
    return len(data)


TARGETS: dict[str, tuple[Callable[[Any, bool], None], list[bytes]]] = {
    "gguf": (use_gguf, [raw.small(), every_block_type()]),
    "safetensors": (use_safetensors, [small_safetensors()]),
    "text": (use_text, some_texts()),
    "lines": (use_lines, [LINES.encode(), json.dumps({"a": [1.5, {}], "text": "ß\n\\"}).encode()]),
}


def mutate(data: bytes, header: int, rng: random.Random) -> bytes:
    """One to four random changes, mostly of the header."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not out:
            break
        limit = min(header, len(out)) if rng.random() < 0.9 else len(out)
        place = rng.randrange(max(limit, 1))
        kind = rng.randrange(9)
        if kind == 0:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[place] = rng.randrange(256)
        elif kind in (2, 3):
            number = rng.choice(NUMBERS) if rng.random() < 0.7 else len(out) + rng.randint(-64, 64)
            width = rng.choice((4, 8))
            out[place : place + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
        elif kind == 4:
            del out[place:]
        elif kind == 5:
            del out[place : place + rng.choice((1, 2, 4, 8, 32))]
        elif kind == 6:
            out[place:place] = rng.randbytes(rng.choice((1, 2, 4, 8, 32)))
        elif kind == 7:
            other = rng.randrange(len(out))
            n = rng.choice((4, 8, 16, 64))
            out[place : place + n] = out[other : other + n]
        else:
            out[place : place + 1] = rng.choice((b"9", b'"', b"{", b"[", b"-", b"\xff", b"\0"))
    return bytes(out)


def run_case(target: str, seed: int) -> str:
    """Run one case; "loaded", or the name of the typed error. Anything else is raised."""
    use, seeds = TARGETS[target]
    rng = random.Random(f"{target} {seed}")
    original = rng.choice(seeds)
    damaged = mutate(original, header_size(original), rng)
    # An allocation of exactly this size, so that a sanitizer sees a read of one byte too many.
    data = np.empty(len(damaged), np.uint8)
    data[:] = np.frombuffer(damaged, np.uint8)
    with timed(f"{target} {seed}", SECONDS_A_CASE):
        return outcome_of(lambda: use(data, rng.random() < 0.3))


def main() -> int:
    args = arguments(__doc__, TARGETS).parse_args()
    run_cases(args, TARGETS, run_case)
    return 0


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        sys.exit(main())

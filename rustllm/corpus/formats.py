"""The files that training programs read: bare ids, ``.npy``, and Megatron's pair.

``bin``
    Bare ids of the machine-independent little-endian type, as nanoGPT reads them.
``npy``
    The same as a numpy array.
``megatron``
    ``.bin`` of bare ids and ``.idx``: ``MMIDIDX\\0\\0``, version (u64) 1, type code (u8), number of
    sequences (u64), of documents + 1 (u64), lengths (i32), byte offsets (i64), documents (i64).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from rustllm.errors import ArgumentError, FileFormatError, TruncatedFileError

__all__ = [
    "FORMATS",
    "MEGATRON_HEAD",
    "choose_dtype",
    "npy_header",
    "write_ids",
    "write_megatron_index",
]

FORMATS = {"bin": "tokens.bin", "npy": "tokens.npy", "megatron": "tokens.bin"}
_MEGATRON_CODES = {"uint16": 8, "int32": 4}
_MAGIC = b"MMIDIDX\x00\x00"
# Bytes before the lengths of an index.
MEGATRON_HEAD = 34
_BLOCK = 1 << 20

Array = np.ndarray[Any, Any]


def choose_dtype(format: str, n_vocab: int, dtype: str | None) -> str:
    """Return the type of the ids in the file; ArgumentError when the vocabulary does not fit it."""
    if format not in FORMATS:
        raise ArgumentError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    allowed = ("uint16", "int32") if format == "megatron" else ("uint16", "uint32")
    if dtype is None:
        dtype = allowed[n_vocab > 1 << 16]
    if dtype not in allowed:
        raise ArgumentError(f"ids of the format {format} are {' or '.join(allowed)}, not {dtype!r}")
    if n_vocab - 1 > np.iinfo(dtype).max:
        raise ArgumentError(f"a vocabulary of {n_vocab} does not fit {dtype}", hint=allowed[1])
    return dtype


def write_ids(file: IO[bytes], format: str, dtype: str, n: int, parts: Iterator[Array]) -> None:
    """Write `n` ids that come in parts."""
    little = np.dtype(dtype).newbyteorder("<")
    if format == "npy":
        file.write(npy_header(dtype, n))
    for part in parts:
        file.write(memoryview(part.astype(little, copy=False)).cast("B") if len(part) else b"")


def npy_header(dtype: str, n: int) -> bytes:
    """Return what stands before `n` ids; of one size for every `n`."""
    header = io.BytesIO()
    little = np.dtype(dtype).newbyteorder("<")
    np.lib.format.write_array_header_1_0(
        header, {"descr": little.str, "fortran_order": False, "shape": (n,)}
    )
    return header.getvalue()


def write_megatron_index(
    file: IO[bytes], dtype: str, n: int, lengths: Callable[[], Iterator[Array]]
) -> None:
    """Write the ``.idx`` of `n` documents, whose lengths are asked for twice."""
    file.write(_MAGIC + struct.pack("<QBQQ", 1, _MEGATRON_CODES[dtype], n, n + 1))
    for part in lengths():
        if len(part) and int(part.max()) > np.iinfo(np.int32).max:
            raise FileFormatError("a document has more ids than the index can say")
        file.write(part.astype("<i4").tobytes())
    offset = 0
    width = np.dtype(dtype).itemsize
    for part in lengths():
        ends = offset + np.cumsum(part, dtype=np.int64) * width
        file.write((ends - part.astype(np.int64) * width).astype("<i8").tobytes())
        offset = int(ends[-1]) if len(ends) else offset
    for start in range(0, n + 1, _BLOCK):
        file.write(np.arange(start, min(start + _BLOCK, n + 1), dtype="<i8").tobytes())


def read_megatron_lengths(path: Path, dtype: str, n_tokens: int) -> Array:
    """Read the lengths from an ``.idx``, and check everything in it."""
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise FileFormatError("this is no Megatron index", path=path, offset=0)
    if len(data) < 34:
        raise TruncatedFileError("the index ends in its head", path=path, offset=len(data))
    version, code, n, n_documents = struct.unpack_from("<QBQQ", data, 9)
    if version != 1 or code != _MEGATRON_CODES.get(dtype) or n_documents != n + 1:
        raise FileFormatError("the head of the index contradicts the corpus", path=path, offset=9)
    if len(data) != 34 + 12 * n + 8 * n_documents:
        raise TruncatedFileError("the index has another length than it says", path=path)
    lengths = np.frombuffer(data, "<i4", n, 34)
    pointers = np.frombuffer(data, "<i8", n, 34 + 4 * n)
    documents = np.frombuffer(data, "<i8", n_documents, 34 + 12 * n)
    ends = np.cumsum(lengths, dtype=np.int64) * np.dtype(dtype).itemsize
    if (
        bool((lengths < 0).any())
        or not np.array_equal(pointers[1:], ends[:-1])
        or (n and pointers[0] != 0)
        or int(lengths.sum(dtype=np.int64)) != n_tokens
        or not np.array_equal(documents, np.arange(n + 1))
    ):
        raise FileFormatError("the index contradicts the corpus", path=path)
    return lengths

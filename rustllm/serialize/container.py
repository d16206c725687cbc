"""The container: a fixed prefix, a header in JSON, arrays one after the other.

======  =====================================================================================
bytes   content (integers little-endian)
======  =====================================================================================
8       magic ``89 52 4C 4C 4D 0D 0A 1A``: not text, and a transfer as text damages it
4       version of the format, 1
4       CRC-32 of the header
8       length of the header in bytes
8       length of the whole in bytes
n       header: UTF-8 JSON, an object with ``tree`` and ``arrays``
0-63    zeros, before each array, up to a multiple of 64
======  =====================================================================================

``arrays`` is a list of ``[dtype, shape, offset, crc32]``; the offsets follow from the shapes, and
are there to be checked. Nothing comes after the last array.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import struct
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from rustllm.errors import (
    FileAccessError,
    FileFormatError,
    FileMissingError,
    HashMismatchError,
    RustLLMError,
    TruncatedFileError,
    UnsupportedError,
)
from rustllm.serialize.atomic import atomic_write
from rustllm.serialize.tree import Array, pack, unpack

if TYPE_CHECKING:
    from rustllm.types import BytesLike, PathLikeStr

__all__ = ["dump", "dumps", "load", "loads"]

MAGIC = b"\x89RLLM\r\n\x1a"
VERSION = 1
_PREFIX = struct.Struct("<8sIIQQ")
_ALIGN = 64
_DTYPE = re.compile(r"[<|](b1|[iu][1248]|f[248]|c8|c16|f16)")
_MAX_DIMENSIONS = 32


def dumps(value: Any) -> bytes:
    """Write a tree of values to bytes.

    Parameters
    ----------
    value : tree
        None, bool, int, float, str, bytes, lists, tuples, mappings with text keys, numpy arrays
        and scalars, `TokenBatch`, and what `register_type` added.

    Returns
    -------
    bytes

    Raises
    ------
    ArgumentError
        Something in the tree cannot be written; ``key`` says where it is.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import serialize
    >>> data = serialize.dumps({"ids": np.arange(3, dtype=np.uint32), "name": "tiny"})
    >>> serialize.loads(data)
    {'ids': array([0, 1, 2], dtype=uint32), 'name': 'tiny'}
    """
    return b"".join(_parts(value))


def dump(value: Any, path: PathLikeStr, *, durable: bool = True) -> None:
    """Write a tree of values to a file, which appears whole or not at all.

    Parameters
    ----------
    value : tree
        As in `dumps`. Arrays are not copied on their way.
    path : path
    durable : bool
        Return only when the file is on the disk.

    Raises
    ------
    ArgumentError
        As in `dumps`; no file is made.
    FileMissingError, FileAccessError
    """
    parts = _parts(value)
    with atomic_write(path, durable=durable) as file:
        for part in parts:
            _write_all(file, part)


def loads(data: BytesLike, *, verify: bool = True) -> Any:
    """Read what `dumps` wrote.

    Parameters
    ----------
    data : bytes, bytearray or memoryview
    verify : bool
        Compare the checksums of the arrays, which reads them all; that of the header is always
        compared.

    Returns
    -------
    tree
        Arrays are read-only views of `data`.

    Raises
    ------
    FileFormatError, TruncatedFileError
        `data` is something else, or breaks a rule of the format.
    HashMismatchError
        A checksum differs.
    UnsupportedError
        A later version of the format, or a type that nobody registered.
    """
    view = memoryview(data)
    if not view.contiguous:
        raise FileFormatError("the buffer is not contiguous")
    return _read(view.cast("B"), verify)


def load(path: PathLikeStr, *, verify: bool = True) -> Any:
    """Read what `dump` wrote, arrays as views of the mapped file.

    Parameters
    ----------
    path : path
        Must not be changed while the arrays live; `dump` does not change files, it replaces them.
    verify : bool
        As in `loads`; without it only the pages that are used are read.

    Raises
    ------
    FileMissingError, FileAccessError
    FileFormatError, TruncatedFileError, HashMismatchError, UnsupportedError
        As in `loads`, with the ``path``.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from rustllm import serialize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "config.rllm")
    ...     serialize.dump({"n_layer": 30, "rope": (10000.0, None)}, path)
    ...     serialize.load(path)
    {'n_layer': 30, 'rope': (10000.0, None)}
    """
    try:
        with Path(path).open("rb") as file:
            if file.seek(0, 2) < _PREFIX.size:
                raise TruncatedFileError("the file is shorter than its prefix", path=path)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise FileMissingError("no such file", path=path) from error
    except OSError as error:
        if isinstance(error, RustLLMError):
            raise
        raise FileAccessError(error.strerror or str(error), path=path, errno=error.errno) from error
    try:
        return _read(memoryview(mapped), verify)
    except RustLLMError as error:
        error.fields.setdefault("path", path)
        raise


def _parts(value: Any) -> list[bytes | memoryview]:
    """Return the pieces of the container, arrays as views wherever they are in order."""
    arrays: list[Array] = []
    tree = pack(value, arrays)
    plain = [_little_endian(array) for array in arrays]
    entries = []
    for array in plain:
        checksum = zlib.crc32(_bytes_of(array))
        entries.append([array.dtype.str, list(array.shape), 0, checksum])
    # Offsets are relative to the end of the header, so that they do not change its length.
    position = 0
    for entry, array in zip(entries, plain, strict=True):
        position = _align(position)
        entry[2] = position
        position += array.nbytes
    header = json.dumps(
        {"tree": tree, "arrays": entries}, ensure_ascii=True, allow_nan=False, separators=(",", ":")
    ).encode()
    # Spaces up to the alignment, which JSON allows: then the data begins where the header ends.
    header += b" " * (_align(_PREFIX.size + len(header)) - _PREFIX.size - len(header))
    start = _PREFIX.size + len(header)
    prefix = _PREFIX.pack(MAGIC, VERSION, zlib.crc32(header), len(header), start + position)
    parts: list[bytes | memoryview] = [prefix, header]
    position = 0
    for entry, array in zip(entries, plain, strict=True):
        parts.append(bytes(entry[2] - position))
        parts.append(_bytes_of(array))
        position = entry[2] + array.nbytes
    return parts


def _little_endian(array: Array) -> Array:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    # Not ascontiguousarray, which makes one dimension out of none.
    return little if little.flags.c_contiguous else little.copy(order="C")


def _bytes_of(array: Array) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))


def _align(position: int) -> int:
    return -(-position // _ALIGN) * _ALIGN


def _write_all(file: IO[bytes], part: bytes | memoryview) -> None:
    view = memoryview(part)
    while len(view):
        view = view[file.write(view) :]


def _read(data: memoryview, verify: bool) -> Any:
    if len(data) < _PREFIX.size:
        raise TruncatedFileError(
            f"{len(data)} bytes are fewer than the {_PREFIX.size} of the prefix", offset=len(data)
        )
    magic, version, checksum, n_header, n_all = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise FileFormatError("this was not written by rustllm.serialize", offset=0)
    if version != VERSION:
        raise UnsupportedError(f"version {version} of the format, and this reads {VERSION}")
    if n_all != len(data):
        kind = TruncatedFileError if n_all > len(data) else FileFormatError
        raise kind(f"the prefix says {n_all} bytes and there are {len(data)}", offset=24)
    start = _PREFIX.size + n_header
    if start > n_all:
        raise FileFormatError(f"a header of {n_header} bytes does not fit", offset=16)
    header = bytes(data[_PREFIX.size : start])
    _compare(checksum, zlib.crc32(header), "the header")
    try:
        content = json.loads(header)
        tree, entries = content["tree"], content["arrays"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(f"the header cannot be read: {error}", offset=_PREFIX.size) from error
    if not isinstance(entries, list):
        raise FileFormatError("the header has no list of arrays", key="arrays")
    arrays = []
    position = 0
    body = data[start:]
    for number, entry in enumerate(entries):
        array, position = _read_array(body, entry, position, f"arrays[{number}]", verify)
        arrays.append(array)
    if position != len(body):
        raise FileFormatError(f"{len(body) - position} bytes after the last array", offset=start)
    return unpack(tree, arrays)


def _read_array(
    body: memoryview, entry: Any, position: int, key: str, verify: bool
) -> tuple[Array, int]:
    """Check one entry against the rules, and return its array and where it ends."""
    if not isinstance(entry, list) or len(entry) != 4:
        raise FileFormatError("an array is described by four values", key=key)
    code, shape, offset, checksum = entry
    if not isinstance(code, str) or _DTYPE.fullmatch(code) is None:
        raise FileFormatError(f"{code!r} is no type of array", key=key)
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise FileFormatError("the shape is no list of up to 32 sizes", key=key)
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in [*shape, checksum]):
        raise FileFormatError("a size or checksum is no natural number", key=key)
    if isinstance(offset, bool) or offset != _align(position):
        raise FileFormatError(f"the array is said to be at {offset!r}", key=key)
    try:
        dtype = np.dtype(code)
    except TypeError as error:
        raise UnsupportedError(f"this machine has no {code!r}", key=key) from error
    n = math.prod(shape)
    if n == 0 and math.prod(size for size in shape if size) * dtype.itemsize > 2**62:
        raise FileFormatError("the shape is too large", key=key)
    end = offset + n * dtype.itemsize
    if end > len(body):
        raise TruncatedFileError(f"the array ends at {end} of {len(body)} bytes", key=key)
    if any(body[position:offset]):
        raise FileFormatError("the bytes between two arrays are not zero", key=key)
    data = body[offset:end]
    if verify:
        _compare(checksum, zlib.crc32(data), key)
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    array.flags.writeable = False
    return cast("Array", array), end


def _compare(expected: int, actual: int, what: str) -> None:
    if expected != actual:
        raise HashMismatchError(
            f"the checksum of {what} differs: the data was damaged",
            expected=f"{expected:08x}",
            actual=f"{actual:08x}",
        )

"""Write GGUF files: only what the format allows, streamed, and never half a file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rustllm._core import quant
from rustllm._core.scan import VALUE_TYPES
from rustllm.errors import ArgumentError
from rustllm.loaders.string_array import StringArray
from rustllm.serialize.atomic import atomic_write

__all__ = ["TensorSource", "Typed", "write_gguf"]

_CODES = {name: code for code, name in enumerate(VALUE_TYPES)}
_STRUCT = {
    "u8": "<B", "i8": "<b", "u16": "<H", "i16": "<h", "u32": "<I", "i32": "<i", "f32": "<f",
    "bool": "<?", "u64": "<Q", "i64": "<q", "f64": "<d",
}  # fmt: skip
_DTYPES = {
    "u1": "u8", "i1": "i8", "u2": "u16", "i2": "i16", "u4": "u32", "i4": "i32", "f4": "f32",
    "b1": "bool", "u8": "u64", "i8": "i64", "f8": "f64",
}  # fmt: skip
_TENSOR_DTYPES = {
    "f4": "F32", "f2": "F16", "f8": "F64", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64",
}  # fmt: skip
_ITEM_DTYPES = {name: np.dtype(f"<{code}") for code, name in _DTYPES.items()}
_MAX_ALIGNMENT = 1 << 20


class Typed(NamedTuple):
    """A metadata value and its type in the file: ``Typed("u64", 7)``, ``Typed("[i32]", [1])``."""

    type: str
    value: Any


class TensorSource(NamedTuple):
    """A tensor to write that need not be in memory.

    Attributes
    ----------
    type : str
        Block type, for instance ``"Q4_1"``.
    shape : tuple of int
        Rows first.
    data : buffer, or a function that returns an iterable of buffers
        The blocks, in order; the function is called once.
    """

    type: str
    shape: tuple[int, ...]
    data: Any | Callable[[], Iterable[Any]]


def write_gguf(
    path: str | PathLike[str],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any] | TensorSource],
    *,
    alignment: int = 32,
    version: int = 3,
) -> int:
    """Write a GGUF file.

    The file is written beside `path` under a temporary name, flushed to the disk and renamed, so
    that `path` is never a part of a file.

    Parameters
    ----------
    path : path
        An existing file is replaced.
    metadata : mapping of str to value
        bool, int (u32 where it fits, else i32, u64, i64), float (f32), str, sequences of these,
        numpy scalars and arrays (stored as their type), :class:`StringArray`, or :class:`Typed`.
        ``general.alignment`` is written from `alignment`.
    tensors : mapping of str to ndarray or TensorSource
        Arrays of float32, float16, float64 or signed integers, or blocks of any supported type.
    alignment : int
        Power of two, 8 to 2^20; stored when it is not 32.
    version : int
        2 or 3.

    Returns
    -------
    int
        Bytes written.

    Raises
    ------
    ArgumentError
        Something that GGUF cannot express: names, shapes, types, a source of another size.
    FileAccessError
        The file cannot be written; nothing is left behind.
    """
    if version not in (2, 3):
        raise ArgumentError(f"version {version}; 2 or 3")
    if not 8 <= alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ArgumentError(f"alignment {alignment}; a power of two, 8 to {_MAX_ALIGNMENT}")
    fields = {key: value for key, value in metadata.items() if key != "general.alignment"}
    if alignment != 32:
        fields["general.alignment"] = Typed("u32", alignment)
    sources = {name: _source(name, tensor) for name, tensor in tensors.items()}
    header = [struct.pack("<4sIQQ", b"GGUF", version, len(sources), len(fields))]
    for key, value in fields.items():
        header += [_key(key), _encode(key, value)]
    offset = 0
    for name, source in sources.items():
        header.append(_tensor_info(name, source, offset))
        size = quant.n_bytes(source.type, _product(source.shape))
        offset += -(-size // alignment) * alignment
    start = b"".join(header)
    with atomic_write(path) as out:
        out.write(start)
        at = len(start)
        at += _pad(out, at, alignment)
        for name, source in sources.items():
            at += _write_data(out, name, source)
            at += _pad(out, at, alignment)
    return at


def _product(shape: Sequence[int]) -> int:
    n = 1
    for dim in shape:
        n *= int(dim)
    return n


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _key(key: str) -> bytes:
    if not key.isascii() or not 1 <= len(key) <= 65535 or any(not "!" <= c <= "~" for c in key):
        raise ArgumentError(f"{key!r} cannot be a key: printable ASCII, 1 to 65535 characters")
    return _text(key)


def _infer(key: str, value: Any) -> str:
    """The type to store a Python value as."""
    if isinstance(value, (bool, np.bool_)):
        return "bool"
    if isinstance(value, np.generic):
        return _DTYPES.get(value.dtype.str[1:], "")
    if isinstance(value, int):
        for name, low, high in (("u32", 0, 1 << 32), ("i32", -(1 << 31), 0), ("u64", 0, 1 << 64)):
            if low <= value < high:
                return name
        return "i64"
    if isinstance(value, float):
        return "f32"
    if isinstance(value, str):
        return "str"
    if isinstance(value, StringArray):
        return "[str]"
    if isinstance(value, np.ndarray):
        return f"[{_DTYPES.get(value.dtype.str[1:], '')}]"
    if isinstance(value, (list, tuple)) and value:
        kinds = {_infer(key, item) for item in value}
        if kinds <= {"u32", "i32", "u64", "i64"}:
            wide = not all(-(1 << 31) <= item < 1 << 31 for item in value)
            kinds = {"i64" if wide else "i32"}
        if len(kinds) == 1:
            return f"[{kinds.pop()}]"
    raise ArgumentError(f"{type(value).__name__} value of {key!r} has no GGUF type: use Typed")


def _encode(key: str, value: Any) -> bytes:
    kind, value = value if isinstance(value, Typed) else (_infer(key, value), value)
    try:
        if not kind.startswith("["):
            return struct.pack("<I", _CODES[kind]) + _encode_scalar(kind, value)
        item = kind[1:-1]
        head = struct.pack("<IIQ", _CODES["array"], _CODES[item], len(value))
        if item == "str":
            raw = value.as_bytes_list() if isinstance(value, StringArray) else value
            pieces = [text if isinstance(text, bytes) else text.encode() for text in raw]
            return head + b"".join(struct.pack("<Q", len(p)) + p for p in pieces)
        dtype = _ITEM_DTYPES[item]
        array = np.asarray(value)
        exact = array.astype(dtype)
        if array.ndim != 1 or (dtype.kind in "iu" and not np.array_equal(exact, array)):
            raise ValueError("values do not fit")
        return head + exact.tobytes()
    except (KeyError, ValueError, TypeError, OverflowError, struct.error) as error:
        raise ArgumentError(
            f"value of {key!r} cannot be stored as {kind or 'any type'}: {error}"
        ) from None


def _encode_scalar(kind: str, value: Any) -> bytes:
    if kind == "str":
        return _text(value)
    return struct.pack(_STRUCT[kind], value)


def _source(name: str, tensor: Any) -> TensorSource:
    if isinstance(tensor, TensorSource):
        return tensor
    array = np.asarray(tensor)
    kind = _TENSOR_DTYPES.get(array.dtype.str[1:])
    if kind is None:
        raise ArgumentError(
            f"tensor {name!r} is of type {array.dtype}: use TensorSource for blocks"
        )
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return TensorSource(kind, array.shape, np.ascontiguousarray(little))


def _tensor_info(name: str, source: TensorSource, offset: int) -> bytes:
    data = name.encode()
    if not 1 <= len(data) <= 63 or b"\0" in data:
        raise ArgumentError(f"{name!r} cannot name a tensor: 1 to 63 bytes, no NUL")
    shape = [int(dim) for dim in source.shape]
    if not 1 <= len(shape) <= 4 or any(not 1 <= dim <= 1 << 40 for dim in shape):
        raise ArgumentError(f"shape {tuple(shape)} of {name!r}: 1 to 4 dimensions of 1 to 2^40")
    try:
        known = quant.block_format(source.type)
    except ValueError as error:
        raise ArgumentError(f"tensor {name!r}: {error}") from None
    if shape[-1] % known.elements:
        raise ArgumentError(
            f"rows of {name!r} have {shape[-1]} elements, not whole blocks of {known.elements}"
        )
    info = struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), known.type_id, offset)
    return _text(name) + info


def _pad(out: BinaryIO, at: int, alignment: int) -> int:
    n = -at % alignment
    out.write(bytes(n))
    return n


def _write_data(out: BinaryIO, name: str, source: TensorSource) -> int:
    size = quant.n_bytes(source.type, _product(source.shape))
    pieces = source.data() if callable(source.data) else (source.data,)
    done = 0
    for piece in pieces:
        view = memoryview(piece).cast("B")
        done += view.nbytes
        if done > size:
            break
        out.write(view)
    if done != size:
        more = "at least " if done > size else ""
        raise ArgumentError(f"tensor {name!r} takes {size} bytes, its source gave {more}{done}")
    return size

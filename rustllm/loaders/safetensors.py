"""safetensors files: opened lazily, with every rule of the format checked.

The format is a JSON header and raw data; its rules fit on a page, and all of them are checked when
a file is opened, so that nothing can hide in a hole, an overlap or a tail.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustllm.errors import (
    FileFormatError,
    FileMissingError,
    StateError,
    TruncatedFileError,
    UnsupportedError,
)
from rustllm.loaders.base import Loader
from rustllm.loaders.detect import FileFormat
from rustllm.loaders.mapped import MappedFile

__all__ = ["SafetensorsFile", "SafetensorsFolder", "SafetensorsTensor"]

_MAX_HEADER = 100_000_000
_LIMIT = 1 << 63
# Name in the file: bits of an element, numpy type of the view.
_DTYPES = {
    "BOOL": (8, "?"),
    "U8": (8, "u1"),
    "I8": (8, "i1"),
    "F8_E4M3": (8, "u1"),
    "F8_E5M2": (8, "u1"),
    "F8_E8M0": (8, "u1"),
    "U16": (16, "<u2"),
    "I16": (16, "<i2"),
    "F16": (16, "<f2"),
    "BF16": (16, "<u2"),
    "U32": (32, "<u4"),
    "I32": (32, "<i4"),
    "F32": (32, "<f4"),
    "U64": (64, "<u8"),
    "I64": (64, "<i8"),
    "F64": (64, "<f8"),
    "C64": (64, "<c8"),
}
_PACKED = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_INDEX = "model.safetensors.index.json"


class SafetensorsTensor:
    """What a safetensors file says about one tensor.

    Attributes
    ----------
    name : str
    shape : tuple of int
    dtype_name : str
        As in the file: ``"F32"``, ``"BF16"``...
    offset, n_bytes : int
        Where the data stands, from the start of the file.
    """

    __slots__ = ("_file", "dtype_name", "n_bytes", "name", "offset", "shape")

    def __init__(
        self,
        file: MappedFile,
        name: str,
        dtype_name: str,
        shape: tuple[int, ...],
        offset: int,
        n_bytes: int,
    ) -> None:
        self._file = file
        self.name = name
        self.dtype_name = dtype_name
        self.shape = shape
        self.offset = offset
        self.n_bytes = n_bytes

    @property
    def type_name(self) -> str:
        """The same as `dtype_name`, as tensors of other formats call it."""
        return self.dtype_name

    @property
    def data(self) -> NDArray[np.uint8]:
        """The bytes, ``uint8[n_bytes]``, a read-only view without a copy."""
        return self._file.view(self.offset, self.n_bytes)

    def array(self) -> NDArray[Any]:
        """The values as a read-only view of `shape`; bfloat16 as uint16, 8-bit floats as uint8.

        Raises
        ------
        UnsupportedError
            Elements of less than a byte; `data` has the bytes.
        """
        known = _DTYPES.get(self.dtype_name)
        if known is None:
            raise UnsupportedError(
                f"{self.dtype_name} has no numpy type",
                path=self._file.path,
                tensor=self.name,
                hint="use data for the bytes",
            )
        return self.data.view(known[1]).reshape(self.shape)

    def to_float32(self) -> NDArray[np.float32]:
        """The values as a new float32 array of `shape`; exact but for float64.

        Raises
        ------
        UnsupportedError
            Not one of F64, F32, F16, BF16, I8 to I64.
        """
        if self.dtype_name not in ("F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64"):
            raise UnsupportedError(
                f"{self.dtype_name} cannot become float32", path=self._file.path, tensor=self.name
            )
        from rustllm._core.quant import dequantize

        return dequantize(self.data, self.dtype_name).reshape(self.shape)

    @property
    def is_mapped(self) -> bool:
        """Whether `data` lies in a mapped file, not in memory of its own."""
        return self._file.is_mapped

    def give_back(self) -> None:
        """Let go of the mapped memory of the data's whole pages; they are read again if touched."""
        self._file.give_back(self.offset, self.n_bytes)

    def __repr__(self) -> str:
        return f"SafetensorsTensor({self.name!r}, {self.dtype_name}, {list(self.shape)})"


class _Arrays(Mapping[str, NDArray[Any]]):
    """Names to arrays, made when they are asked for."""

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Mapping[str, SafetensorsTensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._tensors[name].array()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors


class SafetensorsFile(Loader):
    """A safetensors file.

    Parameters
    ----------
    path : path
        A regular file.
    mmap : bool
        Map the file, so that tensors are read when touched; or read a private copy.

    Attributes
    ----------
    path : str
    size : int
        Bytes of the file.
    metadata : mapping of str to str
        The header's ``__metadata__``.
    tensors : mapping of str to ndarray
        Read-only views without a copy, in the order of their data. bfloat16 appears as uint16 and
        8-bit floats as uint8, since numpy has no such types; `info` tells.
    info : mapping of str to SafetensorsTensor
        Type, shape and place of each tensor.

    Raises
    ------
    FileMissingError, FileAccessError
        The file cannot be read.
    FileFormatError, TruncatedFileError, UnsupportedError
        A rule of the format is broken: header size and encoding, duplicate keys, unknown types,
        sizes that differ from shapes, holes, overlaps, trailing bytes.

    Notes
    -----
    Opening is O(header). Views own the mapping together with the file, so closing never leaves one
    dangling; a mapped file must not be shrunk while it is in use (see
    :class:`~rustllm.loaders.mapped.MappedFile`).

    Thread-safe: immutable but for :meth:`close`.

    Examples
    --------
    >>> import json, struct, tempfile, os
    >>> import numpy as np
    >>> from rustllm.loaders.safetensors import SafetensorsFile
    >>> header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    >>> path = os.path.join(tempfile.mkdtemp(), "w.safetensors")
    >>> with open(path, "wb") as out:
    ...     _ = out.write(struct.pack("<Q", len(header)) + header + np.float32([1, 2]).tobytes())
    >>> with SafetensorsFile(path) as file:
    ...     print(file.tensors["w"], file.info["w"].dtype_name)
    [1. 2.] F32
    """

    def __init__(self, path: str | PathLike[str], *, mmap: bool = True) -> None:
        self._open(MappedFile(path, mmap=mmap))

    @classmethod
    def from_buffer(cls, data: object, *, path: str = "<memory>") -> SafetensorsFile:
        """Open bytes that are in memory already (any contiguous buffer), without a copy."""
        self = cls.__new__(cls)
        self._open(MappedFile.from_buffer(data, path))
        return self

    def _open(self, file: MappedFile) -> None:
        self._file = file
        self.path = file.path
        self.size = file.size
        self._metadata: Mapping[str, str] | None = None
        self._info: Mapping[str, SafetensorsTensor] | None = None
        try:
            header, data_start = _read_header(file)
            self._metadata = MappingProxyType(_metadata(header.pop("__metadata__", {}), file.path))
            self._info = MappingProxyType(_tensors(header, file, data_start))
        except BaseException:
            file.close()
            raise

    @property
    def metadata(self) -> Mapping[str, str]:
        if self._metadata is None:
            raise StateError("the file is closed", path=self.path, hint="open it again")
        return self._metadata

    @property
    def info(self) -> Mapping[str, SafetensorsTensor]:
        if self._info is None:
            raise StateError("the file is closed", path=self.path, hint="open it again")
        return self._info

    @property
    def tensors(self) -> Mapping[str, NDArray[Any]]:
        return _Arrays(self.info)

    @property
    def format(self) -> FileFormat:
        return FileFormat("safetensors")

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._file.closed

    def close(self) -> None:
        """Answer no more; a second call does nothing. Views that were handed out stay valid."""
        self._metadata = None
        self._info = None
        self._file.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.info)} tensors"
        return f"SafetensorsFile({self.path!r}, {state})"


def _read_header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The header as an object, and where the data begins."""
    path = file.path

    def fail(message: str, offset: int) -> FileFormatError:
        return FileFormatError(message, path=path, offset=offset)

    if file.size < 8:
        raise TruncatedFileError(
            f"{file.size} bytes, but a safetensors file has at least 8", path=path, offset=0
        )
    n = int.from_bytes(file.buffer[:8].tobytes(), "little")
    if n > _MAX_HEADER:
        raise fail(f"a header of {n} bytes; at most {_MAX_HEADER} are allowed", 0)
    if n > file.size - 8:
        raise TruncatedFileError(
            f"the header takes {n} bytes, but the file ends after {file.size - 8}",
            path=path,
            offset=8,
            hint="the file is incomplete or damaged: fetch it again",
        )
    raw = file.buffer[8 : 8 + n].tobytes()
    if raw[:1] != b"{":
        raise fail("the header does not begin with '{'", 8)
    try:
        header = json.loads(
            raw.decode(), object_pairs_hook=_object, parse_constant=_refuse, parse_float=_refuse
        )
    except UnicodeDecodeError as error:
        raise fail("the header is not valid UTF-8", 8 + error.start) from None
    except json.JSONDecodeError as error:
        at = 8 + len(error.doc[: error.pos].encode())
        raise fail(f"the header is not valid JSON: {error.msg}", at) from None
    except (RecursionError, ValueError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise fail(f"the header is not valid: {what}", 8) from None
    return header, 8 + n


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} occurs twice")
            seen.add(key)
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not an integer")


def _metadata(value: Any, path: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise FileFormatError("metadata is not text by name", path=path, key="__metadata__")
    return value


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LIMIT


def _tensors(
    header: dict[str, Any], file: MappedFile, data_start: int
) -> dict[str, SafetensorsTensor]:
    """Every tensor, in the order of the data, which they fill without a hole."""
    path = file.path
    room = file.size - data_start
    found = []
    for name, told in header.items():

        def fail(message: str, name: str = name) -> FileFormatError:
            return FileFormatError(message, path=path, tensor=name)

        if not isinstance(told, dict) or set(told) != {"dtype", "shape", "data_offsets"}:
            raise fail("its entry is not exactly dtype, shape and data_offsets")
        dtype, shape, place = told["dtype"], told["shape"], told["data_offsets"]
        bits = _DTYPES[dtype][0] if isinstance(dtype, str) and dtype in _DTYPES else None
        if bits is None and isinstance(dtype, str):
            bits = _PACKED.get(dtype)
        if bits is None:
            raise UnsupportedError(
                f"element type {dtype!r} is not supported", path=path, tensor=name
            )
        if not isinstance(shape, list) or not all(map(_is_count, shape)):
            raise fail("its shape is not a list of counts")
        if not isinstance(place, list) or len(place) != 2 or not all(map(_is_count, place)):
            raise fail("its data_offsets are not two counts")
        n_bits = bits
        for dim in shape:
            n_bits *= dim
            if n_bits >= _LIMIT:
                raise fail(f"shape {shape} takes more than 2^63 bits")
        begin, end = place
        if n_bits % 8:
            raise fail("its elements are not whole bytes")
        if begin > end:
            raise fail(f"its data ends at {end}, before it begins at {begin}")
        if end - begin != n_bits // 8:
            raise fail(f"it takes {n_bits // 8} bytes, but {end - begin} are given")
        if end > room:
            raise TruncatedFileError(
                f"its data ends at {end}, past the {room} bytes of data",
                path=path,
                tensor=name,
                hint="the file is incomplete or damaged: fetch it again",
            )
        found.append((begin, end, name, dtype, tuple(shape)))
    found.sort(key=lambda entry: entry[:2])
    at = 0
    tensors = {}
    for begin, end, name, dtype, shape in found:
        if begin != at:
            what = "overlaps the one before" if begin < at else f"leaves {begin - at} bytes unused"
            raise FileFormatError(
                f"its data {what}", path=path, tensor=name, offset=data_start + begin
            )
        tensors[name] = SafetensorsTensor(file, name, dtype, shape, data_start + begin, end - begin)
        at = end
    if at != room:
        raise FileFormatError(
            f"{room - at} bytes after the last tensor", path=path, offset=data_start + at
        )
    return tensors


class SafetensorsFolder:
    """The weights of a model folder: one file, or shards named by an index.

    Parameters
    ----------
    path : path
        A folder with ``model.safetensors.index.json`` or ``model.safetensors`` (or a single other
        ``*.safetensors``), or the index file itself.
    mmap : bool
        As for :class:`SafetensorsFile`.

    Attributes
    ----------
    path : str
    files : mapping of str to SafetensorsFile
        By file name; opened all at once, read when touched.
    info : mapping of str to SafetensorsTensor
    tensors : mapping of str to ndarray

    Raises
    ------
    FileFormatError
        An index that is not one, names a file outside the folder (by ``..``, an absolute path, or a
        symbolic link), or disagrees with the shards about which tensor is where.
    FileMissingError, FileAccessError, TruncatedFileError, UnsupportedError
        As for :class:`SafetensorsFile`.

    Notes
    -----
    Thread-safe: immutable but for :meth:`close`.
    """

    def __init__(self, path: str | PathLike[str], *, mmap: bool = True) -> None:
        self.path = os.fspath(path)
        folder, names, owner = _shards(Path(self.path))
        files: dict[str, SafetensorsFile] = {}
        info: dict[str, SafetensorsTensor] = {}
        try:
            for name in names:
                files[name] = file = SafetensorsFile(folder / name, mmap=mmap)
                for tensor in file.info.values():
                    if owner is not None and owner.get(tensor.name) != name:
                        raise FileFormatError(
                            f"the index says that it is in {owner.get(tensor.name)}",
                            path=file.path,
                            tensor=tensor.name,
                        )
                    info[tensor.name] = tensor
            for tensor_name, file_name in (owner or {}).items():
                if tensor_name not in info:
                    raise FileFormatError(
                        "the index names a tensor that is not in its file",
                        path=str(folder / file_name),
                        tensor=tensor_name,
                    )
        except BaseException:
            for file in files.values():
                file.close()
            raise
        self.files: Mapping[str, SafetensorsFile] = MappingProxyType(files)
        self.info: Mapping[str, SafetensorsTensor] = MappingProxyType(info)

    @property
    def tensors(self) -> Mapping[str, NDArray[Any]]:
        return _Arrays(self.info)

    def close(self) -> None:
        """Close every file; views that were handed out stay valid."""
        for file in self.files.values():
            file.close()

    def __enter__(self) -> SafetensorsFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _shards(path: Path) -> tuple[Path, list[str], dict[str, str] | None]:
    """The folder, its files, and (from an index) the file of each tensor."""
    if path.is_file():
        folder, index = path.parent, path
    else:
        folder, index = path, path / _INDEX
        if not index.is_file():
            if not folder.is_dir():
                raise FileMissingError("no such folder", path=str(path), hint="check the path")
            single = folder / "model.safetensors"
            found = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
            if len(found) != 1:
                raise FileMissingError(
                    f"{len(found)} safetensors files and no {_INDEX}",
                    path=str(path),
                    hint="name the file, or fetch the index",
                )
            return folder, [found[0].name], None
    owner = _read_index(index)
    names = sorted(set(owner.values()))
    inside = folder.resolve()
    for name in names:
        pure = Path(name)
        escapes = pure.is_absolute() or ".." in pure.parts or "\0" in name or "\\" in name
        if escapes or not _is_inside(folder / pure, inside):
            raise FileFormatError(
                f"the index names {name!r}, which is outside the folder", path=str(index)
            )
    return folder, names, owner


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether `path`, links followed, is below `folder`, or below the cache that holds both.

    Model caches keep a snapshot as links to blobs beside it: a link out of the folder is followed
    when it stays within the folder's own model (``models--x/snapshots/y`` and ``models--x/blobs``).
    """
    real = path.resolve()
    if real.is_relative_to(folder):
        return True
    is_snapshot = folder.parent.name == "snapshots"
    return is_snapshot and real.parent == folder.parent.parent / "blobs"


def _read_index(path: Path) -> dict[str, str]:
    file = MappedFile(path, mmap=False)
    if file.size > _MAX_HEADER:
        raise FileFormatError(f"an index of {file.size} bytes", path=str(path))
    try:
        index = json.loads(file.buffer.tobytes().decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"the index is not valid: {error}", path=str(path)) from None
    owner = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(owner, dict) or not owner:
        raise FileFormatError("the index has no weight_map", path=str(path), key="weight_map")
    if not all(isinstance(name, str) and name for name in owner.values()):
        raise FileFormatError("the weight_map is not file names by tensor", path=str(path))
    return owner

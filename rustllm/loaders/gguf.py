"""GGUF files: metadata and tensors of a model, opened lazily and checked before use.

Everything a file says about itself is checked against the file when it is opened: a rule of the
container that is broken is a typed error with path, offset and key or tensor. What the metadata
mean for a model is the business of :mod:`rustllm.models` and :mod:`rustllm.tokenizers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustllm._core import quant
from rustllm._core.scan import VALUE_TYPES, ScanError, scan_gguf
from rustllm.errors import (
    FileFormatError,
    RustLLMError,
    StateError,
    TruncatedFileError,
    UnsupportedError,
)
from rustllm.loaders.base import Loader
from rustllm.loaders.detect import FileFormat
from rustllm.loaders.gguf_checks import check_tokenizer
from rustllm.loaders.mapped import MappedFile
from rustllm.loaders.string_array import StringArray

__all__ = ["GGUFFile", "GGUFTensor"]

_KINDS: dict[str, type[RustLLMError]] = {
    "format": FileFormatError,
    "truncated": TruncatedFileError,
    "unsupported": UnsupportedError,
}
_HINTS = {
    "format": "the file is damaged or was written wrongly: fetch it, or convert the model, again",
    "truncated": "the file is incomplete: fetch it again",
    "unsupported": "convert the model to a form that is supported",
}
_PLAIN = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4"}
_PLAIN["I64"] = "<i8"


class GGUFTensor:
    """One tensor of a :class:`GGUFFile`; its bytes are looked at when they are asked for.

    Attributes
    ----------
    name : str
    shape : tuple of int
        As numpy orders it, rows first: the reverse of the order in the file. The last dimension is
        contiguous and, in a quantized tensor, a whole number of blocks.
    type_id, type_name : int, str
        Block type, for instance 3 and ``"Q4_1"``.
    offset : int
        Where the data begins, from the start of the file.
    n_bytes, n_elements : int

    Notes
    -----
    Immutable and thread-safe. A tensor does not keep a closed file open; its views do.
    """

    __slots__ = (
        "_file",
        "n_bytes",
        "n_elements",
        "name",
        "offset",
        "shape",
        "type_id",
        "type_name",
    )

    def __init__(
        self,
        file: MappedFile,
        name: str,
        shape: tuple[int, ...],
        type_id: int,
        offset: int,
        n_bytes: int,
    ) -> None:
        self._file = file
        self.name = name
        self.shape = shape
        self.type_id = type_id
        self.offset = offset
        self.n_bytes = n_bytes
        known = quant.BLOCK_FORMATS[type_id]
        self.type_name = known.name
        self.n_elements = n_bytes // known.bytes * known.elements

    @property
    def data(self) -> NDArray[np.uint8]:
        """The bytes in the file, ``uint8[n_bytes]``, a read-only view without a copy.

        Raises
        ------
        StateError
            The file is closed.
        TruncatedFileError
            The file has shrunk since it was opened.
        """
        return self._file.view(self.offset, self.n_bytes)

    def array(self) -> NDArray[Any]:
        """The values of a float or integer tensor as a read-only view of `shape`, without a copy.

        Raises
        ------
        UnsupportedError
            The tensor is quantized or bfloat16, which numpy cannot express.
        """
        dtype = _PLAIN.get(self.type_name)
        if dtype is None:
            raise UnsupportedError(
                f"{self.type_name} has no numpy type",
                path=self._file.path,
                tensor=self.name,
                hint="use dequantize(), or data for the bytes",
            )
        return self.data.view(dtype).reshape(self.shape)

    def dequantize(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The values as float32, `shape`: `out`, or a new array.

        O(n), without the GIL; exact as the reference of GGUF's authors, bit for bit.
        """
        return quant.dequantize(self.data, self.type_id, out=out).reshape(self.shape)

    def will_need(self) -> None:
        """Ask the operating system to read the data ahead."""
        self._file.will_need(self.offset, self.n_bytes)

    @property
    def is_mapped(self) -> bool:
        """Whether `data` lies in a mapped file, not in memory of its own."""
        return self._file.is_mapped

    def give_back(self) -> None:
        """Let go of the mapped memory of this tensor's whole pages.

        Views stay valid; a page that is touched again is read again. For a loader that copies
        weights into another layout and must not hold both.
        """
        self._file.give_back(self.offset, self.n_bytes)

    def __repr__(self) -> str:
        return f"GGUFTensor({self.name!r}, {self.type_name}, {list(self.shape)})"


class GGUFFile(Loader):
    """A GGUF file, version 2 or 3, little-endian.

    Parameters
    ----------
    path : path
        A regular file.
    mmap : bool
        Map the file, so that opening reads the header only and tensors are read when touched; or
        read a private copy, which a later change of the file cannot touch.
    strict : bool
        Also refuse what common readers accept: holes between tensors, trailing bytes, tensors out
        of order, unusual characters in keys, an alignment below 8, text in the vocabulary that is
        not UTF-8, NaN and infinity in scales and values. Reads the whole file.

    Attributes
    ----------
    path : str
    version : int
        2 or 3.
    alignment : int
        Bytes; every tensor begins at a multiple from `data_start`.
    data_start : int
        Where tensor data begins in the file.
    size : int
        Bytes of the file.
    architecture : str or None
        ``general.architecture``.
    metadata : mapping of str to value
        Numbers, truth values and text as Python has them; arrays of numbers as read-only numpy
        views; arrays of strings as :class:`~rustllm.loaders.string_array.StringArray`.
    tensors : mapping of str to GGUFTensor
        In the order of the file.
    problems : tuple of str
        What `strict` would have refused about the layout.

    Raises
    ------
    FileMissingError, FileAccessError
        The file cannot be read.
    FileFormatError, TruncatedFileError, UnsupportedError
        A rule is broken; the fields ``path``, ``offset``, ``key`` and ``tensor`` tell where.

    Notes
    -----
    Opening is O(header): no tensor is touched. Views of tensors and metadata own the mapping
    together with the file: after :meth:`close` the file answers no more, views that were handed out
    stay valid, and the mapping goes with the last of them. A mapped file must not be shrunk while
    it is in use; see :class:`~rustllm.loaders.mapped.MappedFile`.

    Thread-safe: immutable but for :meth:`close`. Works in a forked child.

    Examples
    --------
    >>> from rustllm.loaders.gguf import GGUFFile
    >>> from rustllm.loaders.gguf_writer import write_gguf
    >>> import numpy as np, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "tiny.gguf")
    >>> _ = write_gguf(path, {"general.architecture": "demo"}, {"w": np.eye(2, dtype=np.float32)})
    >>> with GGUFFile(path) as file:
    ...     print(file.architecture, file.tensors["w"], file.tensors["w"].array().sum())
    demo GGUFTensor('w', F32, [2, 2]) 2.0
    """

    def __init__(
        self, path: str | PathLike[str], *, mmap: bool = True, strict: bool = False
    ) -> None:
        self._open(MappedFile(path, mmap=mmap), strict)

    @classmethod
    def from_buffer(cls, data: object, *, path: str = "<memory>", strict: bool = False) -> GGUFFile:
        """Open bytes that are in memory already (any contiguous buffer), without a copy."""
        self = cls.__new__(cls)
        self._open(MappedFile.from_buffer(data, path), strict)
        return self

    def _open(self, file: MappedFile, strict: bool) -> None:
        self._file = file
        self.path = file.path
        self.size = file.size
        try:
            self._read_header(strict)
        except ScanError as error:
            fields = {"key": error.key, "tensor": error.tensor, "offset": error.offset}
            told = {name: value for name, value in fields.items() if value is not None}
            file.close()
            raise _KINDS[error.kind](
                error.message, hint=error.hint or _HINTS[error.kind], path=self.path, **told
            ) from None
        except BaseException:
            self.close()
            raise

    def _read_header(self, strict: bool) -> None:
        file = self._file
        found = scan_gguf(file.buffer, strict)
        self.version, self.alignment, self.data_start, fields, tensors = found
        self._types: dict[str, str] = {}
        metadata: dict[str, Any] = {}
        for key, (kind, item_kind, _, value) in fields.items():
            name = VALUE_TYPES[kind]
            if name == "array":
                name = f"[{VALUE_TYPES[item_kind]}]"
            if name == "[str]":
                offsets, lengths = value
                value = StringArray(file.buffer, offsets, lengths, path=self.path)
            self._types[key] = name
            metadata[key] = value
        self._metadata: Mapping[str, Any] | None = MappingProxyType(metadata)
        self._tensors: Mapping[str, GGUFTensor] | None = MappingProxyType(
            {
                name: GGUFTensor(file, name, shape, type_id, self.data_start + offset, n_bytes)
                for name, (shape, type_id, offset, n_bytes, _) in tensors.items()
            }
        )
        self.problems = tuple(self._layout_problems(tensors))
        self._check_metadata(strict)
        if strict:
            if self.problems:
                raise FileFormatError(
                    self.problems[0], path=self.path, hint="open it with strict=False"
                )
            self.check_data()

    def _layout_problems(self, tensors: Mapping[str, tuple[Any, ...]]) -> Iterator[str]:
        """Holes, trailing bytes, tensors out of order; tensors that overlap raise."""
        places = [(offset, n, name) for name, (_, _, offset, n, _) in tensors.items()]
        in_order = sorted(places)
        if places != in_order:
            yield "the tensors' data is not in the order of their names"
        end = 0
        before = ""
        for offset, n, name in in_order:
            if offset < end:
                raise FileFormatError(
                    f"its data overlaps that of {before!r}",
                    hint=_HINTS["format"],
                    path=self.path,
                    tensor=name,
                    offset=self.data_start + offset,
                )
            expected = -(-end // self.alignment) * self.alignment
            if offset > expected:
                yield f"{offset - expected} unused bytes before tensor {name!r}"
            end, before = offset + n, name
        last = self.data_start + -(-end // self.alignment) * self.alignment
        if self.size > last and places:
            yield f"{self.size - last} bytes after the last tensor"

    def _check_metadata(self, strict: bool) -> None:
        architecture = self.metadata.get("general.architecture")
        if architecture is not None and not isinstance(architecture, str):
            raise FileFormatError(
                f"the architecture is of type {self._types['general.architecture']}, not text",
                path=self.path,
                key="general.architecture",
            )
        if strict and not architecture:
            raise FileFormatError(
                "the required key is missing", path=self.path, key="general.architecture"
            )
        self.architecture: str | None = architecture
        check_tokenizer(self.path, self.metadata, self._types, strict)

    @property
    def metadata(self) -> Mapping[str, Any]:
        if self._metadata is None:
            raise StateError("the file is closed", path=self.path, hint="open it again")
        return self._metadata

    @property
    def tensors(self) -> Mapping[str, GGUFTensor]:
        if self._tensors is None:
            raise StateError("the file is closed", path=self.path, hint="open it again")
        return self._tensors

    @property
    def format(self) -> FileFormat:
        return FileFormat("gguf")

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._file.closed

    def give_back(self) -> None:
        """Let go of the mapped memory of the whole file; what is touched again is read again."""
        self._file.give_back(0, self._file.size)

    def metadata_type(self, key: str) -> str:
        """Type of a value as the file stores it: ``"u32"``, ``"str"``, ``"[f32]"``..."""
        return self._types[key]

    def check_data(self) -> None:
        """Look for NaN and infinity in the values and block scales of every tensor.

        Raises
        ------
        FileFormatError
            Names the tensor and the offset of the value or block.
        """
        for tensor in self.tensors.values():
            bad = quant.first_not_finite(tensor.data, tensor.type_id)
            if bad >= 0:
                known = quant.BLOCK_FORMATS[tensor.type_id]
                raise FileFormatError(
                    f"{'value' if known.elements == 1 else 'scale of block'} {bad} is not finite",
                    path=self.path,
                    tensor=tensor.name,
                    offset=tensor.offset + bad * known.bytes,
                    hint="the model is damaged or was converted wrongly",
                )

    def sha256(self) -> str:
        """SHA-256 of the whole file, in hexadecimal. O(size); the GIL is released."""
        import hashlib  # with OpenSSL it takes longer to import than a file to open

        digest = hashlib.sha256()
        step = 1 << 24
        for start in range(0, self.size, step):
            n = min(step, self.size - start)
            digest.update(self._file.view(start, n))
            self._file.give_back(start, n)
        return digest.hexdigest()

    def close(self) -> None:
        """Answer no more; a second call does nothing. Views that were handed out stay valid."""
        self._metadata = None
        self._tensors = None
        self._file.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.tensors)} tensors"
        return f"GGUFFile({self.path!r}, {state})"

"""Write weights as a GGUF file in another block type."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rustllm._core import quant
from rustllm.errors import ArgumentError, FileFormatError
from rustllm.loaders.gguf import GGUFFile, GGUFTensor
from rustllm.loaders.gguf_writer import TensorSource, Typed, write_gguf

__all__ = [
    "Piece",
    "QuantizeReport",
    "SourceTensor",
    "file_type",
    "quantize_file",
    "write_quantized",
]

# `general.file_type` of a file that is mostly of one type.
_FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10,
    "Q3_K": 12, "Q4_K": 15, "Q5_K": 17, "Q6_K": 18, "IQ4_NL": 25, "BF16": 32,
}  # fmt: skip
# For rows that are not whole blocks of 256: the next better type with blocks of 32.
_FALLBACKS = {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_HEAD = "output.weight"
_EMBEDDING = "token_embd.weight"
# Small matrices whose errors cost much: never quantized.
_KEPT = ("ffn_gate_inp", "position_embd", "token_types", "ssm_conv1d", "rope_freqs", "rope_factors")
_CHUNK = 1 << 20  # elements that are converted at a time


class Piece(NamedTuple):
    """Whole rows of a tensor, one piece after another.

    Attributes
    ----------
    read : callable
        Returns the blocks, uint8, when their turn comes.
    give_back : callable
        Lets go of the memory that reading took.
    """

    read: Callable[[], NDArray[np.uint8]]
    give_back: Callable[[], None]


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor to be quantized, and where it comes from.

    Attributes
    ----------
    name : str
        In the new file.
    shape : tuple of int
        Rows first.
    type_name : str
        Block type of the pieces.
    pieces : sequence of Piece
    path : str
        Of its file, for messages.
    offset : int or None
        In that file.
    kept_type : str, optional
        Block type where it is not quantized; by default the one it has.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    pieces: Sequence[Piece]
    path: str
    offset: int | None = None
    kept_type: str | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of the source."""
        return quant.n_bytes(self.type_name, prod(self.shape))


class QuantizeReport(NamedTuple):
    """What quantizing did.

    Attributes
    ----------
    path : str
    source_bytes, written_bytes : int
    types : dict of str to int
        Tensors of each block type in the new file.
    """

    path: str
    source_bytes: int
    written_bytes: int
    types: dict[str, int]


def quantize_file(
    source: str | PathLike[str],
    target: str | PathLike[str],
    type_name: str,
    *,
    pure: bool = False,
    num_threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> QuantizeReport:
    """Write a GGUF model in another block type.

    Matrices are converted; vectors (norms, biases) and a few small matrices keep their type, and
    rows that are not whole blocks take the next better type with smaller blocks. The head
    (``output``, or the embedding that is tied to it) is never below Q6_K, unless `pure`. Tensors
    that have the type already are copied. Metadata is kept; ``general.file_type`` tells the new
    type.

    Parameters
    ----------
    source : path
        A GGUF file, best of F32, F16 or BF16: what an earlier quantization lost stays lost.
    target : path
        Written under a temporary name and renamed when whole; an existing file is replaced.
    type_name : str
        ``"Q4_0"``, ``"Q4_K"``, ``"F16"``...: any block type of floats.
    pure : bool
        Quantize the head to `type_name` as well.
    num_threads : int, optional
        By default, the processors that this process may use.
    progress : function, optional
        Called after each tensor as ``progress(name, bytes_done, bytes)``, counted in the source;
        what it raises stops the work and leaves no file.

    Returns
    -------
    QuantizeReport

    Raises
    ------
    ArgumentError
        The type cannot be quantized to, or both paths are the same file.
    FileFormatError
        The source breaks a rule, or a value in it is NaN, infinite or too large; names the tensor.
    FileMissingError, FileAccessError
        A file cannot be read or written.

    Notes
    -----
    O(n) time; memory is bounded by a few chunks of a megabyte each, whatever the model's size. The
    result does not depend on the number of threads.
    """
    file_type(type_name)  # before a file is opened
    if Path(target).exists() and Path(source).exists() and Path(target).samefile(source):
        raise ArgumentError("source and target are the same file", path=str(target))
    with GGUFFile(source) as model:
        metadata = {
            key: Typed(model.metadata_type(key), value) for key, value in model.metadata.items()
        }
        tensors = [_of_file(model.path, tensor) for tensor in model.tensors.values()]
        return write_quantized(
            target,
            metadata,
            tensors,
            type_name,
            pure=pure,
            num_threads=num_threads,
            progress=progress,
            alignment=max(model.alignment, 8),
            source_bytes=model.size,
        )


def _of_file(path: str, tensor: GGUFTensor) -> SourceTensor:
    return SourceTensor(
        tensor.name,
        tensor.shape,
        tensor.type_name,
        [Piece(lambda: tensor.data, tensor.give_back)],
        path,
        tensor.offset,
    )


def write_quantized(
    target: str | PathLike[str],
    metadata: Mapping[str, Any],
    tensors: Sequence[SourceTensor],
    type_name: str,
    *,
    source_bytes: int,
    pure: bool = False,
    num_threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    alignment: int = 32,
) -> QuantizeReport:
    """Write tensors from anywhere as a GGUF file of a block type; see `quantize_file`."""
    name = file_type(type_name)
    workers = num_threads or _usable_processors()
    fields = {
        **metadata,
        "general.file_type": Typed("u32", _FILE_TYPES[name]),
        "general.quantization_version": Typed("u32", 2),
    }
    total = sum(tensor.n_bytes for tensor in tensors)
    names = {tensor.name for tensor in tensors}
    done = 0
    types: dict[str, int] = {}

    def finished(tensor: SourceTensor) -> None:
        nonlocal done
        done += tensor.n_bytes
        if progress is not None:
            progress(tensor.name, done, total)

    with ThreadPoolExecutor(workers) as pool:
        sources = {}
        for tensor in tensors:
            chosen = _choose(tensor, name, names, pure)
            types[chosen] = types.get(chosen, 0) + 1
            job = _Job(tensor, chosen, pool, workers, finished)
            sources[tensor.name] = TensorSource(chosen, tensor.shape, job)
        written = write_gguf(target, fields, sources, alignment=alignment, version=3)
    return QuantizeReport(os.fspath(target), source_bytes, written, types)


def file_type(type_name: str) -> str:
    """Return the block type that a name means, llama.cpp's mixtures being their main type.

    Raises
    ------
    ArgumentError
        Nothing is quantized to it.
    """
    name = type_name.upper()
    for suffix in ("_S", "_M", "_L"):  # llama.cpp's names of mixtures
        if name.endswith("_K" + suffix):
            name = name.removesuffix(suffix)
    if name not in _FILE_TYPES:
        raise ArgumentError(
            f"{type_name!r} is not a type to quantize to", hint=f"one of {', '.join(_FILE_TYPES)}"
        )
    return name


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _choose(tensor: SourceTensor, name: str, names: set[str], pure: bool) -> str:
    """The block type a tensor is written in."""
    kept = tensor.kept_type or tensor.type_name
    is_matrix = len(tensor.shape) >= 2 and tensor.name.endswith(".weight")
    if not is_matrix or any(part in tensor.name for part in _KEPT):
        return kept
    if tensor.type_name.startswith("I") and tensor.type_name != "IQ4_NL":
        return tensor.type_name  # integers are not weights
    is_head = tensor.name == _HEAD or (tensor.name == _EMBEDDING and _HEAD not in names)
    chosen = name
    if is_head and not pure and chosen not in ("F32", "F16", "BF16", "Q8_0"):
        chosen = "Q6_K"
    width = tensor.shape[-1]
    while width % quant.block_format(chosen).elements:
        chosen = _FALLBACKS.get(chosen, "F16")
    return chosen


class _Job:
    """Convert one tensor when the writer gets to it, a few chunks at a time."""

    __slots__ = ("chosen", "finished", "pool", "tensor", "workers")

    def __init__(
        self,
        tensor: SourceTensor,
        chosen: str,
        pool: ThreadPoolExecutor,
        workers: int,
        finished: Callable[[SourceTensor], None],
    ) -> None:
        self.tensor = tensor
        self.chosen = chosen
        self.pool = pool
        self.workers = workers
        self.finished = finished

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        for piece in self.tensor.pieces:
            data = piece.read()
            if self.chosen == self.tensor.type_name:
                yield data
            else:
                yield from self._converted(data)
            del data
            piece.give_back()
        self.finished(self.tensor)

    def _converted(self, data: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """Chunks in order, with twice as many under way as there are threads."""
        tensor = self.tensor
        known = quant.block_format(tensor.type_name)
        step = max(_CHUNK // tensor.shape[-1], 1) * tensor.shape[-1]
        n_elements = data.size // known.bytes * known.elements
        waiting: deque[Future[NDArray[np.uint8]]] = deque()
        try:
            for start in range(0, n_elements, step):
                first = start // known.elements * known.bytes
                last = min(start + step, n_elements) // known.elements * known.bytes
                waiting.append(self.pool.submit(self._convert, data[first:last]))
                if len(waiting) > 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except ValueError as error:
            raise FileFormatError(
                f"it cannot be written as {self.chosen}: {error}",
                path=tensor.path,
                tensor=tensor.name,
                offset=tensor.offset,
            ) from None
        finally:
            for future in waiting:
                future.cancel()

    def _convert(self, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        values = quant.dequantize(data, self.tensor.type_name)
        return quant.quantize(values.reshape(-1, self.tensor.shape[-1]), self.chosen)

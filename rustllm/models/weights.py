"""Weights of a plan: found in a model's files, checked against the plan, repacked for the kernels.

Where weights lie is the business of a :class:`WeightFiles`, one class a format. What is needed, and
that all of it is there, of the right shape, finite, and nothing left over, is checked here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rustllm._core import quant
from rustllm._core.engine import Rows
from rustllm._core.linear import NotFiniteError, PackedMatrix, pack
from rustllm.errors import TensorError, UnsupportedError
from rustllm.models.plan import Norm, Plan, Rope

__all__ = [
    "PACKABLE",
    "Stored",
    "WeightFiles",
    "expert_name",
    "find_weights",
    "read_weights",
    "shapes_of",
]

PACKABLE = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
)
_VECTORS = ("F32", "F16", "BF16", "F64")
_COPIED_AT_ONCE = 64 << 20  # bytes of rearranged matrices that wait to be packed
_CHECKED_AT_ONCE = 16 << 20

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """A weight where it lies.

    Parameters
    ----------
    name, path : str
        Of the tensor in the file, and of the file.
    shape : tuple of int
        Rows first; of the weight, which may be a part of the tensor.
    type_name : str
        Block type, as GGUF calls it.
    read : callable
        Returns the blocks, uint8; a view of the file, or a copy where `is_copy`.
    give_back : callable
        Lets go of the memory that reading took.
    is_copy : bool
    is_mapped : bool
        What `read` returns lies in a mapped file.
    """

    name: str
    path: str
    shape: Shape
    type_name: str
    read: Callable[[], Any]
    give_back: Callable[[], None]
    is_copy: bool = False
    is_mapped: bool = False


class WeightFiles(ABC):
    """The weights of one model, under the names that plans use."""

    #: Vectors that no file holds: they follow from the configuration.
    vectors: Mapping[str, Any]
    path: str
    architecture: str

    @abstractmethod
    def find(self, name: str, shapes: Mapping[str, Shape]) -> Stored | None:
        """The weight called `name`, or None; `shapes` are those of all weights of the plan."""

    @abstractmethod
    def unused(self) -> list[str]:
        """Tensors that no call of `find` returned, without those that may be ignored."""

    def give_back(self) -> None:  # noqa: B027  a hint
        """Let go of memory that reading took and that can be had again."""


def expert_name(name: str, expert: int) -> str:
    """The name of one expert's matrix in a stack of them."""
    return f"{name}[{expert}]"


def shapes_of(plan: Plan) -> dict[str, Shape]:
    """Shape of every weight as the plan implies it."""
    shapes: dict[str, Shape] = {}
    for op in plan:
        if op.kind == "embed":
            width = plan.widths[op.outs[0]]
            shapes[op.weights[0] or ""] = (plan.n_vocab, width)
            if op.weights[1]:
                shapes[op.weights[1]] = (op.params["n_positions"], width)
        elif op.kind in ("linear", "gated"):
            for name, out in zip(op.weights, op.outs):
                shapes[name or ""] = (plan.widths[out], plan.prepared[op.ins[0]])
            for bias, out in zip(op.params.get("biases", ()), op.outs):
                if bias:
                    shapes[bias] = (plan.widths[out],)
        elif op.kind == "experts":
            width, hidden = plan.widths[op.ins[0]], op.params["width"]
            for stack, shape in zip(
                op.weights, ((hidden, width), (hidden, width), (width, hidden))
            ):
                for expert in range(op.params["n_experts"]):
                    shapes[expert_name(stack or "", expert)] = shape
        for key, value in op.params.items():
            if isinstance(value, Norm):
                normed = op.ins[0] if op.kind == "experts" else op.ins[-1]
                width = plan.head_dim if key.endswith("_norm") else plan.widths[normed]
                shapes[value.weight] = (width,)
                if value.bias:
                    shapes[value.bias] = (width,)
            elif isinstance(value, Rope):
                shapes.update(dict.fromkeys(value.weights, (value.n_dims // 2,)))
    return shapes


def find_weights(files: WeightFiles, shapes: Mapping[str, Shape]) -> dict[str, Stored]:
    """Find every weight of these names and shapes, but for the vectors that no file holds.

    Raises
    ------
    TensorError, UnsupportedError
        As :func:`read_weights`.
    """
    found = {name: files.find(name, shapes) for name in shapes if name not in files.vectors}
    _check_complete(files, found)
    complete = {name: stored for name, stored in found.items() if stored is not None}
    for name, stored in complete.items():
        _check(stored, shapes[name])
    return complete


def read_weights(
    files: WeightFiles, plan: Plan, *, threads: int, region: Any = None
) -> dict[str, Any]:
    """Read what the plan names.

    Matrices of linear layers are repacked (see ``_core.linear``) and the file's pages given back
    as that goes on, so that file and copy are never both in memory. An embedding table that no
    linear layer uses stays in the file and is read row by row. `region` is memory to repack
    into, as :func:`rustllm._core.linear.pack` takes it.

    Raises
    ------
    TensorError
        A tensor is missing, of the wrong shape, surplus, or holds a value that is not finite.
    UnsupportedError
        A tensor has a block type that cannot be computed with.
    MemoryError
        The memory for the weights cannot be had.
    """
    shapes = shapes_of(plan)
    in_linear = {name for op in plan if op.kind != "embed" for name in op.weights if name}
    found = find_weights(files, shapes)
    weights: dict[str, Any] = {}
    waiting = _Packer(weights, threads, region)
    for name, shape in shapes.items():
        at = found.get(name)
        if at is None:
            weights[name] = np.ascontiguousarray(files.vectors[name], np.float32)
        elif len(shape) == 1:
            weights[name] = _vector(at)
        elif name.partition("[")[0] in in_linear:
            waiting.add(name, at)
        else:
            type_id = quant.block_format(at.type_name).type_id
            _check_finite(at)
            n_rows, n_cols = at.shape
            weights[name] = Rows(type_id, n_rows, n_cols, at.read())
    waiting.pack()
    files.give_back()
    return weights


class _Packer:
    """Packs matrices together, but rearranged ones before they take much memory."""

    def __init__(self, weights: dict[str, Any], threads: int, region: Any) -> None:
        self._weights = weights
        self._threads = threads
        self._region = region
        self._matrices: list[PackedMatrix] = []
        self._stored: list[Stored] = []
        self._copied = 0

    def add(self, name: str, stored: Stored) -> None:
        data = stored.read()
        type_id = quant.block_format(stored.type_name).type_id
        n_rows, n_cols = stored.shape
        matrix = PackedMatrix(type_id, n_rows, n_cols, data, mapped=stored.is_mapped)
        self._weights[name] = matrix
        self._matrices.append(matrix)
        self._stored.append(stored)
        if stored.is_copy:
            stored.give_back()
            self._copied += data.nbytes
            if self._copied > _COPIED_AT_ONCE:
                self.pack()

    def pack(self) -> None:
        stored = self._stored
        region, self._region = self._region, None  # there is room in it once
        try:
            pack(self._matrices, threads=self._threads, region=region)
        except NotFiniteError as error:
            raise _not_finite(stored[error.index], f"row {error.row} holds a value that") from None
        self._matrices, self._stored, self._copied = [], [], 0


def _check_complete(files: WeightFiles, found: Mapping[str, Stored | None]) -> None:
    missing = [name for name, stored in found.items() if stored is None]
    if missing:
        raise TensorError(
            f"the model needs this tensor and {len(missing) - 1} more that the file lacks"
            if len(missing) > 1
            else "the model needs this tensor and the file lacks it",
            path=files.path,
            tensor=missing[0],
            hint="is the file complete and of the architecture it names?",
        )
    surplus = files.unused()
    if surplus:
        raise TensorError(
            f"the architecture {files.architecture!r} has no use for this tensor",
            path=files.path,
            tensor=surplus[0],
            hint="ignoring it would give wrong results; the model is of an unsupported variant",
        )


def _check(stored: Stored, shape: Shape) -> None:
    if tuple(stored.shape) != shape:
        raise TensorError(
            f"shape {list(stored.shape)}, but the hyper-parameters imply {list(shape)}",
            path=stored.path,
            tensor=stored.name,
            hint="the file is damaged or its metadata belongs to another model",
        )
    known = _VECTORS if len(shape) == 1 else PACKABLE
    if stored.type_name not in known:
        raise UnsupportedError(
            f"weights of type {stored.type_name} are not supported",
            path=stored.path,
            tensor=stored.name,
            hint=f"supported: {', '.join(known)}",
        )


def _vector(stored: Stored) -> Any:
    values = quant.dequantize(stored.read(), stored.type_name)
    if not np.isfinite(values).all():
        index = int(np.flatnonzero(~np.isfinite(values))[0])
        raise _not_finite(stored, f"value {index} is {values[index]}: it")
    return values


def _check_finite(stored: Stored) -> None:
    """Look at the values of a table that stays in the file, giving its pages back on the way."""
    data = stored.read()
    known = quant.block_format(stored.type_name)
    row = stored.shape[1] // known.elements * known.bytes
    step = max(1, _CHECKED_AT_ONCE // row) * row
    for start in range(0, len(data), step):
        bad = quant.first_not_finite(data[start : start + step], stored.type_name)
        if bad >= 0:
            at = (start + bad * known.bytes) // row
            raise _not_finite(stored, f"row {at} holds a value that")
        stored.give_back()


def _not_finite(stored: Stored, what: str) -> TensorError:
    return TensorError(
        f"{what} is not finite",
        path=stored.path,
        tensor=stored.name,
        hint="the file is damaged",
    )

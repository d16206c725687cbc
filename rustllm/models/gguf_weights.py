"""Weights of a plan from a GGUF file: checked against the plan, repacked once for the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm._core.engine import Rows
from rustllm._core.linear import PackedMatrix, pack
from rustllm.errors import TensorError, UnsupportedError
from rustllm.models.plan import Norm, Plan, Rope

if TYPE_CHECKING:
    from rustllm.loaders.gguf import GGUFFile, GGUFTensor

__all__ = ["read_weights", "shapes_of"]

_PACKABLE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")


def shapes_of(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Shape of every weight as the plan implies it; -1 where any number of rows will do."""
    shapes: dict[str, tuple[int, ...]] = {}
    for op in plan:
        if op.kind == "embed":
            width = plan.widths[op.outs[0]]
            shapes[op.weights[0] or ""] = (plan.n_vocab, width)
            if op.weights[1]:
                shapes[op.weights[1]] = (-1, width)
        elif op.kind in ("linear", "gated"):
            for name, out in zip(op.weights, op.outs):
                shapes[name or ""] = (plan.widths[out], plan.prepared[op.ins[0]])
            for bias, out in zip(op.params.get("biases", ()), op.outs):
                if bias:
                    shapes[bias] = (plan.widths[out],)
        for key, value in op.params.items():
            if isinstance(value, Norm):
                width = plan.head_dim if key.endswith("_norm") else plan.widths[op.ins[-1]]
                shapes[value.weight] = (width,)
                if value.bias:
                    shapes[value.bias] = (width,)
            elif isinstance(value, Rope) and value.factors:
                shapes[value.factors] = (value.n_dims // 2,)
    return shapes


def read_weights(file: GGUFFile, plan: Plan, *, threads: int) -> dict[str, Any]:
    """Read what the plan names.

    Matrices of linear layers are repacked (see ``_core.linear``) and the file's pages given back
    as that goes on, so that file and copy are never both in memory. An embedding table that no
    linear layer uses stays in the file and is read row by row.

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
    _check_names(file, shapes)
    in_linear = {
        name for op in plan if op.kind in ("linear", "gated") for name in op.weights if name
    }
    weights: dict[str, Any] = {}
    matrices: list[PackedMatrix] = []
    sources: list[GGUFTensor] = []
    for name, shape in shapes.items():
        tensor = file.tensors[name]
        _check_shape(file, tensor, shape)
        if len(shape) == 1:
            weights[name] = _vector(file, tensor)
            continue
        if tensor.type_name not in _PACKABLE:
            raise UnsupportedError(
                f"weights of type {tensor.type_name} are not supported",
                path=file.path,
                tensor=name,
                hint=f"supported: {', '.join(_PACKABLE)}",
            )
        n_rows, n_cols = tensor.shape
        if name in in_linear:
            matrix = PackedMatrix(tensor.type_id, n_rows, n_cols, tensor.data)
            weights[name] = matrix
            matrices.append(matrix)
            sources.append(tensor)
        else:
            weights[name] = Rows(tensor.type_id, n_rows, n_cols, tensor.data)
    pack(matrices, threads=threads, give_back=lambda index: sources[index].give_back())
    return weights


def _check_names(file: GGUFFile, shapes: dict[str, tuple[int, ...]]) -> None:
    missing = [name for name in shapes if name not in file.tensors]
    if missing:
        raise TensorError(
            f"the model needs this tensor and {len(missing) - 1} more that the file lacks"
            if len(missing) > 1
            else "the model needs this tensor and the file lacks it",
            path=file.path,
            tensor=missing[0],
            hint="is the file complete and of the architecture it names?",
        )
    # Frequencies may be written for every file of a family and used by none of its plans.
    surplus = [name for name in file.tensors if name not in shapes and name != "rope_freqs.weight"]
    if surplus:
        raise TensorError(
            f"the architecture {file.architecture!r} has no use for this tensor",
            path=file.path,
            tensor=surplus[0],
            hint="ignoring it would give wrong results; the model is of an unsupported variant",
        )


def _check_shape(file: GGUFFile, tensor: GGUFTensor, shape: tuple[int, ...]) -> None:
    expected = tuple(n if m < 0 else m for m, n in zip(shape, tensor.shape))
    if len(tensor.shape) != len(shape) or tensor.shape != expected:
        raise TensorError(
            f"shape {list(tensor.shape)}, but the hyper-parameters imply {list(shape)}",
            path=file.path,
            tensor=tensor.name,
            hint="the file is damaged or its metadata belongs to another model",
        )


def _vector(file: GGUFFile, tensor: GGUFTensor) -> Any:
    values = np.ascontiguousarray(tensor.dequantize(), np.float32)
    if not np.isfinite(values).all():
        index = int(np.flatnonzero(~np.isfinite(values))[0])
        raise TensorError(
            f"value {index} is {values[index]}",
            path=file.path,
            tensor=tensor.name,
            hint="the file is damaged",
        )
    return values

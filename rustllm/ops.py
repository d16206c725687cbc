"""Numeric operations on numpy arrays: what a forward pass is made of, each to be called alone.

Arrays may have any strides and any real dtype; the arithmetic and the results are float32. Leading
dimensions are carried along. Every function takes ``out=``, releases the GIL, and uses `threads`
threads (by default the cores that the process may use); results do not depend on their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rustllm.errors import ArgumentError, OutOfMemoryError

if TYPE_CHECKING:
    from rustllm._core.linear import PackedMatrix

__all__ = [
    "QuantizedArray",
    "attention",
    "dequantize",
    "gelu",
    "layer_norm",
    "linear",
    "quantize",
    "rms_norm",
    "rope",
    "silu",
    "softmax",
]

Floats: TypeAlias = NDArray[np.float32]


class QuantizedArray:
    """A float array as quantized blocks, along its last axis.

    Made by :func:`quantize`, or from the blocks of a file.

    Parameters
    ----------
    data : buffer
        The blocks, row after row.
    type : str or int
        Block type: its name, such as ``"Q4_0"``, or GGUF's number.
    shape : sequence of int
        Of the array that the blocks stand for.

    Attributes
    ----------
    data : ndarray
        The blocks, read-only ``uint8 [n_bytes]``.
    type : str
    shape : tuple of int

    Raises
    ------
    ArgumentError
        The type is unknown, or the data does not have the size that the shape takes.

    Notes
    -----
    Immutable; threads may share one. The packed form that :func:`linear` computes with is made on
    first use and kept.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import ops
    >>> q = ops.quantize(np.ones((2, 32), np.float32), "Q8_0")
    >>> q.shape, q.nbytes
    ((2, 32), 68)
    """

    def __init__(self, data: Any, type: str | int, shape: Sequence[int]) -> None:
        from rustllm._core.quant import block_format, n_bytes

        found = _checked(block_format, type)
        self.type = found.name
        self.type_id = found.type_id
        self.shape = tuple(int(n) for n in shape)
        if not self.shape or min(self.shape) < 0:
            raise ArgumentError(f"a quantized array needs a shape, got {self.shape}")
        rows = math.prod(self.shape[:-1])
        size = rows * _checked(n_bytes, self.type_id, self.shape[-1])
        self.data: NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        if self.data.size != size:
            raise ArgumentError(
                f"{list(self.shape)} of {self.type} takes {size} bytes, not {self.data.size}"
            )
        self.data.flags.writeable = False

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks."""
        return int(self.data.size)

    @cached_property
    def packed(self) -> PackedMatrix:
        """The matrix as the kernels read it; made on first use."""
        from rustllm._core.linear import PackedMatrix, pack

        if len(self.shape) != 2:
            raise ArgumentError(f"a weight is a matrix, not {list(self.shape)}")
        packed: PackedMatrix = _checked(PackedMatrix, self.type_id, *self.shape, self.data)
        pack([packed])
        return packed

    def dequantize(self) -> Floats:
        """Return the array that the blocks stand for, float32."""
        return dequantize(self)

    def __repr__(self) -> str:
        return f"QuantizedArray({self.type}, {list(self.shape)})"


def _checked(function: Any, *args: Any, **options: Any) -> Any:
    """Call into the compiled core; what it refuses is an argument of ours."""
    try:
        return function(*args, **options)
    except MemoryError as error:
        raise OutOfMemoryError(str(error) or "no memory") from error
    except (ValueError, OverflowError) as error:
        raise ArgumentError(str(error)) from error


def _floats(x: ArrayLike, name: str, n_dims: int = 0) -> Floats:
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ArgumentError(f"{name} is no array: {error}") from error
    if array.dtype.kind not in "fiub":
        raise ArgumentError(f"{name} must hold real numbers, not {array.dtype}")
    if array.ndim < n_dims:
        raise ArgumentError(f"{name} needs {n_dims} dimensions or more, got {list(array.shape)}")
    return array.astype(np.float32, copy=False)


def _side_by_side(array: Floats) -> Floats:
    """The array with neighbours of the last axis side by side, rows whole floats apart."""
    fits = (array.shape[-1] <= 1 or array.strides[-1] == 4) and array.flags.aligned
    if fits and all(stride % 4 == 0 for stride in array.strides):
        return array
    return np.ascontiguousarray(array)


def _rows(array: Floats) -> Floats:
    """The array as ``[n, width]``, without a copy where its strides allow that."""
    if array.ndim == 2:
        return _side_by_side(array)
    return _side_by_side(array.reshape(math.prod(array.shape[:-1]), array.shape[-1]))


def _vector(x: ArrayLike | None, name: str, width: int) -> Floats | None:
    if x is None:
        return None
    array = np.ascontiguousarray(_floats(x, name))
    if array.shape != (width,):
        raise ArgumentError(f"{name} must be [{width}], got {list(array.shape)}")
    return array


def _threads(threads: int | None) -> int:
    if threads is None:
        from rustllm._core.threads import available_threads

        return available_threads()
    if threads < 1:
        raise ArgumentError(f"threads must be at least 1, got {threads}")
    return min(threads, 256)


class _Result:
    """Where a result goes: `rows` to be written, then `finish()`, which returns what to hand out.

    `out` is written in place where it can be; where it shares memory with an operand, or its
    strides are no rows, a copy of its own is written first.
    """

    def __init__(
        self, out: Floats | None, shape: tuple[int, ...], operands: Sequence[Any], n_dims: int = 2
    ) -> None:
        if out is not None:
            if not isinstance(out, np.ndarray) or out.dtype != np.float32:
                raise ArgumentError("out must be a float32 array")
            if out.shape != shape:
                raise ArgumentError(f"out must be {list(shape)}, got {list(out.shape)}")
            if not out.flags.writeable:
                raise ArgumentError("out is read-only")
        self.out = out
        flat = shape if n_dims == 3 else (math.prod(shape[:-1]), shape[-1])
        self.shape = shape
        direct = (
            out is not None
            and out.flags.c_contiguous
            and out.flags.aligned
            and not any(np.may_share_memory(out, x) for x in operands)
        )
        self.array = out if out is not None and direct else _new(shape)
        self.rows = self.array.reshape(flat)

    def finish(self) -> Floats:
        if self.out is None or self.out is self.array:
            return self.array
        self.out[...] = self.array
        return self.out


def _new(shape: tuple[int, ...]) -> Floats:
    try:
        return np.empty(shape, np.float32)
    except (MemoryError, ValueError) as error:
        raise OutOfMemoryError(f"no memory for a result of {list(shape)}") from error


def linear(
    x: ArrayLike,
    weight: ArrayLike | QuantizedArray,
    bias: ArrayLike | None = None,
    *,
    exact: bool = False,
    out: Floats | None = None,
    threads: int | None = None,
) -> Floats:
    """Return ``x @ weight.T + bias``.

    Parameters
    ----------
    x : array_like, ``[..., n_in]``
    weight : array_like or QuantizedArray, ``[n_out, n_in]``
        A row for each output, as PyTorch and GGUF have them.
    bias : array_like, ``[n_out]``, optional
    exact : bool
        With quantized weights: keep `x` in float32 instead of int8 blocks.
    out : ndarray, float32 ``[..., n_out]``, optional
    threads : int, optional

    Returns
    -------
    ndarray
        float32 ``[..., n_out]``; `out` if it was given.

    Raises
    ------
    ArgumentError
        Shapes or dtypes do not fit together.

    Notes
    -----
    O(n n_in n_out), blocked after Goto and van de Geijn (2008); up to eight rows read the weight
    once, as it lies.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import ops
    >>> ops.linear([[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]], bias=[0.5, 0.0])
    array([[11.5, 17. ]], dtype=float32)
    """
    values = _floats(x, "x", 1)
    if isinstance(weight, QuantizedArray):
        shape, w = weight.shape, None
        if len(shape) != 2:
            raise ArgumentError(f"weight must be a matrix, got {list(shape)}")
    else:
        w = _floats(weight, "weight", 2)
        shape = w.shape
        if w.ndim != 2:
            raise ArgumentError(f"weight must be a matrix, got {list(shape)}")
    n_out, n_in = shape
    if values.shape[-1] != n_in:
        raise ArgumentError(f"x has rows of {values.shape[-1]}, and weight takes {n_in}")
    offsets = _vector(bias, "bias", n_out)
    result = _Result(out, (*values.shape[:-1], n_out), [values, w, offsets])
    if isinstance(weight, QuantizedArray):
        rows = _rows(values)
        if len(rows):
            result.rows[...] = _checked(
                weight.packed.matmul, rows, exact=exact, threads=_threads(threads), bias=offsets
            )
        return result.finish()
    from rustllm._core.gemm import product

    assert w is not None
    product_of = _rows(values), _side_by_side(w), offsets, result.rows, _threads(threads)
    _checked(product, *product_of)
    return result.finish()


def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    causal: bool = False,
    mask: ArrayLike | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    out: Floats | None = None,
    threads: int | None = None,
) -> Floats:
    """Return ``softmax(q @ k.T * scale) @ v`` for every head.

    Parameters
    ----------
    q : array_like, ``[..., n_heads, n_q, dim]``
    k : array_like, ``[..., n_kv_heads, n_k, dim]``
        `n_kv_heads` divides `n_heads`; neighbouring query heads share one.
    v : array_like, ``[..., n_kv_heads, n_k, dim_v]``
    causal : bool
        Query i sees the keys up to its own, which is at ``i + n_k - n_q``: the queries are the last
        of the keys' positions, as with a cache.
    mask : array_like, optional
        Broadcast to ``[..., n_heads, n_q, n_k]``: bool, True where a key is seen, or numbers that
        are added to the scores.
    scale : float, optional
        ``1 / sqrt(dim)`` by default.
    window : int, optional
        See only this many keys up to one's own.
    softcap : float, optional
        Scores become ``softcap * tanh(score / softcap)``.
    out : ndarray, float32 ``[..., n_heads, n_q, dim_v]``, optional
    threads : int, optional

    Returns
    -------
    ndarray
        float32; zeros for a query that sees no key.

    Raises
    ------
    ArgumentError
        Shapes, dtypes or settings do not fit.

    Notes
    -----
    The matrix of all scores is never made: memory is that of a copy of `k` and `v`, or less. One
    pass with a running maximum (Milakov and Gimelshein 2018; Dao et al. 2022).

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import ops
    >>> x = np.eye(3, dtype=np.float32)[None]
    >>> ops.attention(x, x, x, causal=True)[0, 0]
    array([1., 0., 0.], dtype=float32)
    """
    from rustllm._core.attend import attend

    queries, keys, values = _floats(q, "q", 3), _floats(k, "k", 3), _floats(v, "v", 3)
    if not queries.shape[:-3] == keys.shape[:-3] == values.shape[:-3]:
        raise ArgumentError("q, k and v differ in their leading dimensions")
    n_heads, n_q, dim = queries.shape[-3:]
    n_kv_heads, n_k = keys.shape[-3:-1]
    if keys.shape[-1] != dim or values.shape[-3:-1] != (n_kv_heads, n_k):
        raise ArgumentError(
            f"q {list(queries.shape)}, k {list(keys.shape)} and v {list(values.shape)} do not fit"
        )
    if n_kv_heads == 0 or n_heads % n_kv_heads:
        raise ArgumentError(f"{n_kv_heads} heads of keys do not divide {n_heads} of queries")
    if n_k == 0 or dim == 0:
        raise ArgumentError("attention needs at least one key and one dimension")
    if window is not None and window < 1:
        raise ArgumentError(f"window must be at least 1, got {window}")
    if softcap is not None and not (softcap > 0 and math.isfinite(softcap)):
        raise ArgumentError(f"softcap must be positive, got {softcap}")
    if scale is None:
        scale = 1 / math.sqrt(dim)
    shape = (*queries.shape[:-1], values.shape[-1])
    bias = None if mask is None else _bias(mask, (*queries.shape[:-1], n_k))
    result = _Result(out, shape, [queries, keys, values, mask], n_dims=3)
    options = {
        "causal": causal,
        "window": window or 0,
        "softcap": softcap or 0.0,
        "threads": _threads(threads),
    }
    for index in np.ndindex(*shape[:-3]):
        _checked(
            attend,
            _side_by_side(queries[index]),
            _side_by_side(keys[index]),
            _side_by_side(values[index]),
            result.array[index],
            scale,
            bias=None if bias is None else bias[index],
            **options,
        )
    return result.finish()


def _bias(mask: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """What is added to the scores, ``[..., 1 or n_heads, n_q, n_k]``."""
    array = np.asarray(mask)
    if array.dtype == np.bool_:
        array = np.where(array, np.float32(0), np.float32(-np.inf))
    array = _floats(array, "mask")
    if array.ndim > len(shape):
        raise ArgumentError(f"mask {list(array.shape)} does not fit {list(shape)}")
    # A head dimension of one stays one: it is not copied for every head.
    n_heads = shape[-3] if array.ndim >= 3 and array.shape[-3] != 1 else 1
    try:
        array = np.broadcast_to(array, (*shape[:-3], n_heads, *shape[-2:]))
    except ValueError as error:
        raise ArgumentError(f"mask {list(np.shape(mask))} does not fit {list(shape)}") from error
    return np.ascontiguousarray(array)


def rms_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    eps: float = 1e-6,
    out: Floats | None = None,
    threads: int | None = None,
) -> Floats:
    """Divide each row by its root mean square, and multiply by `weight`.

    Parameters
    ----------
    x : array_like, ``[..., width]``
    weight : array_like, ``[width]``, optional
    eps : float
        Added to the mean of the squares.
    out : ndarray, float32 ``[..., width]``, optional
        May be `x`.
    threads : int, optional

    Returns
    -------
    ndarray
        float32, of the shape of `x`.

    Examples
    --------
    >>> from rustllm import ops
    >>> ops.rms_norm([3.0, 4.0], eps=0).round(3)
    array([0.849, 1.131], dtype=float32)
    """
    return _norm(x, weight, None, eps, False, out, threads)


def layer_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    out: Floats | None = None,
    threads: int | None = None,
) -> Floats:
    """Take each row's mean off, divide by its deviation, multiply by `weight` and add `bias`.

    Parameters
    ----------
    x : array_like, ``[..., width]``
    weight, bias : array_like, ``[width]``, optional
    eps : float
        Added to the variance.
    out : ndarray, float32 ``[..., width]``, optional
        May be `x`.
    threads : int, optional

    Returns
    -------
    ndarray
        float32, of the shape of `x`.

    Examples
    --------
    >>> from rustllm import ops
    >>> ops.layer_norm([1.0, 3.0], eps=0)
    array([-1.,  1.], dtype=float32)
    """
    return _norm(x, weight, bias, eps, True, out, threads)


def _norm(
    x: ArrayLike,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    eps: float,
    centre: bool,
    out: Floats | None,
    threads: int | None,
) -> Floats:
    from rustllm._core.rowwise import normalize

    if not (eps >= 0 and math.isfinite(eps)):
        raise ArgumentError(f"eps must be finite and not negative, got {eps}")
    values = _floats(x, "x", 1)
    width = values.shape[-1]
    scale = _vector(weight, "weight", width)
    if scale is None:
        scale = np.ones(width, np.float32)
    offsets = _vector(bias, "bias", width)
    result = _Result(out, values.shape, [values, scale, offsets])
    rows = _rows(values)
    _checked(
        normalize, rows, scale, offsets, result.rows, eps, centre=centre, threads=_threads(threads)
    )
    return result.finish()


def softmax(
    x: ArrayLike,
    *,
    axis: int = -1,
    scale: float = 1.0,
    out: Floats | None = None,
    threads: int | None = None,
) -> Floats:
    """Return the softmax of ``x * scale`` along an axis.

    Parameters
    ----------
    x : array_like
    axis : int
    scale : float
        Not negative; one over the temperature.
    out : ndarray, float32, optional
        May be `x`.
    threads : int, optional

    Returns
    -------
    ndarray
        float32, of the shape of `x`. NaN where a row holds NaN or only minus infinity.

    Examples
    --------
    >>> from rustllm import ops
    >>> ops.softmax([0.0, 0.0, float("-inf")])
    array([0.5, 0.5, 0. ], dtype=float32)
    """
    from rustllm._core.rowwise import softmax as rows_softmax

    values = _floats(x, "x", 1)
    if not -values.ndim <= axis < values.ndim:
        raise ArgumentError(f"no axis {axis} in {list(values.shape)}")
    if not (scale >= 0 and math.isfinite(scale)):
        raise ArgumentError(f"scale must be finite and not negative, got {scale}")
    moved = np.moveaxis(values, axis, -1)
    target = None if out is None else np.moveaxis(_is_out(out, values.shape), axis, -1)
    result = _Result(target, moved.shape, [values])
    _checked(rows_softmax, _rows(moved), result.rows, scale, threads=_threads(threads))
    done = result.finish()
    return out if out is not None else np.moveaxis(done, -1, axis)


def _is_out(out: Any, shape: tuple[int, ...]) -> Floats:
    _Result(out, shape, [], n_dims=3)
    checked: Floats = out
    return checked


def silu(x: ArrayLike, *, out: Floats | None = None, threads: int | None = None) -> Floats:
    """Return ``x / (1 + exp(-x))``.

    Parameters
    ----------
    x : array_like
    out : ndarray, float32, optional
        May be `x`.
    threads : int, optional

    Returns
    -------
    ndarray
        float32, of the shape of `x`.

    Examples
    --------
    >>> from rustllm import ops
    >>> ops.silu([0.0, 1.0]).round(4)
    array([0.    , 0.7311], dtype=float32)
    """
    return _activation("silu", x, out, threads)


def gelu(
    x: ArrayLike,
    *,
    approximate: str = "none",
    out: Floats | None = None,
    threads: int | None = None,
) -> Floats:
    """Return `x` times the normal distribution function of `x`.

    Parameters
    ----------
    x : array_like
    approximate : {"none", "tanh"}
        "tanh" is the formula that GPT-2 and Gemma were trained with.
    out : ndarray, float32, optional
        May be `x`.
    threads : int, optional

    Returns
    -------
    ndarray
        float32, of the shape of `x`.

    Examples
    --------
    >>> from rustllm import ops
    >>> ops.gelu([-1.0, 1.0]).round(4)
    array([-0.1587,  0.8413], dtype=float32)
    """
    kinds = {"none": "gelu", "tanh": "gelu_tanh"}
    if approximate not in kinds:
        raise ArgumentError(f'approximate must be "none" or "tanh", got {approximate!r}')
    return _activation(kinds[approximate], x, out, threads)


def _activation(kind: str, x: ArrayLike, out: Floats | None, threads: int | None) -> Floats:
    from rustllm._core.rowwise import activate

    values = _floats(x, "x")
    if values.ndim == 0:
        return _activation(kind, values.reshape(1), out, threads).reshape(())
    result = _Result(out, values.shape, [values])
    rows, target = _rows(values), result.rows
    if rows.flags.c_contiguous and rows.size % 1024 == 0:
        # Rows as short as the caller's would cost a call each.
        rows, target = rows.reshape(-1, 1024), target.reshape(-1, 1024)
    _checked(activate, rows, target, kind, threads=_threads(threads))
    return result.finish()


def rope(
    x: ArrayLike,
    positions: ArrayLike | None = None,
    *,
    base: float = 10000.0,
    n_dims: int | None = None,
    interleaved: bool = False,
    frequencies: ArrayLike | None = None,
    out: Floats | None = None,
    threads: int | None = None,
) -> Floats:
    """Rotate pairs of dimensions by angles that grow with the position (Su et al. 2021).

    Parameters
    ----------
    x : array_like, ``[..., n_tokens, dim]``
    positions : array_like of int, ``[n_tokens]``, optional
        0, 1, 2, ... by default.
    base : float
        Pair i turns by ``position * base ** (-2 i / n_dims)``.
    n_dims : int, optional
        Dimensions that rotate, even; the rest is copied. All by default.
    interleaved : bool
        Pairs are (2i, 2i + 1), as in GPT-J, rather than (i, i + n_dims / 2), as in GPT-NeoX.
    frequencies : array_like, ``[n_dims / 2]``, optional
        Angles at position 1, instead of those that follow from `base`.
    out : ndarray, float32, optional
        May be `x`.
    threads : int, optional

    Returns
    -------
    ndarray
        float32, of the shape of `x`.

    Notes
    -----
    Angles are computed in double precision from the position itself.

    Examples
    --------
    >>> import math
    >>> from rustllm import ops
    >>> ops.rope([[1.0, 0.0]], positions=[1]).round(4)
    array([[0.5403, 0.8415]], dtype=float32)
    """
    from rustllm._core.rowwise import rotate

    values = _floats(x, "x", 2)
    n_tokens, dim = values.shape[-2:]
    if frequencies is not None:
        turns = np.ascontiguousarray(np.asarray(frequencies, np.float64))
        n_dims = 2 * len(turns) if n_dims is None else n_dims
        if turns.ndim != 1 or 2 * len(turns) != n_dims:
            raise ArgumentError(f"frequencies must be [{n_dims // 2}], got {list(turns.shape)}")
    else:
        n_dims = dim if n_dims is None else n_dims
        if not (base > 0 and math.isfinite(base)):
            raise ArgumentError(f"base must be positive, got {base}")
        turns = base ** (-np.arange(0, max(n_dims, 0), 2, dtype=np.float64) / max(n_dims, 1))
    if n_dims < 2 or n_dims % 2 or n_dims > dim:
        raise ArgumentError(f"n_dims must be even, from 2 to {dim}, got {n_dims}")
    if positions is None:
        places = np.arange(n_tokens, dtype=np.int64)
    else:
        given = np.asarray(positions)
        if given.dtype.kind not in "iu" or given.shape != (n_tokens,):
            raise ArgumentError(f"positions must be {n_tokens} integers")
        places = given.astype(np.int64)
    result = _Result(out, values.shape, [values])
    rows = _rows(values)
    places = np.ascontiguousarray(np.broadcast_to(places, (*values.shape[:-2], n_tokens))).ravel()
    _checked(
        rotate, rows, places, turns, result.rows, halves=not interleaved, threads=_threads(threads)
    )
    return result.finish()


def quantize(
    x: ArrayLike,
    type: str | int,
    *,
    weights: ArrayLike | None = None,
    out: NDArray[np.uint8] | None = None,
    threads: int | None = None,
) -> QuantizedArray:
    """Round an array to quantized blocks along its last axis.

    Parameters
    ----------
    x : array_like, ``[..., n]``
        Finite; `n` is a whole number of blocks (32 values, or 256 for the K types).
    type : str or int
        ``"Q4_0"``, ``"Q8_0"``, ``"Q6_K"`` ..., or GGUF's number.
    weights : array_like, ``[n]``, optional
        How much an error in each column matters.
    out : ndarray, uint8, optional
        C-contiguous memory for the blocks, as many bytes as they take. The result looks into it.
    threads : int, optional

    Returns
    -------
    QuantizedArray

    Raises
    ------
    ArgumentError
        The type is unknown, the rows are no whole blocks, a value is not finite, or `out` does not
        fit or shares memory with an operand.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import ops
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32)
    >>> float(abs(ops.quantize(x, "Q8_0").dequantize() - x).max()) < 0.005
    True
    """
    from rustllm._core.quant import quantize as to_blocks

    values = np.ascontiguousarray(_floats(x, "x", 1))
    if not np.isfinite(values).all():
        raise ArgumentError("a value that is not finite cannot be quantized")
    importance = _vector(weights, "weights", values.shape[-1])
    operands = [array for array in (values, importance) if array is not None]
    if isinstance(out, np.ndarray) and any(np.may_share_memory(out, a) for a in operands):
        raise ArgumentError("out shares memory with what is quantized")
    blocks = _checked(to_blocks, values, type, out, weights=importance, threads=_threads(threads))
    return QuantizedArray(np.ascontiguousarray(blocks).reshape(-1), type, values.shape)


def dequantize(
    x: QuantizedArray, *, out: Floats | None = None, threads: int | None = None
) -> Floats:
    """Return the array that quantized blocks stand for.

    Parameters
    ----------
    x : QuantizedArray
    out : ndarray, float32, optional
    threads : int, optional

    Returns
    -------
    ndarray
        float32, of the shape of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import ops
    >>> ops.dequantize(ops.quantize(np.full(32, 0.5), "Q4_0"))[:2]
    array([0.5, 0.5], dtype=float32)
    """
    from rustllm._core.quant import dequantize as from_blocks

    if not isinstance(x, QuantizedArray):
        raise ArgumentError("dequantize takes what quantize returned")
    result = _Result(out, x.shape, [x.data])
    _checked(from_blocks, x.data, x.type, result.array, threads=_threads(threads))
    return result.finish()

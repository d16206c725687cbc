"""Block formats of quantized tensors, and their blocks as float32.

A quantized tensor stores each row as blocks of 32 or 256 elements that share scales. This module
knows how large the blocks of every supported type are and turns rows into float32, equal bit for
bit to the reference implementation of GGUF's authors. What a file says about its tensors is the
business of :mod:`rustllm.loaders`; products with quantized weights are the engine's.
"""

from collections import namedtuple

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memset
from rustllm._core.dispatch cimport simd_level
from rustllm._core.status cimport BAD_ARGUMENT, NOT_FINITE
from rustllm._core.threads cimport run_team

import numpy as np

cdef extern from "atomics.h" nogil:
    int rl_load(const int*) noexcept
    void rl_store(int*, int) noexcept
    int rl_fetch_add(int*, int) noexcept

cdef extern from "block_rows.h" nogil:
    ctypedef struct rl_block_size:
        uint16_t elements
        uint16_t bytes
    const rl_block_size rl_block_sizes[31]
    int rl_is_type(int type) noexcept
    Py_ssize_t rl_row_bytes(int type, Py_ssize_t n) noexcept
    int rl_dequantize_at(
        int level, int type, const uint8_t* src, float* dst, Py_ssize_t n
    ) noexcept
    Py_ssize_t rl_first_not_finite(int type, const uint8_t* src, Py_ssize_t blocks) noexcept
    int rl_can_quantize(int type) noexcept
    int rl_quantize_at(
        int level, int type, const float* x, const float* weights, uint8_t* dst, Py_ssize_t n
    ) noexcept
    float rl_f16_to_f32(uint16_t h) noexcept
    uint16_t rl_f32_to_f16(float value) noexcept

# Elements between two looks for a signal: a multiple of every block, about a millisecond of work.
cdef Py_ssize_t _STEP = 1 << 20

# Elements that a thread converts at a time.
cdef Py_ssize_t _DEQUANTIZE_STEP = 1 << 16
cdef Py_ssize_t _QUANTIZE_STEP = 1 << 14


cdef Py_ssize_t block_elements(int type_id) noexcept nogil:
    return rl_block_sizes[type_id].elements if rl_is_type(type_id) else 0


cdef Py_ssize_t block_bytes(int type_id) noexcept nogil:
    return rl_block_sizes[type_id].bytes if rl_is_type(type_id) else 0


cdef Py_ssize_t row_bytes(int type_id, Py_ssize_t n) noexcept nogil:
    return rl_row_bytes(type_id, n)


cdef int dequantize_row(int type_id, const uint8_t* src, float* dst, Py_ssize_t n) noexcept nogil:
    return BAD_ARGUMENT if rl_dequantize_at(simd_level(), type_id, src, dst, n) < 0 else 0


cdef int quantize_row(
    int type_id, const float* src, const float* weights, uint8_t* dst, Py_ssize_t n
) noexcept nogil:
    # The header's codes are those of _core.status.
    return rl_quantize_at(simd_level(), type_id, src, weights, dst, n)


cdef Py_ssize_t first_bad_block(int type_id, const uint8_t* src,
                                Py_ssize_t blocks) noexcept nogil:
    return rl_first_not_finite(type_id, src, blocks)


cdef float f16_to_f32(uint16_t value) noexcept nogil:
    return rl_f16_to_f32(value)


cdef uint16_t f32_to_f16(float value) noexcept nogil:
    return rl_f32_to_f16(value)


BlockFormat = namedtuple("BlockFormat", ("type_id", "name", "elements", "bytes"))
BlockFormat.__doc__ = "One block type: its id and name in GGUF, elements and bytes of a block."

BLOCK_FORMATS = {
    int(t): BlockFormat(int(t), t.name, block_elements(int(t)), block_bytes(int(t)))
    for t in BlockType
}
_BY_NAME = {f.name: f for f in BLOCK_FORMATS.values()}


def block_format(type):
    """The format of a block type, by id or name.

    Parameters
    ----------
    type : int or str
        GGUF's id or name, for instance ``3`` or ``"Q4_1"``; case does not matter.

    Returns
    -------
    BlockFormat
        Named tuple ``(type_id, name, elements, bytes)``.

    Raises
    ------
    ValueError
        No such type, or not one that is supported.

    Examples
    --------
    >>> from rustllm._core.quant import block_format
    >>> block_format("q4_1")
    BlockFormat(type_id=3, name='Q4_1', elements=32, bytes=20)
    """
    found = _BY_NAME.get(type.upper()) if isinstance(type, str) else BLOCK_FORMATS.get(int(type))
    if found is None:
        raise ValueError(f"block type {type!r} is not supported; known: {', '.join(_BY_NAME)}")
    return found


def n_bytes(type, Py_ssize_t n_elements):
    """Bytes that `n_elements` of a block type take.

    Raises
    ------
    ValueError
        Unknown type, or not a whole number of blocks.

    Examples
    --------
    >>> from rustllm._core.quant import n_bytes
    >>> n_bytes("Q6_K", 512)
    420
    """
    found = block_format(type)
    cdef Py_ssize_t size = rl_row_bytes(found.type_id, n_elements)
    if size < 0:
        raise ValueError(f"{n_elements} elements are not whole blocks of {found.name}, "
                         f"which hold {found.elements}")
    return size


# One conversion, dealt out in steps of whole blocks of any type.
cdef struct Conversion:
    int type_id
    int next                    # step that nobody has taken
    int n_steps                 # that may be taken now
    int status                  # the first failure that was seen
    Py_ssize_t step
    Py_ssize_t n
    float* values
    const float* weights
    uint8_t* blocks


cdef void _quantize_steps(void* context, int thread, int n_threads) noexcept nogil:
    cdef Conversion* c = <Conversion*>context
    cdef Py_ssize_t at
    cdef int i, status
    while rl_load(&c.status) == 0:
        i = rl_fetch_add(&c.next, 1)
        if i >= c.n_steps:
            return
        at = i * c.step
        status = quantize_row(
            c.type_id, c.values + at, c.weights + at if c.weights != NULL else NULL,
            c.blocks + row_bytes(c.type_id, at), min(c.step, c.n - at)
        )
        if status < 0:
            rl_store(&c.status, status)


cdef void _dequantize_steps(void* context, int thread, int n_threads) noexcept nogil:
    cdef Conversion* c = <Conversion*>context
    cdef Py_ssize_t at
    cdef int i
    while True:
        i = rl_fetch_add(&c.next, 1)
        if i >= c.n_steps:
            return
        at = i * c.step
        dequantize_row(c.type_id, c.blocks + row_bytes(c.type_id, at), c.values + at,
                       min(c.step, c.n - at))


cdef int convert(Conversion* c, Py_ssize_t n, int threads, bint is_back) except -1:
    """Run all steps, looking at signals now and then."""
    if not 1 <= threads <= 256:
        raise ValueError(f"{threads} threads: 1 to 256")
    if n > c.step << 30:
        raise ValueError(f"{n} elements at once")
    cdef int total = <int>((n + c.step - 1) // c.step), done = 0
    # A millisecond to a tenth of a second of work for each thread, by the type.
    cdef int batch = <int>max(1, (1 << 20) // c.step) * threads
    c.n = n
    while done < total and c.status == 0:
        if done:
            PyErr_CheckSignals()
        c.next = done
        done = min(total, done + batch)
        c.n_steps = done
        with nogil:
            run_team(_dequantize_steps if is_back else _quantize_steps, c, threads)
    return 0


def dequantize(data, type, out=None, *, int threads=1):
    """Turn blocks into float32.

    Parameters
    ----------
    data : buffer
        Contiguous bytes (any contiguous buffer): whole blocks of `type`.
    type : int or str
        Block type, by GGUF's id or name.
    out : ndarray of float32, optional
        C-contiguous array with as many elements as the blocks hold; any shape.
    threads : int
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray of float32
        `out`, or a new array ``[n_elements]``. Equal bit for bit to ``gguf.quants.dequantize``.

    Raises
    ------
    ValueError
        Unknown type, a part of a block, or an `out` of another size, type or layout.

    Notes
    -----
    O(n), without the GIL, and it answers to signals. Thread-safe for distinct `out`.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm._core.quant import dequantize
    >>> block = np.float16(0.5).tobytes() + bytes([0x98] * 16)
    >>> dequantize(block, "Q4_0")[[0, 16]]
    array([0. , 0.5], dtype=float32)
    """
    found = block_format(type)
    cdef const uint8_t[::1] source = memoryview(data).cast("B")
    cdef int type_id = found.type_id
    cdef Py_ssize_t bytes_a_block = found.bytes
    if source.shape[0] % bytes_a_block:
        raise ValueError(f"{source.shape[0]} bytes are not whole blocks of {found.name}, "
                         f"which take {bytes_a_block}")
    cdef Py_ssize_t n = source.shape[0] // bytes_a_block * found.elements
    if out is None:
        out = np.empty(n, dtype=np.float32)
    elif not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.size != n:
        raise ValueError(f"out must be a float32 array of {n} elements")
    elif not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("out must be C-contiguous and writeable")
    if n == 0:
        return out
    cdef float[::1] target = out.reshape(-1)
    cdef Conversion c
    memset(&c, 0, sizeof(c))
    c.type_id = type_id
    c.step = _DEQUANTIZE_STEP
    c.blocks = <uint8_t*>&source[0]
    c.values = &target[0]
    convert(&c, n, threads, True)
    return out


def first_not_finite(data, type):
    """Index of the first value (or block, by its scales) that is NaN or infinite; -1 if none is.

    Parameters
    ----------
    data : buffer
        Whole blocks of `type`.
    type : int or str
        Block type, by GGUF's id or name.

    Notes
    -----
    O(n), without the GIL. Integers are always finite.
    """
    found = block_format(type)
    cdef const uint8_t[::1] source = memoryview(data).cast("B")
    cdef int type_id = found.type_id
    cdef Py_ssize_t bytes_a_block = found.bytes
    cdef Py_ssize_t n = source.shape[0] // bytes_a_block
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t step
    cdef Py_ssize_t bad = -1
    if source.shape[0] % bytes_a_block:
        raise ValueError(f"{source.shape[0]} bytes are not whole blocks of {found.name}, "
                         f"which take {bytes_a_block}")
    if n == 0:
        return -1
    cdef const uint8_t* src = &source[0]
    with nogil:
        while done < n:
            step = min(n - done, _STEP)
            bad = rl_first_not_finite(type_id, src + done * bytes_a_block, step)
            if bad >= 0:
                bad += done
                break
            done += step
            if done < n:
                with gil:
                    PyErr_CheckSignals()
    return bad


def quantize(data, type, out=None, weights=None, *, int threads=1):
    """Turn float32 into blocks.

    Parameters
    ----------
    data : array_like of float32
        Any shape whose last dimension is whole blocks.
    type : int or str
        Block type, by GGUF's id or name; integers are not quantized to.
    out : ndarray of uint8, optional
        C-contiguous, with as many bytes as the blocks take.
    weights : array_like of float32, optional
        How much the squared error of each element matters, as `data` or as its last dimension; 1 by
        default. Q2_K to Q6_K and IQ4_NL heed it.
    threads : int
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray of uint8
        `out`, or a new array ``[n_bytes]``.

    Raises
    ------
    ValueError
        Unknown type, parts of blocks, an unfit `out`, a value that is NaN or infinite, or one whose
        scale float16 cannot hold.

    Notes
    -----
    O(n), without the GIL, and it answers to signals. Thread-safe for distinct `out`. Q4_0, Q4_1,
    Q5_0, Q5_1, Q8_0, F16 and BF16 are equal bit for bit to ``gguf.quants.quantize``; the others
    search for the scales that make the squared error least. The same on every machine.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm._core.quant import dequantize, quantize
    >>> x = np.linspace(-1, 1, 256, dtype=np.float32)
    >>> blocks = quantize(x, "Q4_K")
    >>> blocks.size, bool(abs(dequantize(blocks, "Q4_K") - x).max() < 0.04)
    (144, True)
    """
    found = block_format(type)
    cdef int type_id = found.type_id
    if not rl_can_quantize(type_id):
        raise ValueError(f"nothing is quantized to {found.name}")
    source = np.ascontiguousarray(data, dtype=np.float32)
    width = source.shape[source.ndim - 1]
    if width % found.elements:
        raise ValueError(f"rows of {width} elements are not whole blocks of "
                         f"{found.name}, which hold {found.elements}")
    cdef Py_ssize_t n = source.size
    cdef Py_ssize_t size = n_bytes(type_id, n)
    if out is None:
        out = np.empty(size, dtype=np.uint8)
    elif not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.size != size:
        raise ValueError(f"out must be a uint8 array of {size} bytes")
    elif not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("out must be C-contiguous and writeable")
    if n == 0:
        return out
    cdef const float[::1] x = source.reshape(-1)
    cdef uint8_t[::1] target = out.reshape(-1)
    cdef const float[::1] w = None
    cdef const float* weights_at = NULL
    if weights is not None:
        weights = np.broadcast_to(np.asarray(weights, dtype=np.float32), source.shape)
        w = np.ascontiguousarray(weights).reshape(-1)
        weights_at = &w[0]
    cdef Conversion c
    memset(&c, 0, sizeof(c))
    c.type_id = type_id
    c.step = _QUANTIZE_STEP
    c.values = <float*>&x[0]
    c.weights = weights_at
    c.blocks = &target[0]
    convert(&c, n, threads, False)
    if c.status == NOT_FINITE:
        raise ValueError("a value is NaN or infinite, or a weight is not a finite number >= 0")
    if c.status < 0:
        raise ValueError(f"values are too large for {found.name}: their scale overflows float16")
    return out

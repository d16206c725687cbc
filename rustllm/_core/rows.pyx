"""Normalisation, softmax, rotary embedding, activations and block formats of rows of float32.

Each row, or stretch of an activation, is worked on alone, so threads share them out and the results
do not depend on how many there are. The arithmetic is the engine's.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from rustllm._core.dispatch cimport simd_level
from rustllm._core.quant cimport dequantize_row, quantize_row, row_bytes
from rustllm._core.status cimport BAD_ARGUMENT, NO_MEMORY, OK, check
from rustllm._core.threads cimport run_team

cdef extern from "atomics.h" nogil:
    int rl_fetch_add(int*, int) noexcept
    void rl_store(int*, int) noexcept

cdef extern from "norm.h" nogil:
    ctypedef void (*rl_norm_fn)(const float*, const float*, const float*, float, int, int,
                                float*) noexcept nogil
    rl_norm_fn rl_norm_kernel(int) noexcept

cdef extern from "softmax.h" nogil:
    ctypedef float (*rl_max_fn)(const float*, Py_ssize_t) noexcept nogil
    ctypedef float (*rl_softmax_fn)(const float*, float, float, Py_ssize_t, float*) noexcept nogil
    rl_max_fn rl_max_kernel(int) noexcept
    rl_softmax_fn rl_softmax_kernel(int) noexcept

cdef extern from "rope.h" nogil:
    ctypedef void (*rl_rope_fn)(const float*, const float*, int, int, float*) noexcept nogil
    rl_rope_fn rl_rope_kernel(int) noexcept
    void rl_rope_table(const double*, int, double, double, float*) noexcept

cdef extern from "vector_math.h" nogil:
    enum:
        RL_ACT_SILU
        RL_ACT_GELU_TANH
        RL_ACT_GELU

cdef extern from "attention.h" nogil:
    ctypedef void (*rl_activate_fn)(int, float*, const float*, int) noexcept nogil
    rl_activate_fn rl_activate_kernel(int) noexcept

cdef enum:
    STRETCH = 1 << 14           # elements of an activation that are worked on together
    WORK_A_THREAD = 1 << 15     # elements that are worth waking a thread
    SLICE = 1 << 24             # elements between two looks for a signal

cdef enum:
    NORM = 0
    SOFTMAX = 1
    ROPE = 2
    ACTIVATE = 3
    DEQUANTIZE = 4
    QUANTIZE = 5

SILU = RL_ACT_SILU
GELU_TANH = RL_ACT_GELU_TANH
GELU = RL_ACT_GELU

cdef struct Task:
    int what
    Py_ssize_t rows
    Py_ssize_t n
    const float* x
    Py_ssize_t x_row            # floats between rows
    float* y
    Py_ssize_t y_row
    const float* weight
    const float* bias
    float eps
    bint centre
    float scale
    int activation
    int type_id
    const uint8_t* blocks       # the source or the target
    Py_ssize_t blocks_row       # bytes between rows
    bint halves
    int n_rot
    const double* frequencies
    const double* positions
    Py_ssize_t n_positions
    Py_ssize_t first            # the first row's number, which tells its position
    rl_norm_fn norm
    rl_max_fn top
    rl_softmax_fn exponentials
    rl_rope_fn rotate
    rl_activate_fn activate
    int chunk
    int next
    int status


cdef int _one_row(const Task* t, Py_ssize_t row, float* table, Py_ssize_t* position) noexcept nogil:
    cdef const float* x = t.x + row * t.x_row
    cdef float* y = t.y + row * t.y_row
    cdef Py_ssize_t at
    cdef float total
    if t.what == NORM:
        t.norm(x, t.weight, t.bias, t.eps, t.centre, <int>t.n, y)
    elif t.what == SOFTMAX:
        total = t.exponentials(x, t.top(x, t.n), t.scale, t.n, y)
        for at in range(t.n):
            y[at] /= total
    elif t.what == ROPE:
        at = (t.first + row) % t.n_positions
        if at != position[0]:
            rl_rope_table(t.frequencies, t.n_rot, t.positions[at], 1.0, table)
            position[0] = at
        t.rotate(x, table, t.n_rot, t.halves, y)
        memcpy(y + t.n_rot, x + t.n_rot, (t.n - t.n_rot) * sizeof(float))
    elif t.what == DEQUANTIZE:
        dequantize_row(t.type_id, t.blocks + row * t.blocks_row, y, t.n)
    elif t.what == QUANTIZE:
        return quantize_row(t.type_id, x, t.weight + row * t.n if t.weight is not NULL else NULL,
                            <uint8_t*>t.blocks + row * t.blocks_row, t.n)
    else:
        if y is not x:
            memcpy(y, x, t.n * sizeof(float))
        t.activate(t.activation, y, NULL, <int>t.n)
    return OK


cdef void _rows(void* context, int thread, int threads) noexcept nogil:
    cdef Task* t = <Task*>context
    cdef Py_ssize_t row, end, position = -1
    cdef float* table = NULL
    cdef int status
    if t.what == ROPE:
        table = <float*>malloc((t.n_rot + 1) * sizeof(float))
        if table is NULL:
            rl_store(&t.status, NO_MEMORY)
            return
    while True:
        row = <Py_ssize_t>rl_fetch_add(&t.next, 1) * t.chunk
        if row >= t.rows:
            break
        end = min(t.rows, row + t.chunk)
        while row < end:
            status = _one_row(t, row, table, &position)
            if status < 0:
                rl_store(&t.status, status)
                break
            row += 1
    free(table)


cdef int _run(Task* t, int threads) except -1:
    # In slices, so that Ctrl-C is answered.
    cdef Py_ssize_t rows = t.rows, left = t.rows
    cdef Py_ssize_t slice = max(<Py_ssize_t>1, <Py_ssize_t>SLICE // max(<Py_ssize_t>1, t.n))
    t.norm = rl_norm_kernel(simd_level())
    t.top = rl_max_kernel(simd_level())
    t.exponentials = rl_softmax_kernel(simd_level())
    t.rotate = rl_rope_kernel(simd_level())
    t.activate = rl_activate_kernel(simd_level())
    if <double>t.rows * t.n < WORK_A_THREAD * 2:
        threads = 1
    while left > 0:
        t.rows = min(left, slice)
        t.chunk = <int>max(<Py_ssize_t>1, min(t.rows // (4 * threads), <Py_ssize_t>STRETCH // t.n))
        t.next = 0
        with nogil:
            run_team(_rows, t, threads)
        if t.status == NO_MEMORY:
            check(NO_MEMORY, "no memory for angles")
        elif t.status < 0:
            check(BAD_ARGUMENT,
                  "a value is NaN, infinite or too large for the scales of the block type")
        t.x += t.rows * t.x_row
        t.y += t.rows * t.y_row
        t.blocks += t.rows * t.blocks_row
        if t.what == QUANTIZE and t.weight is not NULL:
            t.weight += t.rows * t.n
        t.first += t.rows
        left -= t.rows
        if left > 0:
            PyErr_CheckSignals()
    t.rows = rows
    return 0


cdef int _bind(Task* t, const float[:, :] x, float[:, :] out) except -1:
    memset(t, 0, sizeof(Task))
    t.rows, t.n = x.shape[0], x.shape[1]
    if out.shape[0] != t.rows or out.shape[1] != t.n:
        raise ValueError("the result's shape does not fit")
    if t.n > 0x7ffffff0:
        raise ValueError("rows are too long")
    if t.n > 1 and (x.strides[1] != 4 or out.strides[1] != 4):
        raise ValueError("neighbours in a row must lie side by side")
    t.x_row, t.y_row = x.strides[0] // 4, out.strides[0] // 4
    if t.rows and t.n:
        t.x, t.y = &x[0, 0], &out[0, 0]
        return 1
    return 0


def norm(const float[:, :] x, const float[::1] weight, const float[::1] bias, float[:, :] out,
         float eps, *, bint centre=False, int threads=1):
    """Write each row over its root mean square to `out`, times `weight`, plus `bias`.

    Parameters
    ----------
    x, out : float32 [rows, n]
        The same memory, or none in common.
    weight : float32 [n]
    bias : float32 [n] or None
    eps : float
        Added to the mean of the squares.
    centre : bool
        Take the mean off each row before.
    threads : int
    """
    cdef Task t
    if not _bind(&t, x, out):
        return
    if weight.shape[0] != t.n or (bias is not None and bias.shape[0] != t.n):
        raise ValueError("weight or bias do not fit")
    t.what = NORM
    t.weight = &weight[0]
    if bias is not None:
        t.bias = &bias[0]
    t.eps, t.centre = eps, centre
    _run(&t, threads)


def softmax(const float[:, :] x, float[:, :] out, float scale=1.0, int threads=1):
    """Write ``exp(scale (x - max))`` over its sum, row by row, to `out`.

    Parameters
    ----------
    x, out : float32 [rows, n]
        The same memory, or none in common.
    scale : float
        Not negative.
    threads : int
    """
    cdef Task t
    if not _bind(&t, x, out):
        return
    t.what, t.scale = SOFTMAX, scale
    _run(&t, threads)


def rope(const float[:, :] x, const double[::1] positions, const double[::1] frequencies,
         float[:, :] out, *, bint halves=True, int threads=1):
    """Write each row rotated by its position to `out`.

    Parameters
    ----------
    x, out : float32 [rows, n]
        No memory in common.
    positions : float64 [n_positions]
        Row i has the position ``i % n_positions``.
    frequencies : float64 [n_rot / 2]
        Angle of each pair a position; what is beyond `n_rot` stays.
    halves : bool
        Pairs are (i, i + n_rot / 2) instead of (2 i, 2 i + 1).
    threads : int
    """
    cdef Task t
    if not _bind(&t, x, out):
        return
    if positions.shape[0] == 0 or 2 * frequencies.shape[0] > t.n:
        raise ValueError("positions or frequencies do not fit")
    t.what, t.halves = ROPE, halves
    t.n_rot = <int>(2 * frequencies.shape[0])
    t.positions, t.n_positions = &positions[0], positions.shape[0]
    if t.n_rot:
        t.frequencies = &frequencies[0]
    _run(&t, threads)


def activate(const float[::1] x, float[::1] out, int activation, int threads=1):
    """Write an activation of every element to `out`.

    Parameters
    ----------
    x, out : float32 [n]
        The same memory, or none in common.
    activation : int
        ``SILU``, ``GELU`` or ``GELU_TANH``.
    threads : int
    """
    cdef Task t
    cdef Py_ssize_t n = x.shape[0], whole = n // STRETCH
    if out.shape[0] != n:
        raise ValueError("the result's shape does not fit")
    if activation not in (RL_ACT_SILU, RL_ACT_GELU, RL_ACT_GELU_TANH):
        raise ValueError("no such activation")
    memset(&t, 0, sizeof(Task))
    t.what, t.activation = ACTIVATE, activation
    if whole:
        t.rows, t.n, t.x_row, t.y_row = whole, STRETCH, STRETCH, STRETCH
        t.x, t.y = &x[0], &out[0]
        _run(&t, threads)
    if n > whole * STRETCH:
        t.rows, t.n = 1, n - whole * STRETCH
        t.x, t.y = &x[whole * STRETCH], &out[whole * STRETCH]
        _run(&t, 1)


def dequantize(const uint8_t[::1] blocks, int type_id, float[:, :] out, int threads=1):
    """Write rows of blocks as float32 to `out`.

    Parameters
    ----------
    blocks : uint8 [rows * bytes of a row]
        At any address.
    type_id : int
        GGUF's number of the block type.
    out : float32 [rows, n]
    threads : int
    """
    cdef Task t
    if not _bind(&t, out, out):
        return
    t.what, t.type_id = DEQUANTIZE, type_id
    t.blocks_row = row_bytes(type_id, t.n)
    if t.blocks_row < 0 or blocks.shape[0] != t.rows * t.blocks_row:
        raise ValueError("the blocks do not fit")
    t.blocks = &blocks[0]
    _run(&t, threads)


def quantize(const float[:, :] x, const float[:, ::1] weights, int type_id, uint8_t[::1] out,
             int threads=1):
    """Write rows as blocks to `out`.

    Parameters
    ----------
    x : float32 [rows, n]
    weights : float32 [rows, n] or None
        How much the squared error of each element matters.
    type_id : int
        GGUF's number of the block type.
    out : uint8 [rows * bytes of a row]
    threads : int
    """
    cdef Task t
    memset(&t, 0, sizeof(Task))
    t.rows, t.n, t.x_row = x.shape[0], x.shape[1], x.strides[0] // 4
    t.what, t.type_id = QUANTIZE, type_id
    t.blocks_row = row_bytes(type_id, t.n)
    if t.blocks_row < 0 or out.shape[0] != t.rows * t.blocks_row:
        raise ValueError("the blocks do not fit")
    if t.n > 1 and x.strides[1] != 4:
        raise ValueError("neighbours in a row must lie side by side")
    if weights is not None and (weights.shape[0] != t.rows or weights.shape[1] != t.n):
        raise ValueError("the weights do not fit")
    if not t.rows or not t.n:
        return
    t.x, t.blocks = &x[0, 0], &out[0]
    if weights is not None:
        t.weight = &weights[0, 0]
    _run(&t, threads)

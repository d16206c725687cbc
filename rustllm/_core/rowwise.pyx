"""Operations that treat each row of a float32 array alone: norms, softmax, activations, rotation.

The kernels are those of the engine; the threads share out the rows, so the result does not depend
on their number.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from rustllm._core.dispatch cimport simd_level
from rustllm._core.status cimport NO_MEMORY, OK, check
from rustllm._core.threads cimport run_team

cdef extern from "atomics.h" nogil:
    void rl_store(int*, int) noexcept

cdef extern from "norm.h" nogil:
    ctypedef void (*rl_norm_fn)(const float*, const float*, const float*, float, int, int,
                                float*) noexcept nogil
    rl_norm_fn rl_norm_kernel(int) noexcept

cdef extern from "softmax.h" nogil:
    ctypedef float (*rl_softmax_fn)(const float*, float, float, Py_ssize_t, float*) noexcept nogil
    ctypedef float (*rl_max_fn)(const float*, Py_ssize_t) noexcept nogil
    rl_softmax_fn rl_softmax_kernel(int) noexcept
    rl_max_fn rl_max_kernel(int) noexcept

cdef extern from "rope.h" nogil:
    ctypedef void (*rl_rope_fn)(const float*, const float*, int, int, float*) noexcept nogil
    rl_rope_fn rl_rope_kernel(int) noexcept
    void rl_rope_table(const double*, int, double, double, float*) noexcept

cdef extern from "attention.h" nogil:
    ctypedef void (*rl_activate_fn)(int, float*, const float*, int) noexcept nogil
    rl_activate_fn rl_activate_kernel(int) noexcept

ACTIVATIONS = {"silu": 1, "gelu_tanh": 2, "gelu": 3}

cdef enum Kind:
    NORM
    SOFTMAX
    ACTIVATE
    ROTATE

cdef enum:
    VALUES_A_THREAD = 1 << 14   # that are worth waking a thread
    MAX_WIDTH = 1 << 30

cdef struct Rows:
    int kind
    Py_ssize_t n
    int width
    const float* x
    Py_ssize_t x_row
    float* out
    Py_ssize_t out_row
    const float* weight
    const float* bias
    float scale                 # or epsilon
    int option                  # centre, activation, halves
    const int64_t* positions
    const double* frequencies
    int n_dims
    int level
    int status


cdef void work(void* context, int thread, int threads) noexcept nogil:
    cdef Rows* r = <Rows*>context
    cdef Py_ssize_t i, j, last = r.n * (thread + 1) // threads
    cdef rl_norm_fn norm = rl_norm_kernel(r.level)
    cdef rl_softmax_fn exponentials = rl_softmax_kernel(r.level)
    cdef rl_max_fn largest = rl_max_kernel(r.level)
    cdef rl_rope_fn rotation = rl_rope_kernel(r.level)
    cdef rl_activate_fn activation = rl_activate_kernel(r.level)
    cdef const float* x
    cdef float* out
    cdef float* table = NULL
    cdef float total
    if r.kind == ROTATE:
        table = <float*>malloc(r.n_dims * sizeof(float))
        if table is NULL:
            rl_store(&r.status, NO_MEMORY)
            return
    for i in range(r.n * thread // threads, last):
        x = r.x + i * r.x_row
        out = r.out + i * r.out_row
        if r.kind == NORM:
            norm(x, r.weight, r.bias, r.scale, r.option, r.width, out)
        elif r.kind == SOFTMAX:
            total = exponentials(x, largest(x, r.width), r.scale, r.width, out)
            for j in range(r.width):
                out[j] = out[j] / total
        elif r.kind == ACTIVATE:
            memcpy(out, x, r.width * sizeof(float))
            activation(r.option, out, NULL, r.width)
        else:
            rl_rope_table(r.frequencies, r.n_dims, <double>r.positions[i], 1.0, table)
            rotation(x, table, r.n_dims, r.option, out)
            memcpy(out + r.n_dims, x + r.n_dims, (r.width - r.n_dims) * sizeof(float))
    free(table)


cdef int run(Rows* r, const float[:, :] x, float[:, :] out, int kind, int threads) except -1:
    cdef Py_ssize_t n = x.shape[0], width = x.shape[1]
    if out.shape[0] != n or out.shape[1] != width:
        raise ValueError("the result's shape does not fit")
    if width > MAX_WIDTH:
        raise ValueError("the rows are too long")
    if n == 0 or width == 0:
        return 0
    if width > 1 and (x.strides[1] != 4 or out.strides[1] != 4):
        raise ValueError("neighbours in a row must lie side by side")
    r.kind = kind
    r.n = n
    r.width = <int>width
    r.x = &x[0, 0]
    r.x_row = x.strides[0] // 4
    r.out = &out[0, 0]
    r.out_row = out.strides[0] // 4
    r.level = simd_level()
    r.status = OK
    threads = max(1, <int>min(<Py_ssize_t>threads, n * width // VALUES_A_THREAD, n))
    with nogil:
        run_team(work, r, threads)
    check(r.status, "no memory for the angles")
    return 0


def normalize(const float[:, :] x, const float[::1] weight, const float[::1] bias,
              float[:, :] out, float eps, *, bint centre, int threads=1):
    """Root-mean-square or, with `centre`, layer normalisation of each row.

    Parameters
    ----------
    x, out : float32 [n, width]
        May be the same memory.
    weight : float32 [width]
    bias : float32 [width] or None
    eps : float
    centre : bool
        Take the mean off first.
    threads : int
    """
    cdef Rows r
    memset(&r, 0, sizeof(Rows))
    if weight.shape[0] != x.shape[1] or (bias is not None and bias.shape[0] != x.shape[1]):
        raise ValueError("weight or bias does not fit")
    if x.shape[1]:
        r.weight = &weight[0]
        if bias is not None:
            r.bias = &bias[0]
    r.scale = eps
    r.option = centre
    run(&r, x, out, NORM, threads)


def softmax(const float[:, :] x, float[:, :] out, float scale=1.0, *, int threads=1):
    """Softmax of each row times `scale`, which is not negative; `out` may be `x`."""
    cdef Rows r
    memset(&r, 0, sizeof(Rows))
    r.scale = scale
    run(&r, x, out, SOFTMAX, threads)


def activate(const float[:, :] x, float[:, :] out, str kind, *, int threads=1):
    """One of ``silu``, ``gelu`` (exact) and ``gelu_tanh`` of every value; `out` shares no memory
    with `x`."""
    cdef Rows r
    memset(&r, 0, sizeof(Rows))
    r.option = ACTIVATIONS[kind]
    run(&r, x, out, ACTIVATE, threads)


def rotate(const float[:, :] x, const int64_t[::1] positions, const double[::1] frequencies,
           float[:, :] out, *, bint halves, int threads=1):
    """Rotary embedding of each row at its position.

    Parameters
    ----------
    x, out : float32 [n, dim]
        Sharing no memory.
    positions : int64 [n]
    frequencies : float64 [n_dims / 2]
        Angle of each pair at position 1; further dimensions are copied.
    halves : bool
        Pairs (i, i + n_dims/2) instead of (2i, 2i + 1).
    threads : int
    """
    cdef Rows r
    memset(&r, 0, sizeof(Rows))
    if positions.shape[0] != x.shape[0] or 2 * frequencies.shape[0] > x.shape[1]:
        raise ValueError("positions or frequencies do not fit")
    if frequencies.shape[0] == 0:
        raise ValueError("nothing to rotate")
    if x.shape[0]:
        r.positions = &positions[0]
    r.frequencies = &frequencies[0]
    r.n_dims = <int>(2 * frequencies.shape[0])
    r.option = halves
    run(&r, x, out, ROTATE, threads)

"""Products of float32 matrices on all threads.

The blocking is that of Goto and van de Geijn (2008): a stretch of 256 inputs of some columns is
packed into panels that stay in the second-level cache, then every tile of rows runs over them. The
threads share out the columns, or the rows where there are more of these, and never wait for each
other. Each result is one chain of additions in an order that does not depend on the threads.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from rustllm._core.dispatch cimport simd_level
from rustllm._core.status cimport NO_MEMORY, OK, check
from rustllm._core.threads cimport run_team

cdef extern from "atomics.h" nogil:
    void rl_store(int*, int) noexcept

cdef enum:
    K_BLOCK = 256
    ROW_BLOCK = 240         # rows of x packed at a time; a multiple of every tile
    COLUMN_BLOCK = 768      # rows of w packed at a time; a multiple of every tile
    FEW_ROWS = 8            # up to which packing does not pay
    WORK_A_THREAD = 1 << 15     # multiplications that are worth waking a thread

cdef struct Product:
    Py_ssize_t m
    Py_ssize_t n
    Py_ssize_t k
    const float* x
    Py_ssize_t ldx
    const float* w
    Py_ssize_t ldw
    const float* bias
    float* y
    Py_ssize_t ldy
    rl_gemm kernels
    int status


cdef inline Py_ssize_t share(Py_ssize_t n, Py_ssize_t unit, int thread, int threads) noexcept nogil:
    # Where a thread's share of n begins, in whole units.
    cdef Py_ssize_t units = (n + unit - 1) // unit
    return min(n, units * thread // threads * unit)


cdef void multiply(void* context, int thread, int threads) noexcept nogil:
    cdef Product* p = <Product*>context
    cdef Py_ssize_t first_row = 0, last_row = p.m, first = 0, last = p.n
    cdef Py_ssize_t i, j
    if p.m // p.kernels.rows > p.n // p.kernels.cols and p.m > FEW_ROWS:
        first_row = share(p.m, p.kernels.rows, thread, threads)
        last_row = share(p.m, p.kernels.rows, thread + 1, threads)
    else:
        first = share(p.n, p.kernels.cols, thread, threads)
        last = share(p.n, p.kernels.cols, thread + 1, threads)
    if first_row == last_row or first == last:
        return
    if p.k == 0:
        for i in range(first_row, last_row):
            for j in range(first, last):
                p.y[i * p.ldy + j] = 0.0
    elif p.m <= FEW_ROWS:
        i = 0
        while i < p.m:
            p.kernels.dots(
                p.k, p.x + i * p.ldx, p.ldx, <int>min(<Py_ssize_t>RL_DOT_ROWS, p.m - i),
                p.w + first * p.ldw, p.ldw, last - first, p.y + i * p.ldy + first, p.ldy)
            i += RL_DOT_ROWS
    elif multiply_packed(p, first_row, last_row, first, last) < 0:
        rl_store(&p.status, NO_MEMORY)
        return
    if p.bias != NULL:
        for i in range(first_row, last_row):
            for j in range(first, last):
                p.y[i * p.ldy + j] += p.bias[j]


cdef int multiply_packed(
    Product* p, Py_ssize_t first_row, Py_ssize_t last_row, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef int rows = p.kernels.rows, cols = p.kernels.cols
    cdef Py_ssize_t depth = min(p.k, <Py_ssize_t>K_BLOCK)
    cdef Py_ssize_t height = min((last_row - first_row + rows - 1) // rows * rows,
                                 <Py_ssize_t>ROW_BLOCK)
    cdef Py_ssize_t width = min((last - first + cols - 1) // cols * cols, <Py_ssize_t>COLUMN_BLOCK)
    cdef float* block = <float*>malloc(
        (depth * (height + width) + RL_MAX_TILE_ROWS * RL_MAX_TILE_COLS + 16) * sizeof(float))
    cdef float* a
    cdef float* b
    cdef float* edge
    cdef Py_ssize_t column, end, k, kk, row, bottom, i, j
    if block is NULL:
        return NO_MEMORY
    # Panels begin at a cache line.
    a = <float*>((<size_t>block + 63) & ~<size_t>63)
    b = a + depth * height
    edge = b + depth * width
    column = first
    while column < last:
        end = min(column + width, last)
        k = 0
        while k < p.k:
            kk = min(depth, p.k - k)
            j = column
            while j < end:
                rl_panel(p.w + j * p.ldw + k, p.ldw, <int>min(<Py_ssize_t>cols, last - j), cols, kk,
                         b + (j - column) * kk)
                j += cols
            row = first_row
            while row < last_row:
                bottom = min(row + height, last_row)
                i = row
                while i < bottom:
                    rl_panel(p.x + i * p.ldx + k, p.ldx, <int>min(<Py_ssize_t>rows, last_row - i),
                             rows, kk, a + (i - row) * kk)
                    i += rows
                j = column
                while j < end:
                    i = row
                    while i < bottom:
                        put_tile(p, kk, a + (i - row) * kk, b + (j - column) * kk, edge,
                                 <int>min(<Py_ssize_t>rows, last_row - i),
                                 <int>min(<Py_ssize_t>cols, last - j),
                                 p.y + i * p.ldy + j, k > 0)
                        i += rows
                    j += cols
                row += height
            k += depth
        column += width
    free(block)
    return OK


cdef inline void put_tile(
    Product* p, Py_ssize_t k, const float* a, const float* b, float* edge, int n_rows, int n_cols,
    float* y, bint add
) noexcept nogil:
    cdef int r
    if n_rows == p.kernels.rows and n_cols == p.kernels.cols:
        p.kernels.tile(k, a, b, y, p.ldy, add)
        return
    # A tile that sticks out is made beside and its part copied.
    if add:
        for r in range(n_rows):
            memcpy(edge + r * p.kernels.cols, y + r * p.ldy, n_cols * sizeof(float))
    p.kernels.tile(k, a, b, edge, p.kernels.cols, add)
    for r in range(n_rows):
        memcpy(y + r * p.ldy, edge + r * p.kernels.cols, n_cols * sizeof(float))


cdef int gemm(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const float* x, Py_ssize_t ldx, const float* w,
    Py_ssize_t ldw, const float* bias, float* y, Py_ssize_t ldy, int threads
) noexcept nogil:
    cdef Product p
    p.m = m
    p.n = n
    p.k = k
    p.x = x
    p.ldx = ldx
    p.w = w
    p.ldw = ldw
    p.bias = bias
    p.y = y
    p.ldy = ldy
    p.status = OK
    rl_gemm_kernels(simd_level(), &p.kernels)
    if m == 0 or n == 0:
        return OK
    while threads > 1 and <double>m * n * k < <double>WORK_A_THREAD * threads:
        threads -= 1
    run_team(multiply, &p, threads)
    return p.status


def product(const float[:, :] x, const float[:, :] w, const float[::1] bias, float[:, :] out,
            int threads=1):
    """Write `x` times the transpose of `w`, plus `bias`, to `out`.

    Parameters
    ----------
    x : float32 [m, k]
        Rows of neighbours; any distance between rows.
    w : float32 [n, k]
        The same.
    bias : float32 [n] or None
    out : float32 [m, n]
        The same; shares no memory with the others.
    threads : int
    """
    cdef Py_ssize_t m = x.shape[0], n = w.shape[0], k = x.shape[1]
    cdef int status
    if w.shape[1] != k or out.shape[0] != m or out.shape[1] != n:
        raise ValueError("the shapes do not fit together")
    if bias is not None and bias.shape[0] != n:
        raise ValueError("the bias does not fit")
    if (k > 1 and (x.strides[1] != 4 or w.strides[1] != 4)) or (n > 1 and out.strides[1] != 4):
        raise ValueError("neighbours in a row must lie side by side")
    for stride in (x.strides[0], w.strides[0], out.strides[0]):
        if stride % 4:
            raise ValueError("rows must be a whole number of floats apart")
    if m == 0 or n == 0:
        return
    cdef const float* offsets = NULL
    if bias is not None and n:
        offsets = &bias[0]
    cdef const float* from_x = &x[0, 0] if k else NULL
    cdef const float* from_w = &w[0, 0] if k else NULL
    with nogil:
        status = gemm(m, n, k, from_x, x.strides[0] // 4, from_w, w.strides[0] // 4, offsets,
                      &out[0, 0], out.strides[0] // 4, threads)
    check(status, "no memory for the product's panels")

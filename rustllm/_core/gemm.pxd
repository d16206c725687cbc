# Products of float32 matrices: y[m][n] = x[m][k] times w[n][k], transposed.

cdef extern from "gemm_f32.h" nogil:
    enum:
        RL_MAX_TILE_ROWS
        RL_MAX_TILE_COLS
        RL_DOT_ROWS
    ctypedef void (*rl_tile_fn)(Py_ssize_t, const float*, const float*, float*, Py_ssize_t,
                                int) noexcept nogil
    ctypedef void (*rl_dots_fn)(Py_ssize_t, const float*, Py_ssize_t, int, const float*, Py_ssize_t,
                                Py_ssize_t, float*, Py_ssize_t) noexcept nogil
    ctypedef struct rl_gemm:
        int rows
        int cols
        rl_tile_fn tile
        rl_dots_fn dots
    void rl_gemm_kernels(int, rl_gemm*) noexcept
    void rl_panel(const float*, Py_ssize_t, int, int, Py_ssize_t, float*) noexcept
    void rl_panel_of_rows(const float*, Py_ssize_t, int, int, Py_ssize_t, float*) noexcept

# Rows are contiguous and `ld*` floats apart. 0, or a negative status.
cdef int gemm(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const float* x, Py_ssize_t ldx, const float* w,
    Py_ssize_t ldw, const float* bias, float* y, Py_ssize_t ldy, int threads
) noexcept nogil

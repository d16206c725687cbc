# Packed weights and the linear kernels over them.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint8_t

cdef extern from "packed.h" nogil:
    ctypedef struct rl_matrix:
        int32_t type
        int32_t n_rows
        int32_t n_cols
        int32_t n_blocks
        int32_t ahead
        int32_t fine
        int64_t group_bytes
        const uint8_t* data

    int rl_is_float(int) noexcept

cdef extern from "activations.h" nogil:
    enum:
        RL_ACT_INT8
        RL_ACT_FLOAT

# The kernels are compiled into this module alone; others take pointers to them.
ctypedef void (*mm_fn)(const rl_matrix*, int32_t, int32_t, const uint8_t*, float*, ptrdiff_t,
                       const float*) noexcept nogil
ctypedef void (*quantize_fn)(const float*, int, uint8_t*, int, int) noexcept nogil
ctypedef void (*row_fn)(const rl_matrix*, int32_t, float*) noexcept nogil

cdef struct LinearKernels:
    mm_fn int8[4]               # for tiles of 1, 2, 4 and 8 tokens
    mm_fn floats[4]
    quantize_fn quantize
    quantize_fn lay_out         # the float counterpart of `quantize`
    quantize_fn quantize_fine   # into two columns
    row_fn row                  # one row in float32

cdef void linear_kernels(int level, LinearKernels* out) noexcept nogil


# Width of the tile that starts at token `c` of `n`: 8 while there are 8, then 4, 2, 1.
cdef inline int tile_width(int n, int c) noexcept nogil:
    cdef int left = n - c
    return 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1


# First token of the tile that holds token `c` of `n`.
cdef inline int tile_start(int n, int c) noexcept nogil:
    cdef int start = n & ~7
    if c < start:
        return c & ~7
    if n & 4:
        if c < start + 4:
            return start
        start += 4
    if n & 2:
        if c < start + 2:
            return start
        start += 2
    return start


cdef inline int log2_width(int width) noexcept nogil:
    return 3 if width == 8 else 2 if width == 4 else 1 if width == 2 else 0


cdef class PackedMatrix:
    cdef rl_matrix matrix
    cdef object owner       # keeps the packed bytes alive
    cdef object source      # the file's bytes, until packed
    cdef const uint8_t* source_data
    cdef size_t row_bytes
    cdef bint mapped        # whether the source's pages may be let go

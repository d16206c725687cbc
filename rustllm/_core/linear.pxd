# Packed weights and the linear kernels over them.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint8_t

cdef extern from "linear.h" nogil:
    ctypedef struct rl_matrix:
        int32_t type
        int32_t n_rows
        int32_t n_cols
        int32_t n_blocks
        int64_t group_bytes
        int64_t scale_offset
        const uint8_t* data

    ctypedef void (*rl_mm_fn)(const rl_matrix*, int32_t, int32_t, const uint8_t*, float*, ptrdiff_t,
                              const float*) noexcept nogil
    ctypedef void (*rl_quantize_fn)(const float*, int, uint8_t*, int, int) noexcept nogil

    ctypedef void (*rl_residual_fn)(const float*, int, const uint8_t*, int, int, float*) noexcept nogil

    enum:
        RL_GROUP
        RL_BLOCK
        RL_ACT_INT8
        RL_ACT_FLOAT

    int rl_is_float(int) noexcept
    int rl_matrix_layout(rl_matrix*, int, int32_t, int32_t) noexcept
    size_t rl_file_block_bytes(int, int*) noexcept
    void rl_pack_group(const rl_matrix*, const uint8_t*, size_t, int, uint8_t*) noexcept
    void rl_row_portable(const rl_matrix*, int32_t, float*) noexcept
    rl_mm_fn rl_mm_kernel(int, int, int) noexcept
    rl_quantize_fn rl_quantize_kernel(int, int) noexcept
    rl_residual_fn rl_residual_kernel(int) noexcept


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

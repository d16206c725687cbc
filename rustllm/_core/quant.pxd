# Block formats: sizes, and rows of blocks from and to float32. Ids are GGUF's.

from libc.stdint cimport uint8_t, uint16_t

cpdef enum BlockType:
    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ4_NL = 20
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    BF16 = 30

# Elements and bytes of one block; 0 for an unknown id.
cdef Py_ssize_t block_elements(int type_id) noexcept nogil
cdef Py_ssize_t block_bytes(int type_id) noexcept nogil

# Bytes of `n` elements; -1 for an unknown id or when `n` is not a whole number of blocks.
cdef Py_ssize_t row_bytes(int type_id, Py_ssize_t n) noexcept nogil

# `n` elements at `src` (any address) to float32. 0, or BAD_ARGUMENT when row_bytes(...) is -1.
cdef int dequantize_row(int type_id, const uint8_t* src, float* dst, Py_ssize_t n) noexcept nogil

# `n` float32 to blocks. `weights` (how much each element matters) may be NULL; only types with a
# searched scale look at it. 0, BAD_ARGUMENT (type, or not whole blocks), OUT_OF_RANGE (a scale
# overflows float16) or NOT_FINITE.
cdef int quantize_row(
    int type_id, const float* src, const float* weights, uint8_t* dst, Py_ssize_t n
) noexcept nogil

# Index of the first block (value, of a plain type) that is not finite; -1 if all are.
cdef Py_ssize_t first_bad_block(int type_id, const uint8_t* src, Py_ssize_t blocks) noexcept nogil

cdef float f16_to_f32(uint16_t value) noexcept nogil
cdef uint16_t f32_to_f16(float value) noexcept nogil

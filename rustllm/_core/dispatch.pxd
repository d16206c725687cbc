# The one choice of instruction set, made when the module is imported.

cpdef enum Level:
    SCALAR = 0
    AVX2 = 1
    AVX512 = 2
    NEON = 3
    DOTPROD = 4

cdef int simd_level() noexcept nogil
cdef bint has_bf16() noexcept nogil

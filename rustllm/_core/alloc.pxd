# The one table through which every block of C memory of the allocators comes and goes.

# `n_bytes` (0 counts as 1) aligned to `align`, a power of two; NULL when memory is exhausted.
cdef void* mem_alloc(size_t n_bytes, size_t align) noexcept nogil

# Give back what mem_alloc(n_bytes, ...) returned; NULL is ignored.
cdef void mem_free(void* data, size_t n_bytes) noexcept nogil

# `value` rounded up to a multiple of `align`, a power of two; 0 when that overflows.
cdef size_t align_up(size_t value, size_t align) noexcept nogil

# Whether `align` is a power of two up to 4096.
cdef bint is_alignment(size_t align) noexcept nogil

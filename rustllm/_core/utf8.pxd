# UTF-8 validation at the processor's vector width, for nogil code.

from libc.stdint cimport uint8_t

# Offset of the first byte of the first bad sequence, or n when all is valid.
cdef size_t utf8_valid_up_to(const uint8_t* data, size_t n) noexcept nogil
# The same one byte at a time, for tests.
cdef size_t utf8_valid_up_to_ref(const uint8_t* data, size_t n) noexcept nogil
cdef bint is_ascii_bytes(const uint8_t* data, size_t n) noexcept nogil
# Characters in valid UTF-8.
cdef size_t utf8_count(const uint8_t* data, size_t n) noexcept nogil

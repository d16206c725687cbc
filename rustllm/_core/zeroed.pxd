# Large zeroed memory straight from the system.

from libc.stdint cimport int64_t, uint8_t

cdef class ZeroedMemory:
    cdef uint8_t* data
    cdef readonly int64_t n_bytes
    cdef readonly object mapping
    cdef int64_t used       # of a region that is larger than what it was made for
    cdef int _left

# Large zeroed memory straight from the system.

from libc.stdint cimport int64_t, uint8_t

cdef class ZeroedMemory:
    cdef uint8_t* data
    cdef readonly object mapping

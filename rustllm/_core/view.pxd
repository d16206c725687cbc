# Slices of memory that belongs to somebody else.

from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint8_t

# Keeps the memory that views look at, and its export, alive.
cdef class ViewSource:
    cdef readonly object owner
    cdef Py_buffer _buffer
    cdef bint _has_buffer
    cdef const uint8_t* data
    cdef Py_ssize_t n_bytes

cdef class ByteView:
    cdef ViewSource _source
    cdef const uint8_t* data        # never NULL; valid while the view lives
    cdef Py_ssize_t n_bytes
    cdef Py_hash_t _hash            # -1: not computed yet
    cdef Py_ssize_t _shape[1]
    cdef Py_ssize_t _strides[1]
    cdef object __weakref__

# Content that is known to be UTF-8.
cdef class TextSlice(ByteView):
    pass

# A view of `n_bytes` from `data` on, of the class of `parent` and keeping the same memory. The
# caller knows that the part lies inside `parent`, and (of text) begins and ends between characters.
cdef ByteView part_of(ByteView parent, const uint8_t* data, Py_ssize_t n_bytes)

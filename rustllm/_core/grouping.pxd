# Groups of consecutive items of any iterator, as tuples.

cpdef enum Last:
    DROP = 0
    KEEP = 1
    PAD = 2

cdef class TupleGroups:
    cdef object _source
    cdef object _fill
    cdef tuple _previous
    cdef Py_ssize_t _size
    cdef Py_ssize_t _stride
    cdef Last _last
    cdef bint _running
    cdef tuple _pull(self)
    cdef tuple _finish(self, list items, Py_ssize_t n_kept)

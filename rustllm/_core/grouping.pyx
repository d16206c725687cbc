"""Groups of consecutive items of any iterator, as tuples: windows, chunks and what lies between.

Group `i` begins at item ``i * stride`` and has `size` items, so that ``stride < size`` overlaps and
``stride > size`` leaves items out. Exactly the items a group needs are pulled when it is asked for.
"""

from cpython.list cimport PyList_AsTuple
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF, Py_XINCREF
from cpython.tuple cimport PyTuple_New

cdef extern from "Python.h":
    PyObject* PyIter_Next(object iterator) except? NULL
    PyObject* PyTuple_GET_ITEM(object group, Py_ssize_t index) noexcept
    # Takes over the caller's reference, which is why it is declared with a bare pointer.
    void steal "PyTuple_SET_ITEM"(object group, Py_ssize_t index, PyObject* item) noexcept

# Above this a group is gathered in a list first, so that memory follows what the source has and not
# what the caller asked for.
cdef Py_ssize_t LARGE = 4096


cdef class TupleGroups:
    def __init__(self, source, Py_ssize_t size, Py_ssize_t stride, int last, fill=None):
        if size < 1 or stride < 1:
            raise ValueError("size and stride must be at least 1")
        self._source = iter(source)
        self._size = size
        self._stride = stride
        self._last = <Last>last
        self._fill = fill
        self._previous = None
        self._running = False

    def __iter__(self):
        return self

    def __next__(self):
        cdef tuple group
        if self._source is None:
            raise StopIteration
        if self._running:
            raise ValueError("the source asked for the group that it is part of")
        self._running = True
        try:
            group = self._pull()
        except BaseException:
            self._source = None
            self._previous = None
            raise
        finally:
            self._running = False
        if group is None:
            self._source = None
            self._previous = None
            raise StopIteration
        return group

    cdef tuple _pull(self):
        """Return the next group, or None at the end; a short last group ends the source."""
        cdef Py_ssize_t n_kept = 0, n = 0, i, _i
        cdef PyObject* item
        cdef tuple group
        cdef list items
        if self._previous is not None:
            for _i in range(self._stride - self._size):
                item = PyIter_Next(self._source)
                if item is NULL:
                    return None
                Py_XDECREF(item)
            n_kept = max(self._size - self._stride, 0)
        if self._size > LARGE:
            items = [] if n_kept == 0 else list(self._previous[self._size - n_kept:])
            while len(items) < self._size:
                item = PyIter_Next(self._source)
                if item is NULL:
                    return self._finish(items, n_kept)
                items.append(<object>item)
                Py_XDECREF(item)
            group = PyList_AsTuple(items)
            self._previous = group
            return group
        group = PyTuple_New(self._size)
        while n < n_kept:
            item = PyTuple_GET_ITEM(self._previous, self._size - n_kept + n)
            Py_XINCREF(item)
            steal(group, n, item)
            n += 1
        while n < self._size:
            item = PyIter_Next(self._source)
            if item is NULL:
                items = []
                for i in range(n):
                    items.append(<object>PyTuple_GET_ITEM(group, i))
                return self._finish(items, n_kept)
            steal(group, n, item)
            n += 1
        self._previous = group
        return group

    cdef tuple _finish(self, list items, Py_ssize_t n_kept):
        """Make the short last group of `items`, whose first `n_kept` were in the one before."""
        if len(items) == n_kept or self._last == DROP:
            return None
        if self._last == PAD:
            items.extend([self._fill] * (self._size - len(items)))
        # The next call finds an exhausted source.
        self._source = iter(())
        self._previous = None
        return PyList_AsTuple(items)

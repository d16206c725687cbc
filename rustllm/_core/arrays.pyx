"""Arrays over memory that is there already, through numpy's C interface.

A module of its own, imported when the first array is asked for: what only needs memory does not
load numpy.
"""

cimport numpy as cnp
from cpython.buffer cimport Py_buffer
from cpython.ref cimport Py_INCREF, PyTypeObject

cdef extern from "Python.h":
    Py_buffer* PyMemoryView_GET_BUFFER(object view)

cdef extern from "numpy/arrayobject.h":
    PyTypeObject PyArray_Type
    object PyArray_NewFromDescr(PyTypeObject* subtype, cnp.dtype descr, int nd,
                                const cnp.npy_intp* dims, const cnp.npy_intp* strides, void* data,
                                int flags, object obj)

cnp.import_array()

cdef enum:
    MAX_DIMENSIONS = 32
    MAX_NAMES = 64

# What callers write for a dtype, by name; emptied when it is full.
cdef dict _named = {}


def plain_dtype(dtype):
    """The numpy dtype that `dtype` names, refusing with None what cannot live outside Python."""
    cdef cnp.dtype found
    if isinstance(dtype, cnp.dtype):
        found = dtype
    elif isinstance(dtype, str) and dtype in _named:
        return _named[dtype]
    else:
        found = cnp.dtype(dtype)
    if found.hasobject or found.subdtype is not None or found.itemsize == 0:
        return None
    if isinstance(dtype, str):
        if len(_named) >= MAX_NAMES:
            _named.clear()
        _named[dtype] = found
    return found


def view_of(memory, tuple shape not None, cnp.dtype dtype not None):
    """A C-contiguous writable array over the beginning of `memory`, which it keeps alive.

    Parameters
    ----------
    memory : memoryview
        Contiguous and writable, at least as large as the array.
    shape : tuple of int
        At most 32, none negative, whose product fits into memory.
    dtype : numpy.dtype
    """
    cdef Py_buffer* view
    cdef cnp.npy_intp dims[MAX_DIMENSIONS]
    cdef int n = <int>len(shape), i
    cdef Py_ssize_t room
    if not isinstance(memory, memoryview):
        raise TypeError("memory must be a memoryview")
    view = PyMemoryView_GET_BUFFER(memory)
    if n > MAX_DIMENSIONS or view.readonly or not memory.c_contiguous:
        raise ValueError("not a writable block for such an array")
    room = view.len // dtype.itemsize
    for i in range(n):
        dims[i] = shape[i]
        if dims[i] < 0:
            raise ValueError("a negative dimension")
        # An array with no item takes no room, whatever its other dimensions.
        room = room // dims[i] if dims[i] else 1 << 62
    if room < 1:
        raise ValueError("the memory is too small")
    Py_INCREF(dtype)    # which the call takes over
    array = PyArray_NewFromDescr(&PyArray_Type, dtype, n, dims, NULL, view.buf,
                                 cnp.NPY_ARRAY_CARRAY, None)
    cnp.set_array_base(array, memory)
    return array

"""Large zeroed memory straight from the system: a page takes room once it is written."""

import mmap

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer


cdef class ZeroedMemory:
    """Private memory of a cache or of packed weights, freed with the object.

    Parameters
    ----------
    n_bytes : int
    purpose : str
        What it is for, for the error message.
    huge : bool
        Ask for huge pages where the system has them.

    Raises
    ------
    MemoryError
        The address space cannot be had.
    """

    def __cinit__(self, n_bytes, str purpose, bint huge=False):
        cdef Py_buffer view
        flags = {}
        if hasattr(mmap, "MAP_PRIVATE"):
            flags["flags"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            self.mapping = mmap.mmap(-1, n_bytes, **flags)
        except (OSError, OverflowError) as error:
            raise MemoryError(f"{n_bytes} bytes for {purpose}: {error}") from error
        if huge and hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                self.mapping.madvise(mmap.MADV_HUGEPAGE)
            except OSError:
                pass  # a kernel without huge pages
        PyObject_GetBuffer(self.mapping, &view, PyBUF_SIMPLE)
        self.data = <uint8_t*>view.buf
        # The address outlives the view: this object owns the mapping and nobody closes it.
        PyBuffer_Release(&view)

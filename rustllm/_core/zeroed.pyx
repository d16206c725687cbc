"""Large zeroed memory straight from the system: a page takes room once it is written."""

import mmap

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from "atomics.h" nogil:
    int rl_load(const int*) noexcept
    void rl_store(int*, int) noexcept
    int rl_fetch_add(int*, int) noexcept

cdef enum:
    PAGE = 4096


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
        self.n_bytes = n_bytes
        self.used = 0
        # The address outlives the view: this object owns the mapping and nobody closes it.
        PyBuffer_Release(&view)

    def touch(self, int64_t n_bytes):
        """Take possession of the first `n_bytes`, until :meth:`leave` is called.

        Pages of a virtual machine that come from its host take two microseconds each, which is most
        of the time to load a model. Another thread may write there at the same time.
        """
        cdef int64_t at = 0
        n_bytes = min(n_bytes, self.n_bytes)
        with nogil:
            # Touched page by page: asking for many at once (MADV_POPULATE_WRITE) holds the lock of
            # the address space meanwhile, and every library that is being imported waits for it.
            while at < n_bytes and not rl_load(&self._left):
                rl_fetch_add(<int*>(self.data + at), 0)
                at += PAGE

    def leave(self):
        """End :meth:`touch` in another thread."""
        rl_store(&self._left, 1)

    def give_back_unused(self):
        """Let go of pages that were touched beyond what is used."""
        start = -(-self.used // mmap.PAGESIZE) * mmap.PAGESIZE
        if start < self.n_bytes and hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED, start, self.n_bytes - start)

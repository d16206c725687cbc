"""The one table through which every block of C memory of the allocators comes and goes.

It counts what is held, so that a leak shows as a number, and it can be told to fail, so that the
path after a failed allocation is tested like any other.
"""

from collections import namedtuple

from libc.stdint cimport int64_t

cdef extern from "alloc.h" nogil:
    int RL_POISONING
    void* rl_aligned_alloc(size_t n, size_t align) noexcept
    void rl_aligned_free(void* data) noexcept
    int64_t rl_atomic_add(int64_t* cell, int64_t n) noexcept
    int64_t rl_atomic_get(int64_t* cell) noexcept
    void rl_atomic_set(int64_t* cell, int64_t value) noexcept

cdef int64_t _n_blocks = 0
cdef int64_t _n_bytes = 0
cdef int64_t _n_allocations = 0

# While armed, `_n_before` counts down; below zero an allocation fails, `_n_failing` times.
cdef int64_t _armed = 0
cdef int64_t _n_before = 0
cdef int64_t _n_failing = 0

POISONING = bool(RL_POISONING)
MAX_ALIGN = 4096

HeapStats = namedtuple("HeapStats", ["n_blocks", "n_bytes", "n_allocations"])
HeapStats.__doc__ = """Memory that the allocators hold from the system.

Attributes
----------
n_blocks, n_bytes : int
    Held now.
n_allocations : int
    Made since the module was imported.
"""


cdef bint _must_fail() noexcept nogil:
    if rl_atomic_add(&_n_before, -1) >= 0:
        return False
    return rl_atomic_add(&_n_failing, -1) >= 0


cdef void* mem_alloc(size_t n_bytes, size_t align) noexcept nogil:
    if rl_atomic_get(&_armed) and _must_fail():
        return NULL
    cdef void* data = rl_aligned_alloc(n_bytes, align)
    if data != NULL:
        rl_atomic_add(&_n_blocks, 1)
        rl_atomic_add(&_n_bytes, <int64_t> n_bytes)
        rl_atomic_add(&_n_allocations, 1)
    return data


cdef void mem_free(void* data, size_t n_bytes) noexcept nogil:
    if data == NULL:
        return
    rl_atomic_add(&_n_blocks, -1)
    rl_atomic_add(&_n_bytes, -(<int64_t> n_bytes))
    rl_aligned_free(data)


cdef size_t align_up(size_t value, size_t align) noexcept nogil:
    cdef size_t rounded = value + (align - 1)
    return 0 if rounded < value else rounded & ~(align - 1)


cdef bint is_alignment(size_t align) noexcept nogil:
    return align - 1 < 4096 and (align & (align - 1)) == 0


def heap_stats():
    """Memory that arenas, pools and other C allocations of the library hold now.

    Returns
    -------
    HeapStats
        ``(n_blocks, n_bytes, n_allocations)``.

    Examples
    --------
    >>> from rustllm._core.alloc import heap_stats
    >>> heap_stats().n_bytes >= 0
    True
    """
    return HeapStats(
        rl_atomic_get(&_n_blocks), rl_atomic_get(&_n_bytes), rl_atomic_get(&_n_allocations)
    )


cdef class fail_after:
    """Let allocations fail after `n` more have succeeded, to test what happens then.

    Parameters
    ----------
    n : int
        How many succeed first.
    times : int, optional
        How many fail then; by default all, until the block ends.

    Attributes
    ----------
    n_failed : int
        After the block: how many failed.

    Notes
    -----
    Counts the allocations of the whole process that go through this table (the arenas and pools of
    every thread), not those of Python's objects; one block at a time.

    Examples
    --------
    >>> from rustllm import Arena
    >>> from rustllm._core.alloc import fail_after
    >>> with fail_after(0):
    ...     try:
    ...         Arena().alloc(64)
    ...     except MemoryError as error:
    ...         print(type(error).__name__)
    OutOfMemoryError
    """

    cdef int64_t _n
    cdef int64_t _times
    cdef readonly int64_t n_failed

    def __init__(self, n, times=None):
        self._n = n
        self._times = (<int64_t> 1) << 60 if times is None else times

    def __enter__(self):
        rl_atomic_set(&_n_before, self._n)
        rl_atomic_set(&_n_failing, self._times)
        rl_atomic_set(&_armed, 1)
        return self

    def __exit__(self, kind, error, traceback):
        rl_atomic_set(&_armed, 0)
        cdef int64_t left = rl_atomic_get(&_n_failing)
        self.n_failed = self._times - (left if left > 0 else 0)

# Counts of pretokens, gathered by several threads: hash tables with the short keys inside.

cimport cython
from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport int64_t, uint8_t, uint64_t


# A pretoken of at most 15 bytes is its own key, its length in the last byte. A longer one keeps its
# place in `bytes`, its length and 16 bits of its hash there, and 0xFF in the last byte.
cdef struct CountSlot:
    uint8_t key[16]
    int64_t count                      # 0: the slot is free


cdef struct CountTable:
    CountSlot* slots
    uint64_t mask
    uint64_t n_used
    uint8_t* bytes
    uint64_t n_bytes
    uint64_t bytes_capacity


cdef struct CountEntry:
    const uint8_t* data
    uint64_t length
    int64_t count


cdef enum:
    N_SHARDS = 32


@cython.final
cdef class PretokenCounts:
    cdef CountTable shards[N_SHARDS]
    cdef PyThread_type_lock locks[N_SHARDS]

    cdef int take_all(self, CountTable* table, uint64_t first_shard) noexcept nogil
    cdef int _take(
        self, CountTable* target, const CountTable* table, const CountSlot* slot
    ) noexcept nogil
    cdef int add(self, const uint8_t* data, uint64_t n, int64_t count) noexcept nogil


@cython.final
cdef class CountingThread:
    cdef PretokenCounts shared
    cdef CountTable table
    cdef int splitter
    cdef uint64_t first_shard

    cdef int count_text(self, const uint8_t* text, Py_ssize_t n, bint by_line) noexcept nogil
    cdef int _count_span(
        self, const uint8_t* text, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t readable
    ) noexcept nogil

"""N-grams of tokens, counted in memory of rustllm."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memset

import rustllm.memory  # no-cython-lint: loads the classes that failures are raised as

from rustllm._core.arena cimport Arena, ArenaMark
from rustllm._core.pool cimport Lease, TokenBlock, TokenPool
from rustllm._core.status cimport LIMIT_REACHED, NO_MEMORY, OK, check

cdef struct Slot:
    size_t first            # where the n-gram occurs first, plus one; 0 is an empty slot
    size_t count

# Scratch and results are shared by all calls; the GIL keeps calls apart.
cdef Arena _arena = Arena(chunk_size=1 << 20)
cdef TokenPool _pool = TokenPool()


cdef Slot* _find(Slot* table, size_t mask, const uint32_t* ids, size_t at, size_t n) noexcept nogil:
    """The slot of the n-gram at `at`, or the empty one where it belongs."""
    cdef uint64_t key = 0xCBF29CE484222325u
    cdef size_t i
    for i in range(n):
        key = (key ^ ids[at + i]) * 0x9E3779B97F4A7C15u
        key ^= key >> 29
    i = key & mask
    while table[i].first and memcmp(&ids[table[i].first - 1], &ids[at], n * sizeof(uint32_t)):
        i = (i + 1) & mask
    return &table[i]


cdef int _count(
    const uint32_t* ids, size_t n_ids, size_t n, Slot** result, size_t* n_slots
) noexcept nogil:
    """Count all n-grams in a table from the arena."""
    cdef size_t size = 16
    cdef size_t at
    cdef Slot* table
    cdef Slot* slot
    while size < 2 * n_ids:
        size *= 2
    table = <Slot*> _arena.alloc_raw(size * sizeof(Slot), 64)
    if table == NULL:
        return NO_MEMORY
    memset(table, 0, size * sizeof(Slot))
    for at in range(n_ids - n + 1 if n_ids >= n else 0):
        slot = _find(table, size - 1, ids, at, n)
        if not slot.first:
            slot.first = at + 1
        slot.count += 1
    result[0] = table
    n_slots[0] = size
    return OK


cdef Lease _as_tokens(ids):
    cdef TokenBlock* block = _pool.take(len(ids))
    if block == NULL:
        check(LIMIT_REACHED, "no room for the tokens")
    cdef Lease lease = _pool.lease_block(block, len(ids))
    for i, token in enumerate(ids):
        block.data[i] = token
    return lease


def count_ngrams(ids, size_t n):
    """How often each sequence of `n` tokens occurs: a dictionary from tuples to counts."""
    if n == 0:
        raise ValueError("n must be at least 1")
    cdef Lease lease = _as_tokens(ids)
    cdef const uint32_t* data = lease._block.data
    cdef size_t n_ids = len(lease)
    cdef Slot* table
    cdef size_t n_slots, i, k
    cdef ArenaMark mark = _arena.mark_raw()
    cdef int status
    try:
        with nogil:
            status = _count(data, n_ids, n, &table, &n_slots)
        check(status, "no memory for the table")
        counts = {}
        for i in range(n_slots):
            if table[i].first:
                key = tuple([data[table[i].first - 1 + k] for k in range(n)])
                counts[key] = table[i].count
        return counts
    finally:
        _arena.rollback_raw(mark)


def repeated(ids, size_t times):
    """The tokens over and over, as a lease of the pool: it grows by as much as it needs."""
    cdef Lease source = _as_tokens(ids)
    cdef size_t n = len(source)
    cdef size_t used = 0
    cdef size_t i
    cdef TokenBlock* block = _pool.take(n)
    if block == NULL:
        check(LIMIT_REACHED, "no room for the tokens")
    for _ in range(times):
        if _pool.grow(&block, used + n, used) < 0:
            _pool.give(block)
            check(LIMIT_REACHED, "no room for the tokens")
        for i in range(n):
            block.data[used + i] = source._block.data[i]
        used += n
    return _pool.lease_block(block, used)

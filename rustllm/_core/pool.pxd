# Reusable uint32 buffers. Import from your own Cython:
#
#     from rustllm._core.pool cimport Lease, TokenBlock, TokenPool
#
#     cdef TokenBlock* block = pool.take(n)          # NULL: out of memory, or the pool's limit
#     ... write block.data[0 .. block.capacity) ...
#     cdef Lease lease = pool.lease_block(block, n)  # to Python, or:  pool.give(block)

from libc.stdint cimport int64_t, uint32_t

cdef enum:
    N_POOL_CLASSES = 73

cdef struct TokenBlock:
    uint32_t* data          # 64-byte aligned
    size_t capacity         # in tokens
    int size_class          # -1: too large to keep
    TokenBlock* next

cdef struct PoolCore:
    int lock
    size_t limit
    size_t max_idle
    size_t held_bytes
    size_t idle_bytes
    size_t leased_bytes
    size_t peak_bytes
    int64_t n_idle
    int64_t n_leased
    int64_t n_leases
    int64_t n_reused
    int64_t n_dropped
    int64_t n_deferred
    TokenBlock* idle[N_POOL_CLASSES]

cdef class TokenPool:
    cdef PoolCore core
    cdef object __weakref__

    # A block of at least n tokens, or NULL. Any number of threads. Its content is arbitrary.
    cdef TokenBlock* take(self, size_t n) noexcept nogil
    # The same with a status (rustllm._core.status) that says why it failed.
    cdef int try_take(self, size_t n, TokenBlock** block) noexcept nogil
    # Give a block from take() back, once. NULL is ignored.
    cdef void give(self, TokenBlock* block) noexcept nogil
    # Exchange a block for one of at least n tokens that starts with the same n_used; on failure
    # the old block stays as it is. `block[0]` may be NULL. A status.
    cdef int grow(self, TokenBlock** block, size_t n, size_t n_used) noexcept nogil
    # A lease of the first n tokens of a block from take(), which it now owns.
    cdef Lease lease_block(self, TokenBlock* block, size_t n)

cdef class Lease:
    cdef TokenPool _pool
    cdef TokenBlock* _block         # NULL once given back
    cdef Py_ssize_t _n_exports
    cdef bint _is_released
    cdef Py_ssize_t _shape[1]
    cdef Py_ssize_t _strides[1]
    cdef object __weakref__

# Keys and values of one sequence, as the attention kernels read them.

from libc.stdint cimport int64_t, uint8_t

from rustllm._core.zeroed cimport ZeroedMemory

# What a kernel needs of a cache, without the Python object.
cdef struct CacheView:
    uint8_t* data
    int64_t plane               # bytes of one head's keys, and of its values
    int n_kv_heads
    bint is_half


cdef inline void* cache_keys(const CacheView* c, int layer, int head) noexcept nogil:
    return c.data + c.plane * 2 * (<int64_t>layer * c.n_kv_heads + head)


cdef inline void* cache_values(const CacheView* c, int layer, int head) noexcept nogil:
    return c.data + c.plane * (2 * (<int64_t>layer * c.n_kv_heads + head) + 1)


cdef class KVCache:
    cdef readonly int n_layers
    cdef readonly int n_kv_heads
    cdef readonly int head_dim
    cdef readonly int padded_dim        # head_dim rounded up to 16
    cdef readonly int context           # positions that fit
    cdef readonly int capacity          # context rounded up to whole segments
    cdef readonly bint is_half
    cdef public int position            # tokens stored
    cdef ZeroedMemory memory

    cdef CacheView view(self) noexcept nogil
    cdef int64_t _plane(self) noexcept nogil

# Keys and values of one sequence, as the attention kernels read them.

from libc.stdint cimport int64_t, uint8_t

from rustllm._core.zeroed cimport ZeroedMemory

cdef enum:
    SEGMENT = 128               # positions

# What a kernel needs of a cache, without the Python object.
cdef struct CacheView:
    uint8_t** segments
    int64_t plane               # bytes of one head's keys in a segment, and of its values
    int n_kv_heads
    int kind                    # RL_KV_... of attention_portable.h


cdef inline void* cache_keys(const CacheView* c, int layer, int head, int segment) noexcept nogil:
    return c.segments[segment] + c.plane * 2 * (<int64_t>layer * c.n_kv_heads + head)


cdef inline void* cache_values(const CacheView* c, int layer, int head, int segment) noexcept nogil:
    return c.segments[segment] + c.plane * (2 * (<int64_t>layer * c.n_kv_heads + head) + 1)


# Memory of a stretch of positions, which forks share until one of them writes.
cdef class Segment:
    cdef ZeroedMemory memory
    cdef uint8_t* data
    cdef int users              # caches that hold it; counted with the GIL


cdef class KVCache:
    cdef readonly int n_layers
    cdef readonly int n_kv_heads
    cdef readonly int head_dim
    cdef readonly int padded_dim        # head_dim rounded up to 16
    cdef readonly int context           # positions that fit
    cdef readonly str dtype             # of keys and values
    cdef int kind
    cdef readonly int position          # tokens stored
    cdef list segments
    cdef uint8_t** pointers             # of `segments`, with room for the whole context

    cdef CacheView view(self) noexcept nogil
    cdef int64_t _plane(self) noexcept nogil
    cdef int64_t _segment_bytes(self) noexcept nogil
    cdef int reserve(self, int n) except -1
    cdef void _copy_stored(self, uint8_t* source, uint8_t* target, int n) noexcept nogil
    cdef int _drop(self, int n) except -1

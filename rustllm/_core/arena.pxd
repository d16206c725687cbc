# Bump allocation over chunks that never move. Import from your own Cython:
#
#     from rustllm._core.arena cimport Arena
#
#     cdef Arena arena = Arena(chunk_size=1 << 20)
#     cdef float* row = <float*> arena.alloc_raw(n * sizeof(float), 64)
#     if row == NULL: ...                      # out of memory, or the arena's limit
#
# Raw memory lives until the arena is reset, rolled back behind it, closed or collected; it is not
# zeroed. Keep the arena object alive, and hold a pin while another thread might reset it.

from libc.stdint cimport uint64_t

cdef struct ArenaCore
cdef struct ArenaChunk

# A position to roll back to.
cdef struct ArenaMark:
    uint64_t chunk_id
    size_t position
    uint64_t serial

cdef struct ArenaHandle:
    ArenaCore* core
    ArenaChunk* chunk       # NULL once stale
    ArenaHandle* older
    ArenaHandle* newer
    size_t address
    size_t n_bytes
    uint64_t serial
    Py_ssize_t n_exports
    int state

cdef class Arena:
    cdef ArenaCore* core
    cdef list _marks
    cdef object __weakref__

    # The fastest: `align` is a power of two up to 4096; NULL on failure, zero sizes included in
    # success. One thread at a time, and no other use of the arena meanwhile.
    cdef void* alloc_raw(self, size_t n_bytes, size_t align) noexcept nogil
    # The same under the arena's lock: any number of threads.
    cdef void* alloc_shared(self, size_t n_bytes, size_t align) noexcept nogil
    # The same with a status (rustllm._core.status) that says why it failed.
    cdef int try_alloc(self, size_t n_bytes, size_t align, void** data) noexcept nogil
    # Take everything allocated since the mark back. Memory under live views and pins is kept. A
    # status: STALE when the mark's position is gone.
    cdef ArenaMark mark_raw(self) noexcept nogil
    cdef int rollback_raw(self, ArenaMark mark) noexcept nogil
    # While n_pins > 0, no memory handed out is given back or handed out again.
    cdef void pin_raw(self) noexcept nogil
    cdef void unpin_raw(self) noexcept nogil
    # A buffer object, without the cost of a Python call.
    cdef ArenaBuffer new_buffer(self, size_t n_bytes, size_t align)

cdef class ArenaBuffer:
    cdef ArenaHandle handle
    cdef Py_ssize_t _shape[1]
    cdef Py_ssize_t _strides[1]
    cdef object __weakref__

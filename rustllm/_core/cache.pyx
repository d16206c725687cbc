"""What one thread needs to encode: a bounded cache from pretokens to ids, and scratch memory."""

from cpython.ref cimport Py_INCREF, PyObject
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from rustllm._core.bpe cimport space_free
from rustllm._core.pool cimport Lease, TokenPool
from rustllm._core.status cimport NO_MEMORY, OK

cdef extern from "pages.h" nogil:
    void* rl_pages_new(size_t n_bytes) noexcept
    void rl_pages_free(void* start, size_t n_bytes) noexcept
    void rl_pages_prefer(void* start, size_t n_bytes) noexcept

cdef size_t BLOCK_BYTES = (
    (<size_t>2 << SHORT_BITS) * sizeof(ShortEntry) + (<size_t>1 << LONG_BITS) * sizeof(LongEntry)
)

cdef enum:
    LARGE_WORDS = 1 << 20   # ids from which large pages are asked for
    KEPT_BYTES = 8 << 20    # scratch buffers beyond this are given back after a call

# Where the ids of every encoder go. A workspace keeps its block between calls; what it outgrows,
# and what results gave back, the next one takes from here. Never let go of: memory comes back also
# while the interpreter ends.
cdef TokenPool ids_pool = TokenPool(max_idle=2 * KEPT_BYTES)
Py_INCREF(ids_pool)
cdef PyObject* pool = <PyObject*>ids_pool


cdef Workspace* workspace_new() noexcept nogil:
    cdef Workspace* space = <Workspace*>calloc(1, sizeof(Workspace))
    cdef size_t lines = (<size_t>2 << SHORT_BITS) * sizeof(ShortEntry)
    if space is NULL:
        return NULL
    # Zeroed pages that nobody touched cost nothing: memory grows with what is cached.
    space.block = rl_pages_new(BLOCK_BYTES)
    space.words = <uint32_t*>malloc(LONG_WORDS * sizeof(uint32_t))
    space.ends = <uint32_t*>malloc(MAX_ENDS * sizeof(uint32_t))
    if space.block is NULL or space.words is NULL or space.ends is NULL:
        workspace_free(space)
        return NULL
    space.line = <ShortEntry*>space.block
    space.long_entry = <LongEntry*>(<uint8_t*>space.line + lines)
    space.n_words = 1
    return space


cdef void workspace_free(Workspace* space) noexcept nogil:
    if space is NULL:
        return
    rl_pages_free(space.block, BLOCK_BYTES)
    free(space.words)
    free(space.ends)
    drop_out(space)
    free(space.text)
    free(space.plain)
    space_free(&space.merge)
    free(space)


cdef void workspace_teach(Workspace* space, const Workspace* other) noexcept nogil:
    memcpy(space.block, other.block, BLOCK_BYTES)
    memcpy(space.words, other.words, other.n_words * sizeof(uint32_t))
    space.n_words = other.n_words
    space.generation = other.generation
    space.n_read = other.n_read


cdef void drop_out(Workspace* space) noexcept nogil:
    (<TokenPool>pool).give(space.ids)
    space.ids = NULL
    space.out = NULL
    space.out_room = 0


cdef int reserve_out(Workspace* space, Py_ssize_t more) noexcept nogil:
    cdef Py_ssize_t room = space.n_out + more
    if room <= space.out_room:
        return OK
    room = max(room, space.out_room + space.out_room // 2, 4096)
    if (<TokenPool>pool).grow(&space.ids, room, space.n_out) < 0:
        return NO_MEMORY
    if room > LARGE_WORDS:
        rl_pages_prefer(space.ids.data + space.n_out, (space.ids.capacity - space.n_out) * 4)
    space.out = space.ids.data
    space.out_room = space.ids.capacity
    return OK


cdef Lease lease_out(Workspace* space):
    cdef Lease lease = ids_pool.lease_block(space.ids, space.n_out)
    space.ids = NULL
    drop_out(space)
    return lease


cdef int reserve_more(Workspace* space, Py_ssize_t more) noexcept nogil:
    if space.n_out + more <= space.out_room:
        return OK
    return reserve_out(space, more + more // 8)


cdef int reserve_bytes(uint8_t** buffer, Py_ssize_t* room, Py_ssize_t n) noexcept nogil:
    if n <= room[0]:
        return OK
    free(buffer[0])
    room[0] = 0
    buffer[0] = <uint8_t*>malloc(n)
    if buffer[0] is NULL:
        return NO_MEMORY
    room[0] = n
    return OK


cdef int reserve_text(Workspace* space, Py_ssize_t n) noexcept nogil:
    return reserve_bytes(&space.text, &space.text_room, n)


cdef int grow_text(Workspace* space, Py_ssize_t n) noexcept nogil:
    cdef void* grown
    if n <= space.text_room:
        return OK
    n = max(n, space.text_room + space.text_room // 2)
    grown = realloc(space.text, n)
    if grown is NULL:
        return NO_MEMORY
    space.text = <uint8_t*>grown
    space.text_room = n
    return OK


cdef int reserve_plain(Workspace* space, Py_ssize_t n) noexcept nogil:
    return reserve_bytes(&space.plain, &space.plain_room, n)


cdef void workspace_trim(Workspace* space) noexcept nogil:
    space.n_out = 0
    if space.out_room * <Py_ssize_t>sizeof(uint32_t) > KEPT_BYTES:
        drop_out(space)
    if space.text_room > KEPT_BYTES:
        free(space.text)
        space.text = NULL
        space.text_room = 0
    if space.plain_room > KEPT_BYTES:
        free(space.plain)
        space.plain = NULL
        space.plain_room = 0
    if space.merge.room * 32 > KEPT_BYTES:
        space_free(&space.merge)

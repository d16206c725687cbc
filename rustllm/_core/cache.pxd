# What one thread needs to encode: a bounded cache from pretokens to ids, and scratch memory.
#
# Short pretokens, up to 15 bytes and 4 ids, sit inline in an entry of 32 bytes, two entries to a
# cache line; a new one pushes the older of its line out. Longer ones are hashed into a table that
# points into a buffer, both emptied when the buffer is full. Neither grows.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from rustllm._core.bpe cimport MergeSpace
from rustllm._core.pool cimport Lease, TokenBlock

cdef enum:
    SHORT_BITS = 17                 # log2 of the number of lines
    LONG_BITS = 18                  # log2 of the number of entries, four to a line
    LONG_WORDS = 4 << 20            # size of the buffer, in 32-bit words: ids, then bytes
    MAX_LONG_BYTES = 1024
    MAX_ENDS = 1024
    ID_MASK = 0x1FFFFFFF

cdef extern from "lookup.h" nogil:
    ctypedef struct ShortEntry "rl_short_entry":
        uint64_t low
        uint64_t high               # bytes 8 to 14, and the length on top
        uint32_t id[4]              # the number of ids in the top 3 bits of the first
    ctypedef struct Key "rl_key":
        uint64_t low
        uint64_t high
    int rl_make_keys(
        int level, const uint8_t* text, Py_ssize_t left, Py_ssize_t start, const uint32_t* ends,
        int many, const ShortEntry* table, int bits, Key* key, uint32_t* line, uint32_t* longs
    ) noexcept
    int rl_take_hits(
        int level, const ShortEntry* table, const Key* key, const uint32_t* line, int i, int many,
        uint32_t** ids
    ) noexcept

cdef struct LongEntry:
    uint64_t hash
    uint32_t at                     # into the buffer; 0 means empty
    uint16_t n_bytes
    uint16_t n_ids

cdef struct Workspace:
    void* block                     # one allocation behind `line` and `long_entry`
    ShortEntry* line                # [2 << SHORT_BITS]
    LongEntry* long_entry           # [1 << LONG_BITS]
    uint32_t* words                 # [LONG_WORDS]
    uint32_t n_words
    uint32_t generation             # how often the buffer was emptied
    Py_ssize_t n_read               # bytes of text that the caches have seen
    MergeSpace merge
    uint32_t* ends                  # [MAX_ENDS]
    TokenBlock* ids                 # of the pool of all encoders; holds `out`, or NULL
    uint32_t* out
    Py_ssize_t n_out
    Py_ssize_t out_room
    uint8_t* text                   # a string as UTF-8
    Py_ssize_t text_room
    uint8_t* plain                  # the same with spaces for U+2581
    Py_ssize_t plain_room

cdef Workspace* workspace_new() noexcept nogil
cdef void workspace_free(Workspace* space) noexcept nogil
# Let `space`, which knows nothing yet, know what `other` knows.
cdef void workspace_teach(Workspace* space, const Workspace* other) noexcept nogil
cdef int reserve_out(Workspace* space, Py_ssize_t more) noexcept nogil
# The same for what is only expected: an eighth more at once, or nothing.
cdef int reserve_more(Workspace* space, Py_ssize_t more) noexcept nogil
# Hand the ids in `space.out` over, without a copy; the memory returns to the pool with the lease.
cdef Lease lease_out(Workspace* space)
cdef int reserve_text(Workspace* space, Py_ssize_t n) noexcept nogil
# Room for `n` bytes of space.text, keeping what is there.
cdef int grow_text(Workspace* space, Py_ssize_t n) noexcept nogil
cdef int reserve_plain(Workspace* space, Py_ssize_t n) noexcept nogil
# Give memory back that an unusually long text took.
cdef void workspace_trim(Workspace* space) noexcept nogil

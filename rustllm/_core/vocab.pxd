# A vocabulary as two flat arrays and an open-addressing table from bytes to id. Immutable.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    void prefetch "__builtin_prefetch" (const void* place) noexcept nogil

cpdef enum:
    MAX_VOCAB = 0x1FFFFF    # ids fit in 21 bits, so that a merge fits in one 64-bit word
    NO_ID = 0x7FFFFFFF

cdef struct Vocab:
    uint32_t n              # one more than the largest id
    uint8_t* blob           # bytes of all tokens, end to end
    uint32_t* offset        # [n + 1] into blob; an id not in use has no bytes
    uint64_t* slot          # [mask + 1] upper half of the hash << 32 | id, all ones when empty
    uint64_t mask
    bint twins              # whether two ids in the table have the same bytes

cdef inline uint64_t mix(uint64_t h) noexcept nogil:
    h ^= h >> 32
    h *= <uint64_t>0xD6E8FEB86659FD93ULL
    return h ^ (h >> 32)

cdef inline uint64_t hash_bytes(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    cdef uint64_t h = <uint64_t>n * <uint64_t>0x9E3779B97F4A7C15ULL, w = 0
    cdef uint32_t a, b
    while n > 8:
        memcpy(&w, p, 8)
        h = (h ^ w) * <uint64_t>0xA0761D6478BD642FULL
        h ^= h >> 29
        p += 8
        n -= 8
    if n >= 4:
        memcpy(&a, p, 4)
        memcpy(&b, p + n - 4, 4)
        w = <uint64_t>a << 32 | b
    elif n:
        w = <uint64_t>p[0] << 16 | <uint64_t>p[n >> 1] << 8 | p[n - 1]
    h = (h ^ w) * <uint64_t>0xE7037ED1A0B428DBULL
    return mix(h)

# Id of the token with these bytes, or NO_ID. With several of the same bytes, the smallest.
cdef uint32_t vocab_find(const Vocab* vocab, const uint8_t* p, Py_ssize_t n) noexcept nogil
cdef uint32_t vocab_find_hashed(
    const Vocab* vocab, const uint8_t* p, Py_ssize_t n, uint64_t h
) noexcept nogil

# Ask for the memory that looking these bytes up reads first.
cdef inline void vocab_prefetch(const Vocab* vocab, const uint8_t* p, Py_ssize_t n) noexcept nogil:
    prefetch(vocab.slot + (hash_bytes(p, n) & vocab.mask))

# Take copies of `blob` and `offset`, whose order and bounds the caller has checked, and fill the
# table with the ids for which `listed` is NULL or not 0. A negative status on failure.
cdef int vocab_init(
    Vocab* vocab, const uint8_t* blob, const uint32_t* offset, uint32_t n, const uint8_t* listed
) noexcept nogil

cdef void vocab_free(Vocab* vocab) noexcept nogil

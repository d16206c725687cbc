"""A vocabulary as two flat arrays and an open-addressing table from bytes to id."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from rustllm._core.status cimport NO_MEMORY, OK


cdef uint32_t vocab_find(const Vocab* vocab, const uint8_t* p, Py_ssize_t n) noexcept nogil:
    return vocab_find_hashed(vocab, p, n, hash_bytes(p, n))


cdef uint32_t vocab_find_hashed(
    const Vocab* vocab, const uint8_t* p, Py_ssize_t n, uint64_t h
) noexcept nogil:
    cdef uint64_t at = h & vocab.mask, entry
    cdef uint32_t id, start
    while True:
        entry = vocab.slot[at]
        if entry == ~<uint64_t>0:
            return NO_ID
        if entry >> 32 == h >> 32:
            id = <uint32_t>entry
            start = vocab.offset[id]
            if vocab.offset[id + 1] - start == <size_t>n and memcmp(vocab.blob + start, p, n) == 0:
                return id
        at = (at + 1) & vocab.mask


cdef inline bint same_bytes(const Vocab* vocab, uint32_t a, uint32_t b) noexcept nogil:
    cdef uint32_t n = vocab.offset[a + 1] - vocab.offset[a]
    return (
        n == vocab.offset[b + 1] - vocab.offset[b]
        and memcmp(vocab.blob + vocab.offset[a], vocab.blob + vocab.offset[b], n) == 0
    )


cdef int vocab_init(
    Vocab* vocab, const uint8_t* blob, const uint32_t* offset, uint32_t n, const uint8_t* listed
) noexcept nogil:
    cdef uint64_t size = 16, h, at
    cdef uint32_t id, start
    cdef Py_ssize_t length
    while size < <uint64_t>n * 2:
        size *= 2
    vocab.n = n
    vocab.twins = False
    vocab.mask = size - 1
    vocab.blob = <uint8_t*>malloc(offset[n] + 1)
    vocab.offset = <uint32_t*>malloc((<size_t>n + 1) * sizeof(uint32_t))
    vocab.slot = <uint64_t*>malloc(size * sizeof(uint64_t))
    if vocab.blob is NULL or vocab.offset is NULL or vocab.slot is NULL:
        vocab_free(vocab)
        return NO_MEMORY
    memcpy(vocab.blob, blob, offset[n])
    memcpy(vocab.offset, offset, (<size_t>n + 1) * sizeof(uint32_t))
    memset(vocab.slot, 0xFF, size * sizeof(uint64_t))
    for id in range(n):
        start = offset[id]
        length = offset[id + 1] - start
        if length == 0 or (listed is not NULL and not listed[id]):
            continue
        h = hash_bytes(blob + start, length)
        at = h & vocab.mask
        # Equal tokens end up one after another, so that the first to come is the one found.
        while vocab.slot[at] != ~<uint64_t>0:
            if vocab.slot[at] >> 32 == h >> 32 and same_bytes(vocab, <uint32_t>vocab.slot[at], id):
                vocab.twins = True
            at = (at + 1) & vocab.mask
        vocab.slot[at] = (h >> 32) << 32 | id
    return OK


cdef void vocab_free(Vocab* vocab) noexcept nogil:
    free(vocab.blob)
    free(vocab.offset)
    free(vocab.slot)
    vocab.blob = NULL
    vocab.offset = NULL
    vocab.slot = NULL

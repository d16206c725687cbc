"""Places in a pretoken that no token reaches across: what is on either side is merged alone.

Chinese and Japanese hardly have spaces, so most of their pretokens are long and new; but few of the
pairs of characters in them are side by side in any token. Cut between the others, what is left are
a few thousand short parts, again and again.

A token that crosses a border has the last byte before it and the first byte after it. Where it has
both characters whole, it is noted under the pair of them, else under these two bytes. A pair is a
bit under a hash, so what is said to cross may not, and then there is merely no cut. Only borders
beside a character of three or four bytes are looked at: letters of an alphabet stand beside each
other in some token nearly always.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc

from rustllm._core.vocab cimport Vocab

cdef enum:
    PAIR_BITS = 20                      # log2 of the number of bits for pairs of characters
    PAIR_WORDS = 1 << (PAIR_BITS - 6)   # then 65536 bits for pairs of bytes
    WIDE = 0xE0                         # first byte of a character of three bytes, the least


cdef inline int width_at(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    # Bytes of the character that starts here; 0 if it is cut off or none starts.
    cdef int width = 1 if p[0] < 0x80 else 0 if p[0] < 0xC0 else 2 if p[0] < 0xE0 else (
        3 if p[0] < 0xF0 else 4
    )
    cdef int i
    if width > n:
        return 0
    for i in range(1, width):
        if p[i] & 0xC0 != 0x80:
            return 0
    return width


cdef inline uint64_t pair_bit(
    const uint8_t* left, int left_width, const uint8_t* right, int right_width
) noexcept nogil:
    cdef uint64_t a = 0
    cdef int i
    for i in range(left_width):
        a = a << 8 | left[i]
    for i in range(right_width):
        a = a << 8 | right[i]
    a *= <uint64_t>0x9E3779B97F4A7C15ULL
    a ^= a >> 32
    return (a * <uint64_t>0xD6E8FEB86659FD93ULL) >> (64 - PAIR_BITS)


cdef inline uint64_t byte_bit(uint8_t before, uint8_t first) noexcept nogil:
    return (<uint64_t>1 << PAIR_BITS) + (<uint64_t>before << 8 | first)


cdef inline void put(uint64_t* bits, uint64_t at) noexcept nogil:
    bits[at >> 6] |= <uint64_t>1 << (at & 63)


cdef inline bint has(const uint64_t* bits, uint64_t at) noexcept nogil:
    return bits[at >> 6] >> (at & 63) & 1


cdef uint64_t* borders_new(const Vocab* vocab, const uint32_t* ids, uint32_t n) noexcept nogil:
    cdef uint64_t* crossed = <uint64_t*>calloc(PAIR_WORDS + 1024, sizeof(uint64_t))
    cdef const uint8_t* p
    cdef Py_ssize_t length, at
    cdef int left, right
    cdef uint32_t i
    if crossed is NULL:
        return NULL
    for i in range(n):
        p = vocab.blob + vocab.offset[ids[i]]
        length = vocab.offset[ids[i] + 1] - vocab.offset[ids[i]]
        left = 0            # width of the character that ends here, 0 if only its end is there
        at = 0
        while at < length:
            right = width_at(p + at, length - at)
            if at and p[at] & 0xC0 != 0x80:
                if left == 0 or right == 0:
                    put(crossed, byte_bit(p[at - 1], p[at]))
                elif left > 2 or right > 2:
                    put(crossed, pair_bit(p + at - left, left, p + at, right))
            left = right
            at += max(right, 1)
    return crossed


cdef Py_ssize_t borders_cut(
    const uint64_t* crossed, const uint8_t* text, Py_ssize_t n, uint32_t* ends, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t at = 0, got = 0
    cdef int left = 0, right
    while at < n:
        right = width_at(text + at, n - at)
        if left and right and (left > 2 or right > 2):
            if not (has(crossed, byte_bit(text[at - 1], text[at]))
                    or has(crossed, pair_bit(text + at - left, left, text + at, right))):
                ends[got] = <uint32_t>at
                got += 1
                if got == room:
                    return got
        left = right
        at += max(right, 1)
    ends[got] = <uint32_t>n
    return got + 1

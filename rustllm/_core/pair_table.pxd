# Counts of pairs of ids: a hash table, open addressing, deletion by shifting back.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from rustllm._core.status cimport NO_MEMORY, OK

cdef extern from *:
    """
    #define RL_NO_PAIR UINT64_MAX
    """
    const uint64_t NO_PAIR "RL_NO_PAIR"


cdef struct PairCount:
    uint64_t pair
    int64_t count


cdef inline uint64_t pair_of(uint32_t first, uint32_t second) noexcept nogil:
    return (<uint64_t>first << 32) | second


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    x ^= x >> 32
    x *= <uint64_t>0x9E3779B97F4A7C15
    x ^= x >> 29
    x *= <uint64_t>0xBF58476D1CE4E5B9
    return x ^ (x >> 32)


cdef inline PairCount* new_pair_table(uint64_t n_slots) noexcept nogil:
    cdef PairCount* table = <PairCount*>malloc(n_slots * sizeof(PairCount))
    if table != NULL:
        memset(table, 0xFF, n_slots * sizeof(PairCount))
    return table


cdef inline uint64_t find_pair(const PairCount* table, uint64_t mask, uint64_t pair) noexcept nogil:
    """Slot of `pair`, or the empty slot where it belongs."""
    cdef uint64_t i = mix(pair) & mask
    while table[i].pair != pair and table[i].pair != NO_PAIR:
        i = (i + 1) & mask
    return i


cdef inline int double_pair_table(PairCount** table, uint64_t* mask) noexcept nogil:
    cdef uint64_t n_slots = (mask[0] + 1) * 2
    cdef uint64_t i, at
    cdef PairCount* bigger = new_pair_table(n_slots)
    if bigger == NULL:
        return NO_MEMORY
    for i in range(mask[0] + 1):
        if table[0][i].pair != NO_PAIR:
            at = find_pair(bigger, n_slots - 1, table[0][i].pair)
            bigger[at] = table[0][i]
    free(table[0])
    table[0] = bigger
    mask[0] = n_slots - 1
    return OK


cdef inline void remove_pair(PairCount* table, uint64_t mask, uint64_t i) noexcept nogil:
    cdef uint64_t j = i
    cdef uint64_t home
    while True:
        j = (j + 1) & mask
        if table[j].pair == NO_PAIR:
            break
        home = mix(table[j].pair) & mask
        # an entry may move back to i unless its home lies strictly between i and j
        if ((j - home) & mask) >= ((j - i) & mask):
            table[i] = table[j]
            i = j
    table[i].pair = NO_PAIR

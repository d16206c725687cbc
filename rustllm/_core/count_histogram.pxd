# How many places the pairs of about one count have: which counts to give no places.

from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

from rustllm._core.bits cimport highest_bit

cdef enum:
    COUNT_BUCKETS = 488


# How many postings there are of pairs with about the same count.
cdef struct CountHistogram:
    uint64_t[COUNT_BUCKETS] n


cdef inline uint32_t count_bucket(int64_t count) noexcept nogil:
    """Eight buckets for every power of two."""
    cdef int highest
    if count < 8:
        return <uint32_t>max(count, 0)
    highest = highest_bit(<uint64_t>count)
    return <uint32_t>(8 * (highest - 2) + ((count >> (highest - 3)) & 7))


cdef inline int64_t bucket_start(uint32_t bucket) noexcept nogil:
    """Smallest count in a bucket."""
    if bucket < 8:
        return bucket
    if bucket >= COUNT_BUCKETS:
        return INT64_MAX
    return <int64_t>(8 + (bucket & 7)) << ((bucket >> 3) - 1)


cdef inline void note_size(CountHistogram* sizes, int64_t count, uint64_t n) noexcept nogil:
    sizes.n[count_bucket(count)] += n


cdef inline int64_t threshold_from_above(const CountHistogram* sizes, uint64_t room) noexcept nogil:
    """Smallest count of which, with all larger ones, the sizes fit `room`."""
    cdef uint32_t bucket = COUNT_BUCKETS
    cdef uint64_t total = 0
    while bucket > 0:
        bucket -= 1
        total += sizes.n[bucket]
        if total > room:
            return bucket_start(bucket + 1)
    return 0


cdef inline int64_t threshold_from_below(
    const CountHistogram* sizes, uint64_t wanted
) noexcept nogil:
    """Smallest count below which the sizes come to `wanted`."""
    cdef uint32_t bucket
    cdef uint64_t total = 0
    for bucket in range(COUNT_BUCKETS):
        total += sizes.n[bucket]
        if total >= wanted:
            return bucket_start(bucket + 1)
    return INT64_MAX

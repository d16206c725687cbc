# The queue of pairs to merge: highest count first, then the smaller pair, then the older candidate.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define RL_THINNED ((uint64_t)1 << 63)
    """
    const uint64_t THINNED "RL_THINNED"

cdef enum:
    HEAP_ARITY = 4


# One candidate in the queue: a pair, the count it was queued with, and where it occurs. `at` is the
# first posting; a single posting is kept in `at` itself. `round` makes the order total. The highest
# bit of `at` says that the postings are thinned.
cdef struct Candidate:
    int64_t count
    uint64_t pair
    uint64_t at
    uint32_t n_postings
    uint32_t round


cdef inline uint32_t n_posted(const Candidate* c) noexcept nogil:
    """How many postings a candidate takes; a single place is kept in the candidate itself."""
    return c.n_postings if c.n_postings > 1 or c.at & THINNED else 0


cdef inline bint comes_before(const Candidate* a, const Candidate* b) noexcept nogil:
    if a.count != b.count:
        return a.count > b.count
    if a.pair != b.pair:
        return a.pair < b.pair
    return a.round < b.round


cdef inline void sift_up(Candidate* heap, uint64_t i, Candidate item) noexcept nogil:
    cdef uint64_t parent
    while i > 0:
        parent = (i - 1) // HEAP_ARITY
        if not comes_before(&item, &heap[parent]):
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = item


cdef inline void sift_down(Candidate* heap, uint64_t n, uint64_t i, Candidate item) noexcept nogil:
    cdef uint64_t child, last, best
    while True:
        child = i * HEAP_ARITY + 1
        if child >= n:
            break
        last = child + HEAP_ARITY
        if last > n:
            last = n
        best = child
        child += 1
        while child < last:
            if comes_before(&heap[child], &heap[best]):
                best = child
            child += 1
        if not comes_before(&heap[best], &item):
            break
        heap[i] = heap[best]
        i = best
    heap[i] = item


cdef inline void heapify(Candidate* heap, uint64_t n) noexcept nogil:
    cdef uint64_t i
    if n < 2:
        return
    i = (n - 2) // HEAP_ARITY + 1
    while i > 0:
        i -= 1
        sift_down(heap, n, i, heap[i])

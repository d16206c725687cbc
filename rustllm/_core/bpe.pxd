# Byte-pair encoding of one pretoken over immutable tables.
#
# A merge is a pair of symbols, the priority with which it is applied (lowest first, leftmost among
# equals) and the symbol it makes. `whole` looks a pretoken up as a token before merging, as
# tiktoken and `ignore_merges` do.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from rustllm._core.vocab cimport Vocab

cdef extern from "merge.h" nogil:
    uint32_t rl_find_pair(
        const uint64_t* pair, uint64_t mask, int shift, uint32_t left, uint32_t right
    ) noexcept
    int rl_merge_linear(
        int level, const uint64_t* pair, uint64_t mask, int shift, const uint32_t* made,
        uint32_t* symbol, int n, const uint32_t* byte_pair, const uint8_t* text, uint32_t limit
    ) noexcept

cpdef enum:
    NO_PRIORITY = 0x1FFFFF
    MAX_LINEAR = 96         # symbols up to which a scan for the minimum beats a heap

cdef struct Bpe:
    Vocab vocab
    uint64_t* pair          # [pair_mask + 1] left << 42 | right << 21 | priority, all ones if empty
    uint64_t pair_mask
    int pair_shift          # of a hash, for its four entries
    uint32_t* made          # symbol that each priority makes
    bint in_order           # which is the priority itself
    uint32_t n_made
    uint32_t* byte_pair     # [65536] priority of the pair of two one-byte symbols
    uint32_t byte_id[256]   # symbol of each byte, NO_ID when the vocabulary lacks it
    uint32_t fallback[256]  # symbol of each byte of a character that is no token, or NO_ID
    bint by_char            # symbols start as characters, not bytes
    bint whole
    bint fuse_unknown
    uint32_t unknown        # id of what cannot be spelt, or NO_ID
    uint8_t* adjacent       # [8192] bit x << 8 | y: some token has byte x followed by byte y
    uint64_t* crossed       # what reaches across borders of characters, or NULL: cut nowhere

# Scratch memory of one thread.
cdef struct MergeSpace:
    uint64_t* heap
    uint32_t* symbol
    uint32_t* priority
    uint32_t* before
    uint32_t* after
    Py_ssize_t room

# Append the ids of the pretoken text[:n], n > 0, to `out`, which has room for n of them. Returns
# how many, or a negative status: NO_MEMORY, OUT_OF_RANGE for a byte that no token spells.
cdef Py_ssize_t bpe_encode(
    const Bpe* bpe, MergeSpace* space, const uint8_t* text, Py_ssize_t n, uint32_t* out
) noexcept nogil

# The same without looking the pretoken up as a token.
cdef Py_ssize_t bpe_merge(
    const Bpe* bpe, MergeSpace* space, const uint8_t* text, Py_ssize_t n, uint32_t* out
) noexcept nogil

# The same as bpe_encode by the definition: quadratic, without heap or pair scan; for tests.
cdef Py_ssize_t bpe_encode_ref(
    const Bpe* bpe, MergeSpace* space, const uint8_t* text, Py_ssize_t n, uint32_t* out
) noexcept nogil

# Fill the merges of `bpe`, whose vocab is ready: from the order in which tokens were learnt, or
# from explicit triples (left, right, made). A negative status on failure.
cdef int bpe_learn_order(
    Bpe* bpe, const uint32_t* order, uint32_t n, int n_threads
) noexcept nogil
cdef int bpe_learn_merges(Bpe* bpe, const uint32_t* triples, uint32_t n) noexcept nogil

cdef void bpe_free(Bpe* bpe) noexcept nogil
cdef void space_free(MergeSpace* space) noexcept nogil

cdef inline uint32_t find_pair(const Bpe* bpe, uint32_t left, uint32_t right) noexcept nogil:
    # Priority of the merge of two symbols, NO_PRIORITY if they do not merge.
    return rl_find_pair(bpe.pair, bpe.pair_mask, bpe.pair_shift, left, right)

cdef inline bint is_adjacent(const Bpe* bpe, uint8_t x, uint8_t y) noexcept nogil:
    return bpe.adjacent[x << 5 | y >> 3] >> (y & 7) & 1

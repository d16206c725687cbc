# Byte-pair merging of counted pretokens: the loop behind BpeTrainer.

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from rustllm._core.candidate_heap cimport Candidate
from rustllm._core.first_pairs cimport Neighbour
from rustllm._core.pair_table cimport PairCount
from rustllm._core.word_cells cimport Cells


# A candidate whose places are found again: which of the heap, how many it can have at most, and
# where the places lie that stand for the words it knows.
cdef struct Restored:
    uint64_t index
    uint64_t known
    uint32_t n_known
    uint32_t bound


# Where a token's spelling lies, its bytes, and the cells it takes in the words.
cdef struct Token:
    uint64_t start
    uint32_t length
    uint32_t width


@cython.final
cdef class MergeLoop:
    # words, end to end, one symbol a byte, a separator between words
    cdef Cells symbols
    cdef uint64_t n_symbols
    cdef uint64_t* word_bits
    cdef uint32_t* word_ranks
    cdef int64_t* word_counts
    cdef uint64_t n_words
    # token strings by id, and ids by token string
    cdef Token* tokens
    cdef uint32_t n_tokens, tokens_capacity
    cdef uint8_t* token_bytes
    cdef uint64_t n_token_bytes, token_bytes_capacity
    cdef uint32_t* token_slots
    cdef uint64_t token_slots_mask
    cdef uint32_t n_strings
    # what the right half of a merge loses when the spelling of the whole is made
    cdef bytes prefix
    cdef const uint8_t* prefix_bytes
    cdef uint64_t n_prefix
    # pair -> count
    cdef PairCount* pairs
    cdef uint64_t pairs_mask, n_pairs
    # pairs that have been queued more than once (only after a token string was made in two ways)
    cdef PairCount* repeated
    cdef uint64_t repeated_mask, n_repeated
    # queue and postings
    cdef Candidate* heap
    cdef uint64_t n_heap, heap_capacity
    cdef uint32_t* postings
    cdef uint64_t n_postings, postings_capacity, live_postings
    cdef uint64_t most_postings, n_restored
    # one round
    cdef Neighbour* left
    cdef Neighbour* right
    cdef uint32_t* touched_left
    cdef uint32_t* touched_right
    cdef uint64_t n_touched_left, n_touched_right
    cdef uint64_t* records_left
    cdef uint64_t* records_right
    cdef uint64_t n_records_left, n_records_right, records_left_capacity, records_right_capacity
    # result
    cdef uint32_t* merges
    cdef uint64_t n_merges, merges_capacity
    cdef uint64_t max_token_length

    cdef int allocate_words(self, uint64_t n_bytes, uint64_t n_words) except -1
    cdef int add_word(
        self, const uint8_t* data, uint64_t length, int64_t count, const uint32_t* byte_ids
    ) noexcept nogil

    cdef int _reserve_tokens(self, uint64_t n) noexcept nogil
    cdef uint64_t _find_string(self, const uint8_t* data, uint64_t n) noexcept nogil
    cdef int _set_string(self, uint32_t token_id, const uint8_t* data, uint64_t n) noexcept nogil
    cdef int _widen(self) noexcept nogil
    cdef int _rank_words(self) noexcept nogil
    cdef uint64_t _word_at(self, uint64_t at) noexcept nogil
    cdef int _add_to_pair(self, uint64_t pair, int64_t by, int64_t* total) noexcept nogil
    cdef void _take_from_pair(self, uint64_t pair, int64_t by) noexcept nogil
    cdef int64_t _pair_count(self, uint64_t pair) noexcept nogil
    cdef int _mark_repeated(self, uint64_t pair) noexcept nogil
    cdef bint _is_repeated(self, uint64_t pair) noexcept nogil
    cdef int _queue_initial_pairs(self) noexcept nogil
    cdef int _compact_postings(self) noexcept nogil
    cdef void _thin_postings(self, uint64_t wanted) noexcept nogil
    cdef void _thin(self, Candidate* c) noexcept nogil
    cdef int _restore_postings(self) noexcept nogil
    cdef int _find_places(self, const Restored* chosen, uint64_t n_chosen) noexcept nogil
    cdef int _replace_at(self, uint64_t at, uint32_t a, uint32_t b, uint32_t merged) noexcept nogil
    cdef bint _note(self, Neighbour* neighbour, int64_t count) noexcept nogil
    cdef int _reserve_records(self, uint64_t more) noexcept nogil
    cdef uint64_t _word_start(self, uint64_t at) noexcept nogil
    cdef int _replace_in_word(
        self, uint64_t start, uint32_t a, uint32_t b, uint32_t merged, uint64_t* end
    ) noexcept nogil
    cdef int _replace_everywhere(self, const Candidate* top, uint32_t merged) noexcept nogil
    cdef int _queue(self, uint64_t pair, const Neighbour* places, bint reused) noexcept nogil
    cdef int _place_records(
        self, Neighbour* table, const uint32_t* touched, uint64_t n_touched,
        const uint64_t* records, uint64_t n_records
    ) noexcept nogil
    cdef int _reserve_postings(self, uint64_t more) noexcept nogil
    cdef bint _is_short_enough(self, uint32_t first, uint32_t second) noexcept nogil
    cdef int _apply_round(self, uint64_t merged_pair, uint32_t merged, bint reused) noexcept nogil
    cdef int _queue_side(
        self, Neighbour* table, const uint32_t* touched, uint64_t n_touched, uint32_t merged,
        bint is_left, bint reused
    ) noexcept nogil
    cdef int _merge_some(self, uint64_t vocab_size, int64_t min_frequency) noexcept nogil
    cdef int _spell_merge(
        self, uint32_t a, uint32_t b, uint32_t* merged, bint* reused
    ) noexcept nogil

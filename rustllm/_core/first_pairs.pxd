# Pairs of the words as they are given: a square table, or a hash table for large alphabets.

from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport memset

from rustllm._core.growing cimport grow
from rustllm._core.pair_table cimport (
    PairCount, double_pair_table, find_pair, new_pair_table, pair_of,
)
from rustllm._core.status cimport NO_MEMORY, OK
from rustllm._core.word_cells cimport SEPARATOR, Cells, symbol_at

cdef enum:
    SQUARE_IDS = 1024          # a square of their pairs takes 16 MB


# What a neighbour of the merged pair gathers during one round; indexed by token id.
cdef struct Neighbour:
    int64_t weight
    uint32_t n_postings
    uint32_t cursor


cdef struct InitialPairs:
    uint32_t* rank_of          # place of each id that occurs among those that do
    uint32_t* id_of
    uint32_t n_ids
    Neighbour* cells
    uint64_t n_cells
    uint64_t room
    # beyond SQUARE_IDS ids: the pair of each cell, and the cell of each pair
    uint64_t* pairs
    uint64_t pairs_room
    PairCount* places
    uint64_t pairs_mask


cdef inline int number_ids(
    InitialPairs* found, const Cells* symbols, uint64_t n_symbols, uint32_t n_tokens
) noexcept nogil:
    """Number the ids that occur densely and make the table."""
    cdef uint64_t at
    cdef uint32_t a
    found.rank_of = <uint32_t*>malloc(n_tokens * sizeof(uint32_t) + 1)
    found.id_of = <uint32_t*>malloc(n_tokens * sizeof(uint32_t) + 1)
    if found.rank_of == NULL or found.id_of == NULL:
        return NO_MEMORY
    memset(found.rank_of, 0xFF, n_tokens * sizeof(uint32_t))
    for at in range(n_symbols):
        a = symbol_at(symbols, at)
        if a != SEPARATOR and found.rank_of[a] == UINT32_MAX:
            found.rank_of[a] = found.n_ids
            found.id_of[found.n_ids] = a
            found.n_ids += 1
    if found.n_ids <= SQUARE_IDS:
        at = <uint64_t>found.n_ids * found.n_ids
        found.cells = <Neighbour*>calloc(at + 1, sizeof(Neighbour))
        if found.cells == NULL:
            return NO_MEMORY
        found.n_cells = at
        return OK
    found.pairs_mask = 4095
    found.places = new_pair_table(4096)
    return OK if found.places != NULL else NO_MEMORY


cdef inline int add_sparse_pair(
    InitialPairs* found, uint32_t a, uint32_t b, uint64_t* cell
) noexcept nogil:
    """Cell of the pair `a`, `b` of a large alphabet, made if it is new."""
    cdef uint64_t slot, pair
    cdef int code
    pair = pair_of(a, b)
    slot = find_pair(found.places, found.pairs_mask, pair)
    if found.places[slot].pair == pair:
        cell[0] = <uint64_t>found.places[slot].count
        return OK
    code = grow(<void**>&found.cells, &found.room, found.n_cells + 1, sizeof(Neighbour))
    if code == OK:
        code = grow(<void**>&found.pairs, &found.pairs_room, found.n_cells + 1, sizeof(uint64_t))
    if code == OK and 3 * (found.n_cells + 1) > 2 * found.pairs_mask:
        code = double_pair_table(&found.places, &found.pairs_mask)
        slot = find_pair(found.places, found.pairs_mask, pair)
    if code < 0:
        return code
    cell[0] = found.n_cells
    memset(&found.cells[found.n_cells], 0, sizeof(Neighbour))
    found.pairs[found.n_cells] = pair
    found.places[slot].pair = pair
    found.places[slot].count = <int64_t>found.n_cells
    found.n_cells += 1
    return OK


cdef inline uint64_t initial_pair(const InitialPairs* found, uint64_t cell) noexcept nogil:
    if found.n_ids > SQUARE_IDS:
        return found.pairs[cell]
    return pair_of(found.id_of[cell // found.n_ids], found.id_of[cell % found.n_ids])

"""Byte-pair merging of counted pretokens, with the results of Hugging Face's ``tokenizers``.

All distinct pretokens lie end to end in one array, one symbol a byte, a separator between them. A
token of `n` bytes occupies `n` cells: its id stands in the first and in the last one, so that
both neighbours of a token are found by its length alone; the first cell of the second half of a
merge is marked dead, so that a stale posting never matches. A merge therefore costs the
occurrences of its pair, not the length of the words they stand in, and one line of 20 MB without
a space is trained in near-linear time.

Every pair has an exact count in a hash table and a candidate in a heap. Counts fall without the
heap being told: a candidate whose count is out of date is corrected and queued again when it
comes up. Ties go to the smaller pair of ids.

Ids take 16 bits until they need more, and places of pairs that do not come up soon are forgotten
where there are many (one line of 20 MB has as many as bytes); see `_thin_postings`.

The semantics that `tokenizers` has by accident are kept, because ids depend on them: a merge that
spells an existing token takes that token's id; its pairs are then queued a second time with only
the new places, and each such candidate rewrites every occurrence in the words it knows.

Source of the algorithm: Sennrich et al. 2016; the lazy heap follows Zouhar et al. 2023, "A formal
perspective on byte-pair encoding".
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from rustllm._core.bits cimport highest_bit, popcount
from rustllm._core.candidate_heap cimport (
    THINNED, Candidate, heapify, n_posted, sift_down, sift_up,
)
from rustllm._core.count_histogram cimport (
    CountHistogram, note_size, threshold_from_above, threshold_from_below,
)
from rustllm._core.first_pairs cimport (
    SQUARE_IDS, InitialPairs, Neighbour, add_sparse_pair, initial_pair, number_ids,
)
from rustllm._core.growing cimport grow
from rustllm._core.pair_table cimport (
    NO_PAIR, double_pair_table, find_pair, mix, new_pair_table, pair_of, remove_pair,
)
from rustllm._core.status cimport BAD_ARGUMENT, LIMIT_REACHED, NO_MEMORY, OK, check
from rustllm._core.word_cells cimport (
    DEAD, MAX_ID, MAX_NARROW_ID, SEPARATOR, set_symbol, symbol_at,
)

cdef enum:
    MERGES_PER_CHECK = 1024
    PLACES_PER_CHECK = 1 << 20
    FEWEST_POSTINGS = 1 << 22  # 16 MB
    FEWEST_TO_THIN = 16

cdef uint64_t hash_bytes(const uint8_t* data, uint64_t n) noexcept nogil:
    cdef uint64_t h = <uint64_t>0xCBF29CE484222325 ^ n
    cdef uint64_t i
    for i in range(n):
        h = (h ^ data[i]) * <uint64_t>0x100000001B3
    return mix(h)


@cython.final
cdef class MergeLoop:
    """The state of one training run over words that are already counted.

    Parameters
    ----------
    byte_ids : list of int
        Id of each of the 256 single-byte tokens.
    strings : dict of bytes to int
        Every token that exists before the first merge, the single bytes among them; a merge that
        spells one of them takes its id.
    n_ids : int
        The id that the first new token gets.
    max_token_length : int or None
        Pairs that spell this many bytes or more are not candidates.
    prefix : bytes
        What tokens that continue a word start with, and lose when they are joined to what is
        before them.
    by_character : bool
        Words are given as characters, with `add_characters`, and `byte_ids` is of no use.

    Notes
    -----
    Not thread-safe: one thread owns it.
    """

    def __cinit__(
        self, list byte_ids, dict strings, uint32_t n_ids, max_token_length=None,
        bytes prefix=b"", bint by_character=False,
    ):
        cdef uint32_t token_id
        cdef bytes spelling
        if len(byte_ids) != 256 and not by_character:
            raise ValueError("byte_ids needs 256 ids")
        self.max_token_length = <uint64_t>-1 if max_token_length is None else max_token_length
        self.prefix = prefix
        self.prefix_bytes = <const uint8_t*>prefix
        self.n_prefix = len(prefix)
        self.token_slots_mask = 1023
        self.token_slots = <uint32_t*>malloc(1024 * sizeof(uint32_t))
        self.pairs_mask = 4095
        self.pairs = new_pair_table(4096)
        self.repeated_mask = 15
        self.repeated = new_pair_table(16)
        if self.token_slots == NULL or self.pairs == NULL or self.repeated == NULL:
            raise MemoryError("merge loop")
        memset(self.token_slots, 0xFF, 1024 * sizeof(uint32_t))
        check(self._reserve_tokens(n_ids), "token table")
        memset(self.tokens, 0, n_ids * sizeof(Token))
        self.n_tokens = n_ids
        for spelling, token_id in strings.items():
            if token_id >= n_ids:
                raise ValueError(f"id {token_id} of {spelling!r} is not below n_ids {n_ids}")
            check(
                self._set_string(token_id, <const uint8_t*>spelling, len(spelling)), "token table"
            )
            if by_character:
                text = spelling.removeprefix(prefix).decode("utf-8")
                self.tokens[token_id].width = <uint32_t>len(text)

    def __dealloc__(self):
        free(self.symbols.narrow)
        free(self.symbols.wide)
        free(self.word_bits)
        free(self.word_ranks)
        free(self.word_counts)
        free(self.tokens)
        free(self.token_bytes)
        free(self.token_slots)
        free(self.pairs)
        free(self.repeated)
        free(self.heap)
        free(self.postings)
        free(self.left)
        free(self.right)
        free(self.touched_left)
        free(self.touched_right)
        free(self.records_left)
        free(self.records_right)
        free(self.merges)

    # ---- token strings --------------------------------------------------------------------------

    cdef int _reserve_tokens(self, uint64_t n) noexcept nogil:
        """Make every table that is indexed by token id, and every cell, hold `n` ids."""
        cdef uint64_t old = self.tokens_capacity
        cdef uint64_t wanted = old
        cdef void* moved
        if n > <uint64_t>MAX_NARROW_ID + 1 and self.symbols.narrow != NULL:
            if self._widen() < 0:
                return NO_MEMORY
        if n <= old:
            return OK
        wanted = old + (old >> 1)
        if wanted < n:
            wanted = n
        if wanted > MAX_ID:
            return LIMIT_REACHED
        moved = realloc(self.tokens, wanted * sizeof(Token))
        if moved == NULL:
            return NO_MEMORY
        self.tokens = <Token*>moved
        moved = realloc(self.left, wanted * sizeof(Neighbour))
        if moved == NULL:
            return NO_MEMORY
        self.left = <Neighbour*>moved
        memset(self.left + old, 0, (wanted - old) * sizeof(Neighbour))
        moved = realloc(self.right, wanted * sizeof(Neighbour))
        if moved == NULL:
            return NO_MEMORY
        self.right = <Neighbour*>moved
        memset(self.right + old, 0, (wanted - old) * sizeof(Neighbour))
        moved = realloc(self.touched_left, wanted * sizeof(uint32_t))
        if moved == NULL:
            return NO_MEMORY
        self.touched_left = <uint32_t*>moved
        moved = realloc(self.touched_right, wanted * sizeof(uint32_t))
        if moved == NULL:
            return NO_MEMORY
        self.touched_right = <uint32_t*>moved
        self.tokens_capacity = <uint32_t>wanted
        return OK

    cdef uint64_t _find_string(self, const uint8_t* data, uint64_t n) noexcept nogil:
        cdef uint64_t i = hash_bytes(data, n) & self.token_slots_mask
        cdef uint32_t token_id
        while True:
            token_id = self.token_slots[i]
            if token_id == UINT32_MAX:
                return i
            if self.tokens[token_id].length == n and memcmp(
                self.token_bytes + self.tokens[token_id].start, data, n
            ) == 0:
                return i
            i = (i + 1) & self.token_slots_mask

    cdef int _set_string(self, uint32_t token_id, const uint8_t* data, uint64_t n) noexcept nogil:
        """Spell token `token_id`; `data` may lie in `token_bytes`."""
        cdef uint64_t i, j, n_slots
        cdef uint32_t* bigger
        cdef uint32_t* smaller
        cdef int code = grow(
            <void**>&self.token_bytes, &self.token_bytes_capacity, self.n_token_bytes + n, 1
        )
        if code < 0:
            return code
        if 2 * (<uint64_t>self.n_strings + 1) > self.token_slots_mask:
            n_slots = (self.token_slots_mask + 1) * 2
            bigger = <uint32_t*>malloc(n_slots * sizeof(uint32_t))
            if bigger == NULL:
                return NO_MEMORY
            memset(bigger, 0xFF, n_slots * sizeof(uint32_t))
            smaller = self.token_slots
            i = self.token_slots_mask + 1
            self.token_slots = bigger
            self.token_slots_mask = n_slots - 1
            while i > 0:
                i -= 1
                if smaller[i] != UINT32_MAX:
                    j = self._find_string(
                        self.token_bytes + self.tokens[smaller[i]].start,
                        self.tokens[smaller[i]].length,
                    )
                    self.token_slots[j] = smaller[i]
            free(smaller)
        memcpy(self.token_bytes + self.n_token_bytes, data, n)
        i = self._find_string(self.token_bytes + self.n_token_bytes, n)
        self.tokens[token_id].start = self.n_token_bytes
        self.tokens[token_id].length = <uint32_t>n
        self.tokens[token_id].width = <uint32_t>n
        self.token_slots[i] = token_id
        self.n_token_bytes += n
        self.n_strings += 1
        return OK

    # ---- words ----------------------------------------------------------------------------------

    cdef int allocate_words(self, uint64_t n_bytes, uint64_t n_words) except -1:
        """Make room for `n_words` words of `n_bytes` bytes together."""
        cdef uint64_t n_cells = n_bytes + n_words + 1
        if n_bytes > MAX_ID or n_words > MAX_ID or n_cells > MAX_ID:
            check(LIMIT_REACHED, "more than 2**32 symbols in distinct pretokens")
        free(self.symbols.narrow)
        free(self.symbols.wide)
        free(self.word_bits)
        free(self.word_counts)
        self.symbols.narrow = NULL
        self.symbols.wide = NULL
        if self.n_tokens <= MAX_NARROW_ID + 1:
            self.symbols.narrow = <uint16_t*>malloc(n_cells * sizeof(uint16_t))
        else:
            self.symbols.wide = <uint32_t*>malloc(n_cells * sizeof(uint32_t))
        self.word_bits = <uint64_t*>calloc((n_cells >> 6) + 1, sizeof(uint64_t))
        self.word_counts = <int64_t*>malloc((n_words + 1) * sizeof(int64_t))
        if (
            (self.symbols.narrow == NULL and self.symbols.wide == NULL)
            or self.word_bits == NULL or self.word_counts == NULL
        ):
            check(NO_MEMORY, "words to merge")
        set_symbol(&self.symbols, 0, SEPARATOR)
        self.n_symbols = 1
        self.n_words = 0
        return 0

    cdef int add_word(
        self, const uint8_t* data, uint64_t length, int64_t count, const uint32_t* byte_ids
    ) noexcept nogil:
        """Append one word; the room was made by `allocate_words`."""
        cdef uint64_t i
        cdef uint64_t at = self.n_symbols
        self.word_bits[at >> 6] |= <uint64_t>1 << (at & 63)
        for i in range(length):
            set_symbol(&self.symbols, at + i, byte_ids[data[i]])
        set_symbol(&self.symbols, at + length, SEPARATOR)
        self.n_symbols = at + length + 1
        self.word_counts[self.n_words] = count
        self.n_words += 1
        return OK

    cdef int _widen(self) noexcept nogil:
        """Give every cell 32 bits: the next id does not fit 16."""
        cdef uint64_t at
        cdef uint32_t* wide = <uint32_t*>malloc(self.n_symbols * sizeof(uint32_t))
        if wide == NULL:
            return NO_MEMORY
        for at in range(self.n_symbols):
            wide[at] = symbol_at(&self.symbols, at)
        free(self.symbols.narrow)
        self.symbols.narrow = NULL
        self.symbols.wide = wide
        return OK

    cdef int _rank_words(self) noexcept nogil:
        cdef uint64_t n_blocks = (self.n_symbols >> 6) + 1
        cdef uint64_t i
        cdef uint32_t before = 0
        free(self.word_ranks)
        self.word_ranks = <uint32_t*>malloc(n_blocks * sizeof(uint32_t))
        if self.word_ranks == NULL:
            return NO_MEMORY
        for i in range(n_blocks):
            self.word_ranks[i] = before
            before += popcount(self.word_bits[i])
        return OK

    cdef uint64_t _word_at(self, uint64_t at) noexcept nogil:
        """Number of the word that covers cell `at`."""
        cdef uint64_t up_to = self.word_bits[at >> 6] & (<uint64_t>-1 >> (63 - (at & 63)))
        return <uint64_t>self.word_ranks[at >> 6] + popcount(up_to) - 1

    # ---- pairs and candidates -------------------------------------------------------------------

    cdef int _add_to_pair(self, uint64_t pair, int64_t by, int64_t* total) noexcept nogil:
        cdef uint64_t i
        cdef int code
        if 3 * (self.n_pairs + 1) > 2 * self.pairs_mask:
            code = double_pair_table(&self.pairs, &self.pairs_mask)
            if code < 0:
                return code
        i = find_pair(self.pairs, self.pairs_mask, pair)
        if self.pairs[i].pair == NO_PAIR:
            self.pairs[i].pair = pair
            self.pairs[i].count = by
            self.n_pairs += 1
        else:
            self.pairs[i].count += by
        total[0] = self.pairs[i].count
        return OK

    cdef void _take_from_pair(self, uint64_t pair, int64_t by) noexcept nogil:
        """A pair that is not in the table was never a candidate (its spelling is too long)."""
        cdef uint64_t i = find_pair(self.pairs, self.pairs_mask, pair)
        if self.pairs[i].pair == NO_PAIR:
            return
        self.pairs[i].count -= by
        if self.pairs[i].count == 0:
            remove_pair(self.pairs, self.pairs_mask, i)
            self.n_pairs -= 1

    cdef int64_t _pair_count(self, uint64_t pair) noexcept nogil:
        cdef uint64_t i = find_pair(self.pairs, self.pairs_mask, pair)
        return self.pairs[i].count if self.pairs[i].pair == pair else 0

    cdef int _mark_repeated(self, uint64_t pair) noexcept nogil:
        cdef uint64_t i
        cdef int code
        if 2 * (self.n_repeated + 1) > self.repeated_mask:
            code = double_pair_table(&self.repeated, &self.repeated_mask)
            if code < 0:
                return code
        i = find_pair(self.repeated, self.repeated_mask, pair)
        if self.repeated[i].pair == NO_PAIR:
            self.repeated[i].pair = pair
            self.n_repeated += 1
        return OK

    cdef bint _is_repeated(self, uint64_t pair) noexcept nogil:
        if self.n_repeated == 0:
            return False
        return self.repeated[find_pair(self.repeated, self.repeated_mask, pair)].pair == pair

    cdef int _queue_initial_pairs(self) noexcept nogil:
        """Count all pairs and queue them with their places."""
        cdef InitialPairs found
        cdef uint64_t at, cell_at, total
        cdef uint64_t word = 0
        cdef uint32_t a, b
        cdef int64_t count = 0
        cdef Neighbour* cell = NULL
        cdef int code
        cdef bint square
        cdef uint64_t n_ids
        cdef const uint32_t* rank_of
        cdef const Cells* symbols = &self.symbols
        cdef Neighbour* cells
        cdef int64_t least = 0             # pairs that occur less often are not given places yet
        cdef CountHistogram sizes
        memset(&found, 0, sizeof(InitialPairs))
        code = number_ids(&found, symbols, self.n_symbols, self.n_tokens)
        square = found.n_ids <= SQUARE_IDS
        n_ids = found.n_ids
        rank_of = found.rank_of
        cells = found.cells
        a = SEPARATOR
        for at in range(1, self.n_symbols if code == OK else 1):
            b = symbol_at(symbols, at)
            if a == SEPARATOR:
                count = self.word_counts[word]
                word += 1
                if b == SEPARATOR:
                    continue
            elif b != SEPARATOR:
                if square:
                    cell = &cells[rank_of[a] * n_ids + rank_of[b]]
                else:
                    code = add_sparse_pair(&found, a, b, &cell_at)
                    if code < 0:
                        break
                    cell = &found.cells[cell_at]
                cell.weight += count
                cell.n_postings += 1
            a = b
        if code == OK and self.n_symbols > self.most_postings:
            memset(&sizes, 0, sizeof(CountHistogram))
            for at in range(found.n_cells):
                note_size(&sizes, found.cells[at].weight, found.cells[at].n_postings)
            least = threshold_from_above(&sizes, self.most_postings // 2)
        total = 0
        for at in range(found.n_cells):
            cell = &found.cells[at]
            cell.cursor = <uint32_t>total
            if cell.n_postings > 1:
                total += cell.n_postings if cell.weight >= least else 1
        if code == OK:
            code = grow(
                <void**>&self.postings, &self.postings_capacity, total + 1, sizeof(uint32_t)
            )
        if code == OK:
            code = grow(
                <void**>&self.heap, &self.heap_capacity, found.n_cells, sizeof(Candidate)
            )
        if code == OK:
            a = SEPARATOR
            for at in range(1, self.n_symbols):
                b = symbol_at(symbols, at)
                if a != SEPARATOR and b != SEPARATOR:
                    if square:
                        cell = &cells[rank_of[a] * n_ids + rank_of[b]]
                    else:
                        code = add_sparse_pair(&found, a, b, &cell_at)
                        cell = &found.cells[cell_at]
                    if cell.n_postings == 1:
                        cell.cursor = <uint32_t>(at - 1)
                    elif cell.weight >= least:
                        self.postings[cell.cursor] = <uint32_t>(at - 1)
                        cell.cursor += 1
                a = b
            self.n_postings = total
            self.live_postings = total
            self.n_heap = 0
            for at in range(found.n_cells):
                cell = &found.cells[at]
                if cell.n_postings == 0 or cell.weight <= 0:
                    continue
                self.heap[self.n_heap].count = cell.weight
                self.heap[self.n_heap].pair = initial_pair(&found, at)
                self.heap[self.n_heap].n_postings = cell.n_postings
                self.heap[self.n_heap].round = 0
                self.heap[self.n_heap].at = cell.cursor
                if cell.n_postings > 1 and cell.weight >= least:
                    self.heap[self.n_heap].at = cell.cursor - cell.n_postings
                elif cell.n_postings > 1:
                    # bytes are never made again, so the words they are in need not be known
                    self.postings[cell.cursor] = cell.n_postings
                    self.heap[self.n_heap].at = cell.cursor | THINNED
                    self.heap[self.n_heap].n_postings = 1
                code = self._add_to_pair(self.heap[self.n_heap].pair, cell.weight, &count)
                if code < 0:
                    break
                self.n_heap += 1
            heapify(self.heap, self.n_heap)
        free(found.rank_of)
        free(found.id_of)
        free(found.cells)
        free(found.pairs)
        free(found.places)
        return code

    cdef int _compact_postings(self) noexcept nogil:
        """Copy the postings that candidates still refer to into a block of their size."""
        cdef uint32_t* fresh
        cdef uint64_t i
        cdef uint64_t n = 0
        cdef Candidate* c
        fresh = <uint32_t*>malloc((self.live_postings + 1) * sizeof(uint32_t))
        if fresh == NULL:
            return NO_MEMORY
        for i in range(self.n_heap):
            c = &self.heap[i]
            if n_posted(c) > 0:
                memcpy(
                    fresh + n, self.postings + (c.at & ~THINNED), c.n_postings * sizeof(uint32_t)
                )
                c.at = n | (c.at & THINNED)
                n += c.n_postings
        free(self.postings)
        self.postings = fresh
        self.n_postings = n
        self.postings_capacity = self.live_postings + 1
        return OK

    # Places that are not needed soon are thinned to one in each word: enough to know which words
    # a candidate rewrites, which is all that must be remembered of them. The rest is found again by
    # one pass over the words, for as many candidates as there is room for. In front of a thinned
    # list stands how many places it had.

    cdef void _thin_postings(self, uint64_t wanted) noexcept nogil:
        """Thin the lists of the pairs that occur least until `wanted` postings are left."""
        cdef CountHistogram savings
        cdef Candidate* c
        cdef uint64_t i
        cdef int64_t below
        memset(&savings, 0, sizeof(CountHistogram))
        for i in range(self.n_heap):
            c = &self.heap[i]
            if c.n_postings >= FEWEST_TO_THIN and c.at & THINNED == 0:
                note_size(&savings, c.count, c.n_postings)
        below = threshold_from_below(&savings, self.live_postings - wanted)
        for i in range(self.n_heap):
            c = &self.heap[i]
            if c.n_postings >= FEWEST_TO_THIN and c.at & THINNED == 0 and c.count < below:
                self._thin(c)

    cdef void _thin(self, Candidate* c) noexcept nogil:
        cdef uint32_t* places = self.postings + c.at
        cdef uint32_t i
        cdef uint32_t n = 0
        cdef uint64_t word
        cdef uint64_t last = <uint64_t>-1
        for i in range(c.n_postings):
            word = self._word_at(places[i])
            n += word != last
            last = word
        if 2 * n + 2 > c.n_postings:
            return
        n = 0
        last = <uint64_t>-1
        for i in range(c.n_postings):
            word = self._word_at(places[i])
            if word != last:
                places[n] = places[i]
                n += 1
            last = word
        memmove(places + 1, places, n * sizeof(uint32_t))
        places[0] = c.n_postings
        self.live_postings -= c.n_postings - n - 1
        c.n_postings = n + 1
        c.at |= THINNED

    cdef int _restore_postings(self) noexcept nogil:
        """Find the places of the first candidate again, and of those that come up next."""
        cdef CountHistogram sizes
        cdef Candidate* c
        cdef uint64_t i, room
        cdef uint64_t need = 0
        cdef uint64_t n_chosen = 0
        cdef int64_t least, expected
        cdef Restored* chosen
        cdef int code
        if self.live_postings > self.most_postings // 2:
            self._thin_postings(self.most_postings // 2)
        room = self.most_postings - min(self.most_postings, self.live_postings)
        room = max(room - room // 4, self.most_postings // 4)
        memset(&sizes, 0, sizeof(CountHistogram))
        for i in range(self.n_heap):
            c = &self.heap[i]
            if c.at & THINNED:
                # what it had, or what it can have now: every word occurs at least once
                expected = self._pair_count(c.pair)
                expected = max(0, min(expected, <int64_t>self.postings[c.at & ~THINNED]))
                note_size(&sizes, c.count, <uint64_t>expected)
        least = min(threshold_from_above(&sizes, room), self.heap[0].count)
        for i in range(self.n_heap):
            c = &self.heap[i]
            if c.at & THINNED and c.count >= least:
                need += self.postings[c.at & ~THINNED] + c.n_postings
                n_chosen += 1
        code = self._compact_postings()
        if code == OK:
            code = grow(
                <void**>&self.postings, &self.postings_capacity, self.n_postings + need,
                sizeof(uint32_t),
            )
        if code < 0:
            return code
        chosen = <Restored*>calloc(n_chosen + 1, sizeof(Restored))
        if chosen == NULL:
            return NO_MEMORY
        n_chosen = 0
        for i in range(self.n_heap):
            c = &self.heap[i]
            # a repeated pair needs no more than the words
            if c.at & THINNED == 0 or c.count < least or self._is_repeated(c.pair):
                continue
            chosen[n_chosen].index = i
            chosen[n_chosen].known = (c.at & ~THINNED) + 1
            chosen[n_chosen].n_known = c.n_postings - 1
            chosen[n_chosen].bound = self.postings[c.at & ~THINNED]
            self.live_postings -= c.n_postings
            c.at = self.n_postings
            c.n_postings = 0
            self.n_postings += chosen[n_chosen].bound + chosen[n_chosen].n_known
            n_chosen += 1
        code = self._find_places(chosen, n_chosen)
        for i in range(n_chosen):
            c = &self.heap[chosen[i].index]
            # the words that were known stay known, behind what is found, where order matters
            memcpy(
                self.postings + c.at + c.n_postings, self.postings + chosen[i].known,
                chosen[i].n_known * sizeof(uint32_t),
            )
            c.n_postings += chosen[i].n_known
            if c.n_postings == 1:
                c.at = self.postings[c.at]
            self.live_postings += n_posted(c)
        free(chosen)
        self.n_restored += 1
        return code

    cdef int _find_places(self, const Restored* chosen, uint64_t n_chosen) noexcept nogil:
        """Go over all words and note where the pairs of the chosen candidates are."""
        cdef uint64_t mask = 63
        cdef uint64_t i, slot
        cdef uint64_t at = 0
        cdef uint64_t before = 0
        cdef uint32_t a = SEPARATOR
        cdef uint32_t b
        cdef Candidate* c
        cdef PairCount* numbers            # number of each pair in `chosen`
        cdef uint8_t* sides                # 1: the id is the first of such a pair, 2: the second
        cdef int code = OK
        while mask < 2 * n_chosen:
            mask = 2 * mask + 1
        numbers = new_pair_table(mask + 1)
        sides = <uint8_t*>calloc(self.n_tokens, 1)
        if numbers == NULL or sides == NULL:
            free(numbers)
            free(sides)
            return NO_MEMORY
        for i in range(n_chosen):
            c = &self.heap[chosen[i].index]
            slot = find_pair(numbers, mask, c.pair)
            numbers[slot].pair = c.pair
            numbers[slot].count = <int64_t>i
            sides[c.pair >> 32] |= 1
            sides[<uint32_t>c.pair] |= 2
        while at < self.n_symbols:
            b = symbol_at(&self.symbols, at)
            if b == SEPARATOR:
                a = b
                at += 1
                continue
            if a != SEPARATOR and sides[a] & 1 and sides[b] & 2:
                slot = find_pair(numbers, mask, pair_of(a, b))
                if numbers[slot].pair != NO_PAIR:
                    i = <uint64_t>numbers[slot].count
                    c = &self.heap[chosen[i].index]
                    if c.n_postings == chosen[i].bound:
                        code = LIMIT_REACHED  # places of a pair are made once and only lost later
                        break
                    self.postings[c.at + c.n_postings] = <uint32_t>before
                    c.n_postings += 1
            a = b
            before = at
            at += self.tokens[b].width
        free(numbers)
        free(sides)
        return code

    # ---- one round ------------------------------------------------------------------------------

    cdef int _replace_at(
        self, uint64_t at, uint32_t a, uint32_t b, uint32_t merged
    ) noexcept nogil:
        """Replace the pair `a`, `b` at cell `at`, if it is there, and note what that changes."""
        cdef uint64_t second, after
        cdef uint32_t x, y
        cdef int64_t count
        if symbol_at(&self.symbols, at) != a:
            return OK
        second = at + self.tokens[a].width
        if symbol_at(&self.symbols, second) != b:
            return OK
        after = second + self.tokens[b].width
        count = self.word_counts[self._word_at(at)]
        x = symbol_at(&self.symbols, at - 1)
        y = symbol_at(&self.symbols, after)
        if x != SEPARATOR:
            if self._note(&self.left[x], count):
                self.touched_left[self.n_touched_left] = x
                self.n_touched_left += 1
            self.records_left[self.n_records_left] = pair_of(
                x, <uint32_t>(at - self.tokens[x].width)
            )
            self.n_records_left += 1
        if y != SEPARATOR:
            if self._note(&self.right[y], count):
                self.touched_right[self.n_touched_right] = y
                self.n_touched_right += 1
            self.records_right[self.n_records_right] = pair_of(y, <uint32_t>at)
            self.n_records_right += 1
        set_symbol(&self.symbols, at, merged)
        set_symbol(&self.symbols, second, DEAD)
        set_symbol(&self.symbols, after - 1, merged)
        return 1

    cdef bint _note(self, Neighbour* neighbour, int64_t count) noexcept nogil:
        """Add one place to `neighbour`; true if it is the first of the round."""
        neighbour.weight += count
        neighbour.n_postings += 1
        return neighbour.n_postings == 1

    cdef int _reserve_records(self, uint64_t more) noexcept nogil:
        cdef int code = grow(
            <void**>&self.records_left, &self.records_left_capacity,
            self.n_records_left + more, sizeof(uint64_t),
        )
        if code < 0:
            return code
        return grow(
            <void**>&self.records_right, &self.records_right_capacity,
            self.n_records_right + more, sizeof(uint64_t),
        )

    cdef uint64_t _word_start(self, uint64_t at) noexcept nogil:
        cdef uint64_t block = at >> 6
        cdef uint64_t bits = self.word_bits[block] & (<uint64_t>-1 >> (63 - (at & 63)))
        while bits == 0:
            block -= 1
            bits = self.word_bits[block]
        return (block << 6) + highest_bit(bits)

    cdef int _replace_in_word(
        self, uint64_t start, uint32_t a, uint32_t b, uint32_t merged, uint64_t* end
    ) noexcept nogil:
        """Replace every occurrence in the word at cell `start`; `end` is set behind the word."""
        cdef uint64_t cell = start
        cdef int code
        while symbol_at(&self.symbols, cell) != SEPARATOR:
            code = self._reserve_records(1)
            if code < 0:
                return code
            self._replace_at(cell, a, b, merged)
            cell += self.tokens[symbol_at(&self.symbols, cell)].width
        end[0] = cell
        return OK

    cdef int _replace_everywhere(self, const Candidate* top, uint32_t merged) noexcept nogil:
        cdef uint32_t a = <uint32_t>(top.pair >> 32)
        cdef uint32_t b = <uint32_t>top.pair
        cdef uint64_t i, at
        cdef uint64_t begin = 0
        cdef uint64_t end = 0
        cdef bint whole_words = self._is_repeated(top.pair)
        cdef bint thinned = top.at & THINNED != 0
        cdef int code
        self.n_records_left = 0
        self.n_records_right = 0
        if not whole_words:
            code = self._reserve_records(top.n_postings)
            if code < 0:
                return code
            if top.n_postings == 1:
                self._replace_at(top.at, a, b, merged)
                return OK
            for i in range(top.n_postings):
                self._replace_at(self.postings[top.at + i], a, b, merged)
            return OK
        # a thinned list knows the words, which is all that is asked of it here
        for i in range(thinned, top.n_postings):
            at = self.postings[(top.at & ~THINNED) + i] if n_posted(top) > 0 else top.at
            if begin <= at < end:
                continue
            begin = self._word_start(at)
            code = self._replace_in_word(begin, a, b, merged, &end)
            if code < 0:
                return code
        return OK

    cdef int _queue(self, uint64_t pair, const Neighbour* places, bint reused) noexcept nogil:
        """Queue a candidate for `pair` with the places gathered for it."""
        cdef int64_t total = self._pair_count(pair)
        cdef Candidate item
        cdef int code
        if total <= 0:
            return OK
        if reused:
            code = self._mark_repeated(pair)
            if code < 0:
                return code
        code = grow(<void**>&self.heap, &self.heap_capacity, self.n_heap + 1, sizeof(Candidate))
        if code < 0:
            return code
        item.count = total
        item.pair = pair
        item.n_postings = places.n_postings
        item.round = <uint32_t>self.n_merges
        item.at = places.cursor
        if places.n_postings > 1:
            item.at = self.n_postings + places.cursor - places.n_postings
            self.live_postings += places.n_postings
        sift_up(self.heap, self.n_heap, item)
        self.n_heap += 1
        return OK

    cdef int _place_records(
        self, Neighbour* table, const uint32_t* touched, uint64_t n_touched,
        const uint64_t* records, uint64_t n_records,
    ) noexcept nogil:
        """Sort the cells of this round by neighbour, into the postings behind `n_postings`.

        A neighbour with a single place keeps it in its cursor; the cursor of any other ends behind
        its last posting, relative to `n_postings`. Returns nothing: room was made before.
        """
        cdef uint64_t i
        cdef uint32_t at = 0
        cdef Neighbour* neighbour
        for i in range(n_touched):
            neighbour = &table[touched[i]]
            neighbour.cursor = at
            if neighbour.n_postings > 1:
                at += neighbour.n_postings
        for i in range(n_records):
            neighbour = &table[<uint32_t>(records[i] >> 32)]
            if neighbour.n_postings > 1:
                self.postings[self.n_postings + neighbour.cursor] = <uint32_t>records[i]
                neighbour.cursor += 1
            else:
                neighbour.cursor = <uint32_t>records[i]
        return at

    cdef int _reserve_postings(self, uint64_t more) noexcept nogil:
        cdef uint64_t stale
        cdef int code
        if self.n_postings + more > self.postings_capacity:
            if self.live_postings > self.most_postings:
                self._thin_postings(self.most_postings // 2)
            stale = self.n_postings - self.live_postings
            # where places are many, they are kept together sooner
            if stale > self.n_heap and (
                stale > self.live_postings
                or (2 * stale > self.live_postings and self.n_postings > self.most_postings)
            ):
                code = self._compact_postings()
                if code < 0:
                    return code
        return grow(
            <void**>&self.postings, &self.postings_capacity,
            self.n_postings + more, sizeof(uint32_t),
        )

    cdef bint _is_short_enough(self, uint32_t first, uint32_t second) noexcept nogil:
        return (
            <uint64_t>self.tokens[first].length + self.tokens[second].length
            < self.max_token_length
        )

    cdef int _apply_round(self, uint64_t merged_pair, uint32_t merged, bint reused) noexcept nogil:
        """Update counts from the noted neighbours and queue the pairs that came into being."""
        cdef uint32_t a = <uint32_t>(merged_pair >> 32)
        cdef uint32_t b = <uint32_t>merged_pair
        cdef uint32_t x
        cdef uint64_t i
        cdef int64_t total = 0
        cdef int64_t lost_before_merged = self.left[merged].weight
        cdef int code
        # A token that existed before can also stand to the right of its new self: one pair with
        # itself, not two.
        if self.right[merged].n_postings > 0:
            code = self._reserve_records(self.right[merged].n_postings)
            if code < 0:
                return code
            for i in range(self.n_records_right):
                if self.records_right[i] >> 32 == merged:
                    self.records_left[self.n_records_left] = self.records_right[i]
                    self.n_records_left += 1
            if self.left[merged].n_postings == 0:
                self.touched_left[self.n_touched_left] = merged
                self.n_touched_left += 1
            self.left[merged].weight += self.right[merged].weight
            self.left[merged].n_postings += self.right[merged].n_postings
        code = self._reserve_postings(self.n_records_left + self.n_records_right)
        if code < 0:
            return code
        # Gains before losses: the pair of the new token with the first half of the next occurrence
        # is gained and lost again within the round.
        for i in range(self.n_touched_left):
            x = self.touched_left[i]
            if self._is_short_enough(x, merged):
                code = self._add_to_pair(pair_of(x, merged), self.left[x].weight, &total)
                if code < 0:
                    return code
        for i in range(self.n_touched_right):
            x = self.touched_right[i]
            if x != merged and self._is_short_enough(merged, x):
                code = self._add_to_pair(pair_of(merged, x), self.right[x].weight, &total)
                if code < 0:
                    return code
        for i in range(self.n_touched_left):
            x = self.touched_left[i]
            total = lost_before_merged if x == merged else self.left[x].weight
            self._take_from_pair(pair_of(x, a), total)
        for i in range(self.n_touched_right):
            x = self.touched_right[i]
            self._take_from_pair(pair_of(b, x), self.right[x].weight)
        i = self._place_records(
            self.left, self.touched_left, self.n_touched_left,
            self.records_left, self.n_records_left,
        )
        code = self._queue_side(self.left, self.touched_left, self.n_touched_left, merged, True,
                                reused)
        if code < 0:
            return code
        self.n_postings += i
        i = self._place_records(
            self.right, self.touched_right, self.n_touched_right,
            self.records_right, self.n_records_right,
        )
        code = self._queue_side(self.right, self.touched_right, self.n_touched_right, merged, False,
                                reused)
        if code < 0:
            return code
        self.n_postings += i
        self.n_touched_left = 0
        self.n_touched_right = 0
        return OK

    cdef int _queue_side(
        self, Neighbour* table, const uint32_t* touched, uint64_t n_touched, uint32_t merged,
        bint is_left, bint reused,
    ) noexcept nogil:
        """Queue what one side gathered and clear it for the next round."""
        cdef uint64_t i
        cdef uint32_t x
        cdef int code
        for i in range(n_touched):
            x = touched[i]
            if is_left:
                if self._is_short_enough(x, merged):
                    code = self._queue(pair_of(x, merged), &table[x], reused)
                    if code < 0:
                        return code
            elif x != merged and self._is_short_enough(merged, x):
                code = self._queue(pair_of(merged, x), &table[x], reused)
                if code < 0:
                    return code
            table[x].weight = 0
            table[x].n_postings = 0
        return OK

    cdef int _merge_some(self, uint64_t vocab_size, int64_t min_frequency) noexcept nogil:
        """Merge for a while. Returns 1 if there is nothing left to do, 0 if there is."""
        cdef Candidate top
        cdef Candidate last
        cdef int64_t count
        cdef uint64_t places = 0
        cdef uint64_t n_before = self.n_merges
        cdef uint32_t a, b, merged
        cdef bint reused
        cdef int code
        while self.n_merges < n_before + MERGES_PER_CHECK and places < PLACES_PER_CHECK:
            if self.n_strings >= vocab_size or self.n_heap == 0:
                return 1
            top = self.heap[0]
            count = self._pair_count(top.pair)
            if count != top.count:
                top.count = count
                sift_down(self.heap, self.n_heap, 0, top)
                places += 1
                continue
            if count < 1 or count < min_frequency:
                return 1
            if top.at & THINNED and not self._is_repeated(top.pair):
                code = self._restore_postings()
                if code < 0:
                    return code
                top = self.heap[0]
                places += self.n_symbols // 8
            self.n_heap -= 1
            if self.n_heap > 0:
                last = self.heap[self.n_heap]
                sift_down(self.heap, self.n_heap, 0, last)
            a = <uint32_t>(top.pair >> 32)
            b = <uint32_t>top.pair
            code = self._spell_merge(a, b, &merged, &reused)
            if code < 0:
                return code
            code = grow(
                <void**>&self.merges, &self.merges_capacity, (self.n_merges + 1) * 3,
                sizeof(uint32_t),
            )
            if code < 0:
                return code
            self.merges[3 * self.n_merges] = a
            self.merges[3 * self.n_merges + 1] = b
            self.merges[3 * self.n_merges + 2] = merged
            self.n_merges += 1
            code = self._replace_everywhere(&top, merged)
            if code < 0:
                return code
            self.live_postings -= n_posted(&top)
            places += top.n_postings
            code = self._apply_round(top.pair, merged, reused)
            if code < 0:
                return code
        return 0

    cdef int _spell_merge(
        self, uint32_t a, uint32_t b, uint32_t* merged, bint* reused
    ) noexcept nogil:
        """Id of the token that `a` and `b` spell together, made if it is new."""
        cdef uint64_t skipped = 0
        cdef uint64_t length, slot
        cdef uint32_t width = self.tokens[a].width + self.tokens[b].width
        cdef uint8_t* spelling
        cdef int code
        if (
            self.n_prefix > 0
            and self.tokens[b].length >= self.n_prefix
            and memcmp(
                self.token_bytes + self.tokens[b].start, self.prefix_bytes, self.n_prefix
            ) == 0
        ):
            skipped = self.n_prefix
        length = <uint64_t>self.tokens[a].length + self.tokens[b].length - skipped
        if length > UINT32_MAX:
            return LIMIT_REACHED
        code = grow(
            <void**>&self.token_bytes, &self.token_bytes_capacity,
            self.n_token_bytes + 2 * length, 1,
        )
        if code < 0:
            return code
        spelling = self.token_bytes + self.n_token_bytes
        memcpy(spelling, self.token_bytes + self.tokens[a].start, self.tokens[a].length)
        memcpy(
            spelling + self.tokens[a].length,
            self.token_bytes + self.tokens[b].start + skipped, self.tokens[b].length - skipped,
        )
        slot = self._find_string(spelling, length)
        reused[0] = self.token_slots[slot] != UINT32_MAX
        if reused[0]:
            merged[0] = self.token_slots[slot]
            # a spelling that means two things: the caller keeps prefixes out of words
            return OK if self.tokens[merged[0]].width == width else BAD_ARGUMENT
        merged[0] = self.n_tokens
        code = self._reserve_tokens(<uint64_t>self.n_tokens + 1)
        if code < 0:
            return code
        code = self._set_string(self.n_tokens, spelling, length)
        if code == OK:
            self.tokens[self.n_tokens].width = width
            self.n_tokens += 1
        return code

    # ---- the public face ------------------------------------------------------------------------

    def add_characters(self, list words, list counts, dict first_ids, dict other_ids):
        """Take the distinct `words` (str) with their `counts`, once, a cell for each character.

        Parameters
        ----------
        first_ids, other_ids : dict of str to int
            Ids of the characters that start a word and that continue one; words lose a character
            that is not there.
        """
        cdef uint64_t n_characters = 0
        cdef uint64_t at, start
        cdef Py_ssize_t i
        cdef uint32_t token_id
        cdef str word
        for ids in (first_ids, other_ids):
            for token_id in ids.values():
                if token_id >= self.n_tokens:
                    raise ValueError("the id of a character is not below n_ids")
                self.tokens[token_id].width = 1
        for word in words:
            n_characters += len(word)
        self.allocate_words(n_characters, len(words))
        for i in range(len(words)):
            word = words[i]
            start = at = self.n_symbols
            ids = first_ids
            for char in word:
                found = ids.get(char)
                ids = other_ids
                if found is not None:
                    set_symbol(&self.symbols, at, found)
                    at += 1
            if at - start < 2:
                continue
            self.word_bits[start >> 6] |= <uint64_t>1 << (start & 63)
            set_symbol(&self.symbols, at, SEPARATOR)
            self.n_symbols = at + 1
            self.word_counts[self.n_words] = counts[i]
            self.n_words += 1

    def run(
        self, uint64_t vocab_size, int64_t min_frequency=0, progress=None, most_postings=None
    ):
        """Merge until the vocabulary has `vocab_size` tokens or no pair is left.

        Parameters
        ----------
        vocab_size : int
            Number of distinct token strings to stop at.
        min_frequency : int
            Stop when the best pair occurs less often than this.
        progress : callable, optional
            Called as ``progress(n_tokens)`` from time to time.
        most_postings : int, optional
            Places of pairs to keep, where keeping more does not pay; by default a quarter of the
            cells, and at least four million. The merges do not depend on it.

        Notes
        -----
        Time grows with the number of occurrences that are merged, times the logarithm of the number
        of distinct pairs. Runs without the GIL; signals are looked at between batches of merges.
        """
        cdef int code
        if self.word_bits == NULL:
            return
        self.most_postings = max(self.n_symbols // 4, FEWEST_POSTINGS)
        if most_postings is not None:
            self.most_postings = most_postings
        with nogil:
            code = self._rank_words()
            if code == OK:
                code = self._queue_initial_pairs()
        check(code, "counting pairs")
        while True:
            with nogil:
                code = self._merge_some(vocab_size, min_frequency)
            check(code, "merging pairs")
            PyErr_CheckSignals()
            if progress is not None:
                progress(self.n_strings)
            if code == 1:
                return

    def merges_by_rank(self):
        """The merges as ``(left, right, merged)`` ids; a repeated pair has its last place."""
        cdef uint64_t i
        ranks = {}
        for i in range(self.n_merges):
            pair = (self.merges[3 * i], self.merges[3 * i + 1])
            ranks.pop(pair, None)
            ranks[pair] = self.merges[3 * i + 2]
        return [(a, b, merged) for (a, b), merged in ranks.items()]

    def token_strings(self):
        """Bytes of every token, by id; ids that were reserved without a spelling are empty."""
        cdef uint32_t i
        return [
            self.token_bytes[self.tokens[i].start:self.tokens[i].start + self.tokens[i].length]
            for i in range(self.n_tokens)
        ]

    def statistics(self):
        """Sizes of the working memory, for benchmarks and tests."""
        return {
            "symbols": self.n_symbols,
            "words": self.n_words,
            "pairs": self.n_pairs,
            "candidates": self.n_heap,
            "postings": self.n_postings,
            "live_postings": self.live_postings,
            "repeated": self.n_repeated,
            "restored": self.n_restored,
        }

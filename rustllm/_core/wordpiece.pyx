"""WordPiece: cleaning, cutting into words and greedy longest match in one pass over the text.

What a character becomes (nothing, a space, lower case without accents, a word of its own) is asked
of Python once for each character and kept in a table, so this code knows no rules of its own and
cannot disagree with them. A word is looked up whole; if it is no token, the longest token that it
starts with is, and so on, with the hashes of all beginnings taken in one go.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy

import numpy as np

from rustllm._core.specials cimport SpecialMatcher
from rustllm._core.status cimport NO_MEMORY, OK, check
from rustllm._core.text cimport TextView, view_text

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(_MSC_VER)
    #define rl_load_flags(p) (*(volatile uint8_t *)(p))
    #define rl_store_flags(p, x) (*(volatile uint8_t *)(p) = (x))
    #define rl_load_page(p) (*(void *volatile *)(p))
    #define rl_store_page(p, x) (*(void *volatile *)(p) = (x))
    #else
    #define rl_load_flags(p) __atomic_load_n((uint8_t *)(p), __ATOMIC_ACQUIRE)
    #define rl_store_flags(p, x) __atomic_store_n((uint8_t *)(p), (uint8_t)(x), __ATOMIC_RELEASE)
    #define rl_load_page(p) __atomic_load_n((void **)(p), __ATOMIC_ACQUIRE)
    #define rl_store_page(p, x) __atomic_store_n((void **)(p), (void *)(x), __ATOMIC_RELEASE)
    #endif
    """
    uint8_t rl_load_flags(const uint8_t* p) noexcept nogil
    void rl_store_flags(uint8_t* p, uint8_t x) noexcept nogil
    void* rl_load_page(void** p) noexcept nogil
    void rl_store_page(void** p, void* x) noexcept nogil

cdef enum:
    LONGEST_WORD = 1024     # characters
    UNKNOWN_CHARACTER = 1
    NOT_HERE = 2

cdef uint32_t NO_PIECE = 0xFFFFFFFF
cdef uint64_t SEED = <uint64_t>0x9E3779B97F4A7C15
cdef uint64_t FACTOR = <uint64_t>0xD6E8FEB86659FD93


cdef inline uint64_t step(uint64_t h, uint8_t byte) noexcept nogil:
    h = (h ^ byte) * FACTOR
    return h ^ (h >> 32)


cdef inline uint32_t point_at(const void* data, Py_ssize_t i, int kind) noexcept nogil:
    if kind <= 1:
        return (<const uint8_t*>data)[i]
    if kind == 2:
        return (<const unsigned short*>data)[i]
    return (<const uint32_t*>data)[i]


@cython.final
cdef class WordPieceEncoder:
    """Text to WordPiece ids, normalization and cutting included.

    Parameters
    ----------
    tokens : list of (bytes, int)
        Tokens that start a word, with their ids.
    continuing : list of (bytes, int)
        Tokens that continue one, without their prefix.
    unknown : int
        What a word becomes that cannot be written whole.
    longest_word : int
        Characters of the longest word that is looked at, at most 1024.
    describe : callable
        Called with a character not seen before; returns the bytes that it becomes and whether a
        word ends before and after them, or None if that depends on what stands around it.

    Notes
    -----
    Immutable but for the table of characters, which only grows; any number of threads may encode at
    once.
    """

    def __cinit__(
        self, list tokens, list continuing, uint32_t unknown, uint32_t longest_word, describe
    ):
        cdef list table
        cdef uint64_t n_bytes = 0, used = 0, n_slots, i, h
        cdef bytes text
        cdef const uint8_t* p
        cdef int which
        cdef Py_ssize_t k
        if longest_word > LONGEST_WORD:
            raise ValueError(f"longest_word {longest_word} is above {LONGEST_WORD}")
        self.unknown = unknown
        self.longest_word = longest_word
        self.describe = describe
        for table in (tokens, continuing):
            for text, _ in table:
                n_bytes += len(text)
        if n_bytes >= NO_PIECE:
            raise ValueError("the vocabulary is too large")
        self.blob = <uint8_t*>malloc(n_bytes + 1)
        if self.blob == NULL:
            raise MemoryError("vocabulary")
        for which in range(2):
            table = continuing if which else tokens
            n_slots = 64
            while n_slots < 2 * <uint64_t>len(table):
                n_slots *= 2
            self.slots[which] = <PieceSlot*>calloc(n_slots, sizeof(PieceSlot))
            if self.slots[which] == NULL:
                raise MemoryError("vocabulary")
            self.masks[which] = n_slots - 1
            for text, id_ in table:
                if not text:
                    continue
                p = text
                h = SEED
                for k in range(len(text)):
                    h = step(h, p[k])
                memcpy(self.blob + used, p, len(text))
                i = h & self.masks[which]
                while self.slots[which][i].length:
                    i = (i + 1) & self.masks[which]
                self.slots[which][i].hash = h
                self.slots[which][i].id = id_
                self.slots[which][i].start = <uint32_t>used
                self.slots[which][i].length = <uint32_t>len(text)
                self.longest[which] = max(self.longest[which], <uint32_t>len(text))
                used += len(text)
        for i in range(128):
            self.learn(<uint32_t>i)

    def __dealloc__(self):
        cdef int i
        free(self.blob)
        free(self.slots[0])
        free(self.slots[1])
        for i in range(0x1100):
            free(self.pages[i])

    cdef int learn(self, uint32_t code_point) except -1:
        """Ask what becomes of a character, and keep it."""
        cdef CharEntry* entry
        cdef void* page
        cdef uint8_t flags = KNOWN
        cdef bytes output
        cdef bint before, after
        if code_point < 128:
            entry = &self.ascii[code_point]
        else:
            page = rl_load_page(&self.pages[code_point >> 8])
            if page == NULL:
                page = calloc(256, sizeof(CharEntry))
                if page == NULL:
                    raise MemoryError("table of characters")
                rl_store_page(&self.pages[code_point >> 8], page)
            entry = &(<CharEntry*>page)[code_point & 255]
        if entry.flags & KNOWN:
            return 0
        described = self.describe(chr(code_point))
        if entry.flags & KNOWN:
            return 0  # another thread was faster
        if described is None:
            flags |= COMPLEX
        else:
            output, before, after = described
            if len(output) > MAX_OUTPUT:
                flags |= COMPLEX
            else:
                if before:
                    flags |= BREAK_BEFORE
                if after:
                    flags |= BREAK_AFTER
                entry.length = <uint8_t>len(output)
                memcpy(entry.bytes, <const uint8_t*>output, len(output))
        rl_store_flags(&entry.flags, flags)
        return 0

    cdef uint32_t find(
        self, int table, uint64_t hash_, const uint8_t* p, Py_ssize_t n
    ) noexcept nogil:
        cdef uint64_t i = hash_ & self.masks[table]
        cdef const PieceSlot* slot
        while True:
            slot = &self.slots[table][i]
            if slot.length == 0:
                return NO_PIECE
            if slot.hash == hash_ and slot.length == n and not memcmp(self.blob + slot.start, p, n):
                return slot.id
            i = (i + 1) & self.masks[table]

    cdef Py_ssize_t encode_word(
        self, const uint8_t* word, Py_ssize_t n, uint32_t* out
    ) noexcept nogil:
        """Write the ids of a word of `n` > 0 bytes to `out`, which has room for `n`."""
        cdef uint64_t hashes[4 * LONGEST_WORD + 1]
        cdef uint64_t h
        cdef Py_ssize_t start = 0, end, most, count = 0
        cdef uint32_t id = NO_PIECE
        cdef int table = 0
        while start < n:
            most = min(n - start, <Py_ssize_t>self.longest[table])
            h = SEED
            for end in range(most):
                h = step(h, word[start + end])
                hashes[end + 1] = h
            end = most
            while end > 0:
                # a token ends where a character does
                if start + end == n or (word[start + end] & 0xC0) != 0x80:
                    id = self.find(table, hashes[end], word + start, end)
                    if id != NO_PIECE:
                        break
                end -= 1
            if end == 0:
                out[0] = self.unknown
                return 1
            out[count] = id
            count += 1
            start += end
            table = 1
        return count

    cdef int encode_points(
        self, const void* data, Py_ssize_t n, int kind, uint32_t** out, Py_ssize_t* n_out,
        uint32_t* stopped_at
    ) noexcept nogil:
        cdef uint8_t word[4 * LONGEST_WORD + 4 * MAX_OUTPUT]
        cdef const CharEntry* entry
        cdef const CharEntry* page
        cdef Py_ssize_t i, used = 0, n_chars = 0, room = 0, k
        cdef Py_ssize_t limit = 4 * <Py_ssize_t>self.longest_word
        cdef uint32_t point
        cdef uint32_t* moved
        cdef uint8_t flags
        n_out[0] = 0
        for i in range(n + 1):
            if n_out[0] + limit + 2 > room:
                room = room + (room >> 1) + 2 * limit + 256
                moved = <uint32_t*>realloc(out[0], room * sizeof(uint32_t))
                if moved == NULL:
                    return NO_MEMORY
                out[0] = moved
            if i < n:
                point = point_at(data, i, kind)
                if point < 128:
                    entry = &self.ascii[point]
                    flags = entry.flags
                else:
                    if point > 0x10FFFF:
                        return NO_MEMORY
                    page = <const CharEntry*>rl_load_page(&self.pages[point >> 8])
                    flags = 0
                    entry = NULL
                    if page != NULL:
                        entry = &page[point & 255]
                        flags = rl_load_flags(&entry.flags)
                    if not flags & KNOWN:
                        stopped_at[0] = point
                        return UNKNOWN_CHARACTER
                if flags & COMPLEX:
                    return NOT_HERE
            else:
                entry = NULL
                flags = BREAK_BEFORE
            if flags & BREAK_BEFORE and n_chars:
                if n_chars > self.longest_word:
                    out[0][n_out[0]] = self.unknown
                    n_out[0] += 1
                else:
                    n_out[0] += self.encode_word(word, used, out[0] + n_out[0])
                used = 0
                n_chars = 0
            if entry == NULL:
                break
            # once a word is too long, only the number of its characters matters
            if n_chars <= self.longest_word and used + entry.length <= limit + 4 * MAX_OUTPUT:
                memcpy(word + used, entry.bytes, MAX_OUTPUT)
                for k in range(entry.length):
                    n_chars += (entry.bytes[k] & 0xC0) != 0x80
                used += entry.length
            if flags & BREAK_AFTER and n_chars:
                if n_chars > self.longest_word:
                    out[0][n_out[0]] = self.unknown
                    n_out[0] += 1
                else:
                    n_out[0] += self.encode_word(word, used, out[0] + n_out[0])
                used = 0
                n_chars = 0
        return OK

    def encode(self, text, SpecialMatcher stop=None):
        """Ids of `text` as ``uint32 [n_tokens]``.

        Returns None if the text holds one of the tokens of `stop`, or a character whose treatment
        depends on its neighbours.
        """
        cdef TextView view
        cdef uint32_t* out = NULL
        cdef Py_ssize_t n_out = 0
        cdef uint32_t point = 0
        cdef int code
        cdef uint32_t[::1] target
        if stop is not None and stop.find_all(text.encode("utf-8", "surrogatepass")):
            return None
        view_text(text, &view)
        try:
            while True:
                with nogil:
                    code = self.encode_points(
                        view.data, view.length, view.kind, &out, &n_out, &point
                    )
                if code != UNKNOWN_CHARACTER:
                    break
                for char in set(text):
                    if ord(char) >= 128:
                        self.learn(ord(char))
            check(code, "WordPiece")
            if code == NOT_HERE:
                return None
            array = np.empty(n_out, np.uint32)
            if n_out:
                target = array
                memcpy(&target[0], out, n_out * sizeof(uint32_t))
            return array
        finally:
            free(out)

# WordPiece: cleaning, cutting into words and greedy longest match in one pass over the code points.

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    KNOWN = 1           # the entry is filled
    BREAK_BEFORE = 2    # ends the word before it
    BREAK_AFTER = 4     # ends the word that it ends
    COMPLEX = 8         # what it becomes depends on its neighbours: not for this code
    MAX_OUTPUT = 14

# What becomes of one character: bytes of the word, and where words end.
cdef struct CharEntry:
    uint8_t flags
    uint8_t length
    uint8_t bytes[MAX_OUTPUT]

cdef struct PieceSlot:
    uint64_t hash
    uint32_t id
    uint32_t start
    uint32_t length     # 0: the slot is free


@cython.final
cdef class WordPieceEncoder:
    cdef CharEntry ascii[128]
    cdef void* pages[0x1100]        # of 256 entries, NULL until one of them is known
    cdef PieceSlot* slots[2]        # tokens that start a word; that continue one
    cdef uint64_t masks[2]
    cdef uint8_t* blob
    cdef uint32_t longest[2]
    cdef uint32_t unknown
    cdef uint32_t longest_word
    cdef object describe

    cdef int encode_points(
        self, const void* data, Py_ssize_t n, int kind, uint32_t** out, Py_ssize_t* n_out,
        uint32_t* stopped_at
    ) noexcept nogil
    cdef Py_ssize_t encode_word(
        self, const uint8_t* word, Py_ssize_t n, uint32_t* out
    ) noexcept nogil
    cdef uint32_t find(
        self, int table, uint64_t hash_, const uint8_t* p, Py_ssize_t n
    ) noexcept nogil
    cdef int learn(self, uint32_t code_point) except -1

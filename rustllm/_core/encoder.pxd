# The encoder: text to ids and back over immutable tables, by any number of threads.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from rustllm._core.bpe cimport Bpe
from rustllm._core.cache cimport Workspace
from rustllm._core.specials cimport SpecialMatcher, Trie
from rustllm._core.text cimport TextView

cdef enum:
    MAX_SPARE = 64

# What encoding reads; immutable.
cdef struct Coder:
    Bpe bpe
    int pattern             # of rustllm._core.split, or -1 to merge across the whole text
    bint spaces             # text is SentencePiece's: U+2581 and the space are one
    int prefix              # 0: none; 1: a space before the text; 2: before each fragment

# Append the ids of text[at:stop] to space.out, where both are borders of pretokens and `end` is the
# end of the text. A negative status on failure.
cdef int encode_range(
    const Coder* coder, Workspace* space, const uint8_t* text, Py_ssize_t at, Py_ssize_t stop,
    Py_ssize_t end
) noexcept nogil

# The same for a whole text, with the tokens of `accept` in it if that is not NULL.
cdef int encode_text(
    const Coder* coder, Workspace* space, const uint8_t* text, Py_ssize_t n, const Trie* accept
) noexcept nogil

cdef class Encoder:
    cdef Coder coder
    cdef bint ready
    cdef readonly dict parts        # what the encoder was made of, for pickling
    cdef uint8_t* listed            # [n] 1 when text can give the id without naming a special token
    cdef void* spare[MAX_SPARE]     # workspaces not in use
    cdef void* spelling             # [n + 1, 16] short tokens and their lengths, or NULL
    cdef void** ints                # [n] Python integers of ids, made when first listed

    cdef Workspace* take(self) noexcept nogil
    cdef void give(self, Workspace* space) noexcept nogil
    cdef list as_list(self, const uint32_t* ids, Py_ssize_t n)
    cdef const uint8_t* fetch(self, Workspace* space, object text, Py_ssize_t* n) except NULL
    cdef object run(self, object text, SpecialMatcher accept, SpecialMatcher refuse, int kind)
    cdef int encode_long_text(self, Workspace* space, const uint8_t* text, Py_ssize_t n) except -1
    cdef object batch(
        self, object texts, SpecialMatcher accept, SpecialMatcher refuse, int threads, int kind
    )
    cdef Py_ssize_t spell(self, Workspace* space, object ids) except -1
    cdef Py_ssize_t spell_list(self, Workspace* space, list ids) except -1
    cdef int make_spellings(self) except -1
    cdef Py_ssize_t join(self, Workspace* space, const uint32_t* ids, Py_ssize_t n) except -1

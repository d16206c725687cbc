# The encoder: text to ids and back over immutable tables, by any number of threads.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from rustllm._core.bpe cimport Bpe
from rustllm._core.cache cimport Workspace
from rustllm._core.specials cimport SpecialMatcher

cdef enum:
    MAX_SPARE = 64

cdef class Encoder:
    cdef Bpe bpe
    cdef readonly int pattern       # of rustllm._core.split, or -1 to merge across the whole text
    cdef readonly bint spaces       # text is SentencePiece's: U+2581 and the space are one
    cdef readonly int prefix        # 0: none; 1: a space before the text; 2: before each fragment
    cdef bint ready
    cdef readonly dict parts        # what the encoder was made of, for pickling
    cdef uint8_t* listed            # [n] 1 when text can give the id without naming a special token
    cdef void* spare[MAX_SPARE]     # workspaces not in use
    cdef void** ints                # [n] Python integers of ids, made when first listed

    cdef Workspace* take(self) noexcept nogil
    cdef void give(self, Workspace* space) noexcept nogil
    # Append the ids of text[at:stop] to space.out, where both are borders of pretokens and `end` is
    # the end of the text. A negative status on failure.
    cdef int encode_range(
        self, Workspace* space, const uint8_t* text, Py_ssize_t at, Py_ssize_t stop, Py_ssize_t end
    ) noexcept nogil
    # The same for a whole text with the tokens of `accept` in it, if it is not None.
    cdef int encode_text(
        self, Workspace* space, const uint8_t* text, Py_ssize_t n, SpecialMatcher accept
    ) noexcept nogil
    cdef int encode_fragment(
        self, Workspace* space, const uint8_t* text, Py_ssize_t n, bint first
    ) noexcept nogil
    cdef list as_list(self, const uint32_t* ids, Py_ssize_t n)
    cdef const uint8_t* fetch(self, Workspace* space, object text, Py_ssize_t* n) except NULL
    cdef object run(self, object text, SpecialMatcher accept, SpecialMatcher refuse, int kind)
    cdef bytes decode_sequence(self, list ids)
    cdef bytes join(self, const uint32_t* ids, Py_ssize_t n)

# One thread's way from a stretch of text to ids.

from libc.stdint cimport uint8_t

from rustllm._core.bpe cimport Bpe
from rustllm._core.cache cimport Workspace
from rustllm._core.specials cimport Trie

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

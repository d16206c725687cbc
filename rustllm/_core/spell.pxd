# Ids to the bytes that they spell.

from libc.stdint cimport uint8_t, uint32_t

from rustllm._core.cache cimport Workspace
from rustllm._core.vocab cimport Vocab

cdef struct Speller:
    const Vocab* vocab
    const uint8_t* short    # [n, 16] tokens of up to 15 bytes and their lengths, 255: longer

# The table of a Speller, for free(); NULL when there is no memory.
cdef uint8_t* spelling_new(const Vocab* vocab) noexcept nogil

# Write to space.text what `ids` spell: a list of integers, or an array of uint32. Return how many
# bytes it is; KeyError with the first id that is not in use.
cdef Py_ssize_t spell_list(const Speller* speller, Workspace* space, list ids) except -1
cdef Py_ssize_t spell_array(
    const Speller* speller, Workspace* space, const uint32_t* ids, Py_ssize_t n
) except -1

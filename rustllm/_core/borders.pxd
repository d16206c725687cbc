# Places in a pretoken that no token reaches across: what is on either side is merged alone.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from rustllm._core.vocab cimport Vocab

# What crosses a border between two characters, of tokens ids[:n], for free(); NULL when there is no
# memory.
cdef uint64_t* borders_new(const Vocab* vocab, const uint32_t* ids, uint32_t n) noexcept nogil

# Cut text[:n], n > 0, where nothing crosses: where each part ends, at most `room` of them, of which
# the last may leave a rest. Returns how many.
cdef Py_ssize_t borders_cut(
    const uint64_t* crossed, const uint8_t* text, Py_ssize_t n, uint32_t* ends, Py_ssize_t room
) noexcept nogil

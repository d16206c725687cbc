# Finding special and added tokens in text: a trie over bytes, entered where a first byte occurs.

from libc.stdint cimport uint8_t, uint32_t

cdef struct TrieNode:
    uint32_t child          # first child, 0 if none
    uint32_t sibling        # next child of the same parent, 0 if none
    uint32_t id             # token that ends here, NO_ID if none
    uint8_t byte

cdef struct Trie:
    TrieNode* node
    uint32_t root[256]      # node of each first byte, 0 if no token starts with it
    int only_first          # the one first byte of all tokens, or -1

# Position of the first token in text[at:end], the longest there, or `end`; its id and length.
cdef Py_ssize_t trie_find(
    const Trie* trie, const uint8_t* text, Py_ssize_t at, Py_ssize_t end, uint32_t* id,
    Py_ssize_t* length
) noexcept nogil

cdef class SpecialMatcher:
    cdef Trie trie
    cdef uint32_t n_nodes
    cdef uint32_t room
    cdef readonly dict tokens
    cdef int add(self, const uint8_t* p, Py_ssize_t n, uint32_t id) except -1

# Unigram: the best segmentation of a piece by Viterbi's algorithm over a trie.

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

# An edge of the trie: node << 8 | byte -> child. Node 0 is the root and nobody's child.
cdef struct Edge:
    uint32_t key
    uint32_t child      # 0: the slot is free


cdef struct NodeValue:
    double score
    int32_t id          # -1: no token ends here


cdef struct Step:
    double score
    uint32_t start      # where the best token that ends here starts
    int32_t id          # -1: nothing ends here yet


# Scratch memory of one call.
cdef struct Lattice:
    Step* steps
    uint64_t n_steps
    uint32_t* out
    uint64_t n_out
    uint64_t out_room


@cython.final
cdef class UnigramEncoder:
    cdef Edge* edges
    cdef uint64_t mask
    cdef uint32_t first[256]        # children of the root
    cdef NodeValue* values
    cdef uint32_t n_nodes
    cdef uint64_t longest           # bytes of the longest token
    cdef int32_t unknown
    cdef double unknown_score
    cdef bint falls_back
    cdef bint single_precision
    cdef uint32_t fallback[256]

    cdef uint32_t child(self, uint32_t node, uint8_t byte) noexcept nogil
    cdef int insert(
        self, const uint8_t* p, Py_ssize_t n, int32_t id_, double score, uint64_t* node_room
    ) noexcept nogil
    cdef int encode_bytes(self, Lattice* lattice, const uint8_t* p, uint64_t n) noexcept nogil
    cdef int encode_marked(self, Lattice* lattice, const uint8_t* p, uint64_t n) noexcept nogil
    cdef object run(self, text, bint cut_at_marks)

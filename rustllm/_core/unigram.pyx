"""Unigram: the best segmentation of a piece by Viterbi's algorithm over a trie.

Scores are added in the order in which the reference adds them, in double precision as
``tokenizers`` does or in single as SentencePiece does, so that ties fall the same way.
"""

cimport cython
from libc.stdint cimport INT32_MAX, int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

import numpy as np

from rustllm._core.status cimport LIMIT_REACHED, NO_MEMORY, OK, OUT_OF_RANGE, check

cdef enum:
    MAX_NODES = 1 << 24
    RESET_BELOW = 100000


cdef inline uint64_t place(uint32_t key) noexcept nogil:
    return (key * <uint64_t>0x9E3779B97F4A7C15) >> 24


@cython.final
cdef class UnigramEncoder:
    """Pieces of text to the ids of the most probable tokens.

    Parameters
    ----------
    entries : list of (bytes, int, float)
        Tokens with their ids and scores; no spelling twice.
    unknown : int
        Id of what is in no token, -1 for none.
    unknown_score : float
    fallback : list of 256 int, optional
        Ids of single bytes, for what is in no token.
    single_precision : bool
        Add scores as float32.

    Notes
    -----
    Immutable; any number of threads may encode at once, each call with memory of its own.
    """

    def __cinit__(
        self, list entries, int32_t unknown, double unknown_score, fallback=None,
        bint single_precision=False,
    ):
        cdef uint64_t n_bytes = 0, n_slots = 1024, node_room = 1024
        cdef bytes text
        cdef int i, code
        for text, _, _ in entries:
            n_bytes += len(text)
        while n_slots < 2 * n_bytes + 16:
            n_slots *= 2
        if n_slots > <uint64_t>1 << 28:
            raise ValueError("the vocabulary is too large")
        self.unknown = unknown
        self.unknown_score = unknown_score
        self.single_precision = single_precision
        self.edges = <Edge*>calloc(n_slots, sizeof(Edge))
        self.values = <NodeValue*>malloc(node_room * sizeof(NodeValue))
        if self.edges == NULL or self.values == NULL:
            raise MemoryError("vocabulary")
        self.mask = n_slots - 1
        self.n_nodes = 1
        self.values[0].id = -1
        for text, id_, score in entries:
            if not text:
                raise ValueError("an empty token")
            code = self.insert(<const uint8_t*>text, len(text), id_, score, &node_room)
            check(code, "the vocabulary is too large")
            self.longest = max(self.longest, <uint64_t>len(text))
        for i in range(256):
            self.first[i] = self.child(0, <uint8_t>i)
        if fallback is not None:
            if len(fallback) != 256:
                raise ValueError("fallback needs 256 ids")
            self.falls_back = True
            for i in range(256):
                self.fallback[i] = fallback[i]

    def __dealloc__(self):
        free(self.edges)
        free(self.values)

    cdef uint32_t child(self, uint32_t node, uint8_t byte) noexcept nogil:
        cdef uint32_t key = node << 8 | byte
        cdef uint64_t i = place(key) & self.mask
        while self.edges[i].child and self.edges[i].key != key:
            i = (i + 1) & self.mask
        return self.edges[i].child

    cdef int insert(
        self, const uint8_t* p, Py_ssize_t n, int32_t id_, double score, uint64_t* node_room
    ) noexcept nogil:
        cdef uint32_t node = 0, key
        cdef uint64_t i
        cdef Py_ssize_t k
        cdef void* moved
        for k in range(n):
            key = node << 8 | p[k]
            i = place(key) & self.mask
            while self.edges[i].child and self.edges[i].key != key:
                i = (i + 1) & self.mask
            if self.edges[i].child == 0:
                if self.n_nodes >= MAX_NODES:
                    return LIMIT_REACHED
                if self.n_nodes >= node_room[0]:
                    moved = realloc(self.values, 2 * node_room[0] * sizeof(NodeValue))
                    if moved == NULL:
                        return NO_MEMORY
                    self.values = <NodeValue*>moved
                    node_room[0] *= 2
                self.edges[i].key = key
                self.edges[i].child = self.n_nodes
                self.values[self.n_nodes].id = -1
                self.n_nodes += 1
            node = self.edges[i].child
        self.values[node].id = id_
        self.values[node].score = score
        return OK

    cdef int encode_bytes(self, Lattice* lattice, const uint8_t* p, uint64_t n) noexcept nogil:
        """Append the ids of one piece."""
        cdef Step* steps
        cdef Step* target
        cdef uint64_t at = 0, end, width, kept
        cdef uint32_t node, swap
        cdef double here, score
        cdef bint single, fusing
        cdef int32_t id_
        cdef void* moved
        if n == 0:
            return OK
        if n >= INT32_MAX:
            return LIMIT_REACHED
        if n + 1 > lattice.n_steps:
            moved = realloc(lattice.steps, (n + 1 + n // 2) * sizeof(Step))
            if moved == NULL:
                return NO_MEMORY
            lattice.steps = <Step*>moved
            lattice.n_steps = n + 1 + n // 2
        if lattice.n_out + n > lattice.out_room:
            moved = realloc(lattice.out, (2 * lattice.out_room + n) * sizeof(uint32_t))
            if moved == NULL:
                return NO_MEMORY
            lattice.out = <uint32_t*>moved
            lattice.out_room = 2 * lattice.out_room + n
        steps = lattice.steps
        steps[0].score = 0
        for end in range(1, n + 1):
            steps[end].id = -1
        while at < n:
            here = steps[at].score
            if self.single_precision and here < -RESET_BELOW:
                # SentencePiece keeps the sums of a long text small, so that they stay precise
                for end in range(at, min(n, at + self.longest) + 1):
                    if end == at or steps[end].id >= 0:
                        steps[end].score = <float>(steps[end].score - here)
                here = 0
            single = False
            width = 1
            while at + width < n and (p[at + width] & 0xC0) == 0x80:
                width += 1
            node = self.first[p[at]]
            end = at + 1
            while node:
                id_ = self.values[node].id
                if id_ >= 0:
                    score = self.values[node].score + here
                    if self.single_precision:
                        score = <float>score
                    target = &steps[end]
                    if target.id < 0 or score > target.score:
                        target.score = score
                        target.start = <uint32_t>at
                        target.id = id_
                    if end == at + width:
                        single = True
                if end == n:
                    break
                node = self.child(node, p[end])
                end += 1
            if not single:
                score = self.unknown_score + here
                if self.single_precision:
                    score = <float>score
                target = &steps[at + width]
                if target.id < 0 or score > target.score:
                    if self.unknown < 0:
                        return OUT_OF_RANGE
                    target.score = score
                    target.start = <uint32_t>at
                    target.id = self.unknown
            at += width
        # from the end to the start, then turned round
        kept = lattice.n_out
        end = n
        fusing = False
        while end > 0:
            id_ = steps[end].id
            at = steps[end].start
            if id_ == self.unknown and self.unknown >= 0:
                if self.falls_back:
                    while end > at:
                        end -= 1
                        lattice.out[lattice.n_out] = self.fallback[p[end]]
                        lattice.n_out += 1
                elif not fusing:
                    lattice.out[lattice.n_out] = <uint32_t>id_
                    lattice.n_out += 1
                fusing = True
            else:
                lattice.out[lattice.n_out] = <uint32_t>id_
                lattice.n_out += 1
                fusing = False
            end = at
        at = kept
        end = lattice.n_out
        while at + 1 < end:
            end -= 1
            swap = lattice.out[at]
            lattice.out[at] = lattice.out[end]
            lattice.out[end] = swap
            at += 1
        return OK

    cdef int encode_marked(self, Lattice* lattice, const uint8_t* p, uint64_t n) noexcept nogil:
        """Append the ids of pieces that each start with U+2581."""
        cdef uint64_t start = 0, at = 1
        cdef int code
        while at + 2 < n:
            if p[at] == 0xE2 and p[at + 1] == 0x96 and p[at + 2] == 0x81:
                code = self.encode_bytes(lattice, p + start, at - start)
                if code < 0:
                    return code
                start = at
                at += 2
            at += 1
        return self.encode_bytes(lattice, p + start, n - start)

    cdef object run(self, text, bint cut_at_marks):
        cdef bytes data = text.encode("utf-8", "surrogatepass")
        cdef const uint8_t* p = data
        cdef uint64_t n = len(data)
        cdef Lattice lattice
        cdef uint32_t[::1] target
        cdef int code
        memset(&lattice, 0, sizeof(Lattice))
        try:
            with nogil:
                if cut_at_marks:
                    code = self.encode_marked(&lattice, p, n)
                else:
                    code = self.encode_bytes(&lattice, p, n)
            if code == OUT_OF_RANGE:
                raise KeyError("a character that is in no token")
            check(code, "Unigram")
            array = np.empty(lattice.n_out, np.uint32)
            if lattice.n_out:
                target = array
                memcpy(&target[0], lattice.out, lattice.n_out * sizeof(uint32_t))
            return array
        finally:
            free(lattice.steps)
            free(lattice.out)

    def encode_piece(self, str text):
        """Ids of one piece as ``uint32 [n_tokens]``; KeyError if it cannot be written."""
        return self.run(text, False)

    def encode_pieces(self, str text):
        """Ids of the pieces of `text`, each of which starts with U+2581 (but maybe the first)."""
        return self.run(text, True)

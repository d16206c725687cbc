"""Finding special and added tokens in text: the leftmost, and of those the longest.

Most text holds no special token and most vocabularies spell theirs with one first byte, so the
search is `memchr`; from there a trie is walked, at most as deep as the longest token.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memset

from rustllm._core.vocab cimport NO_ID


cdef class SpecialMatcher:
    """Set of special tokens to look for; immutable, so any number of threads may search with it.

    Parameters
    ----------
    tokens : dict of bytes to int
        Spelling and id of each; an empty spelling is left out.
    """

    def __cinit__(self, dict tokens):
        cdef int first
        cdef bytes spelling
        self.tokens = dict(tokens)
        memset(self.root, 0, sizeof(self.root))
        self.only_first = -1
        self.n_nodes = 1
        for spelling, id in tokens.items():
            if spelling:
                self.add(spelling, len(spelling), id)
        firsts = [first for first in range(256) if self.root[first]]
        if len(firsts) == 1:
            self.only_first = firsts[0]

    def __dealloc__(self):
        free(self.node)

    cdef int add(self, const uint8_t* p, Py_ssize_t n, uint32_t id) except -1:
        cdef uint32_t here = 0, child
        cdef Py_ssize_t i
        cdef void* grown
        if self.n_nodes + n >= <Py_ssize_t>self.room:
            self.room = <uint32_t>(self.room * 2 + n + 64)
            grown = realloc(self.node, self.room * sizeof(TrieNode))
            if grown is NULL:
                raise MemoryError
            self.node = <TrieNode*>grown
        for i in range(n):
            child = self.root[p[0]] if i == 0 else self.node[here].child
            while i and child and self.node[child].byte != p[i]:
                child = self.node[child].sibling
            if not child:
                child = self.n_nodes
                self.n_nodes += 1
                self.node[child].byte = p[i]
                self.node[child].child = 0
                self.node[child].id = NO_ID
                self.node[child].sibling = 0
                if i == 0:
                    self.root[p[0]] = child
                else:
                    self.node[child].sibling = self.node[here].child
                    self.node[here].child = child
            here = child
        self.node[here].id = id
        return 0

    cdef Py_ssize_t find(
        self, const uint8_t* text, Py_ssize_t at, Py_ssize_t end, uint32_t* id, Py_ssize_t* length
    ) noexcept nogil:
        cdef uint32_t here
        cdef Py_ssize_t i
        cdef const void* hit
        length[0] = 0
        while at < end:
            if self.only_first >= 0:
                hit = memchr(text + at, self.only_first, end - at)
                if hit is NULL:
                    return end
                at = <const uint8_t*>hit - text
            else:
                while at < end and not self.root[text[at]]:
                    at += 1
                if at == end:
                    return end
            here = self.root[text[at]]
            i = at + 1
            while True:
                if self.node[here].id != NO_ID:
                    id[0] = self.node[here].id
                    length[0] = i - at
                if i >= end:
                    break
                here = self.node[here].child
                while here and self.node[here].byte != text[i]:
                    here = self.node[here].sibling
                if not here:
                    break
                i += 1
            if length[0]:
                return at
            at += 1
        return end

    def find_all(self, bytes text):
        """List of (position, id, length) of the tokens in `text`, left to right; for tests.

        >>> SpecialMatcher({b"<a>": 7, b"<a>b": 8}).find_all(b"x<a><a>b")
        [(1, 7, 3), (4, 8, 4)]
        """
        cdef const uint8_t* data = text
        cdef Py_ssize_t at = 0, end = len(text), length
        cdef uint32_t id = 0
        cdef list found = []
        while True:
            at = self.find(data, at, end, &id, &length)
            if at >= end:
                return found
            found.append((at, id, length))
            at += length

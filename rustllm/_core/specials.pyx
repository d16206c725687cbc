"""Finding special and added tokens in text: the leftmost, and of those the longest.

Most text holds no special token and most vocabularies spell theirs with one first byte, so the
search is `memchr`; from there a trie is walked, at most as deep as the longest token.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memset

from rustllm._core.vocab cimport NO_ID


cdef Py_ssize_t trie_find(
    const Trie* trie, const uint8_t* text, Py_ssize_t at, Py_ssize_t end, uint32_t* id,
    Py_ssize_t* length
) noexcept nogil:
    cdef uint32_t here
    cdef Py_ssize_t i
    cdef const void* hit
    length[0] = 0
    while at < end:
        if trie.only_first >= 0:
            hit = memchr(text + at, trie.only_first, end - at)
            if hit is NULL:
                return end
            at = <const uint8_t*>hit - text
        else:
            while at < end and not trie.root[text[at]]:
                at += 1
            if at == end:
                return end
        here = trie.root[text[at]]
        i = at + 1
        while True:
            if trie.node[here].id != NO_ID:
                id[0] = trie.node[here].id
                length[0] = i - at
            if i >= end:
                break
            here = trie.node[here].child
            while here and trie.node[here].byte != text[i]:
                here = trie.node[here].sibling
            if not here:
                break
            i += 1
        if length[0]:
            return at
        at += 1
    return end


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
        memset(self.trie.root, 0, sizeof(self.trie.root))
        self.trie.only_first = -1
        self.n_nodes = 1
        for spelling, id in tokens.items():
            if spelling:
                self.add(spelling, len(spelling), id)
        firsts = [first for first in range(256) if self.trie.root[first]]
        if len(firsts) == 1:
            self.trie.only_first = firsts[0]

    def __dealloc__(self):
        free(self.trie.node)

    cdef int add(self, const uint8_t* p, Py_ssize_t n, uint32_t id) except -1:
        cdef uint32_t here = 0, child
        cdef Py_ssize_t i
        cdef void* grown
        if self.n_nodes + n >= <Py_ssize_t>self.room:
            self.room = <uint32_t>(self.room * 2 + n + 64)
            grown = realloc(self.trie.node, self.room * sizeof(TrieNode))
            if grown is NULL:
                raise MemoryError
            self.trie.node = <TrieNode*>grown
        for i in range(n):
            child = self.trie.root[p[0]] if i == 0 else self.trie.node[here].child
            while i and child and self.trie.node[child].byte != p[i]:
                child = self.trie.node[child].sibling
            if not child:
                child = self.n_nodes
                self.n_nodes += 1
                self.trie.node[child].byte = p[i]
                self.trie.node[child].child = 0
                self.trie.node[child].id = NO_ID
                self.trie.node[child].sibling = 0
                if i == 0:
                    self.trie.root[p[0]] = child
                else:
                    self.trie.node[child].sibling = self.trie.node[here].child
                    self.trie.node[here].child = child
            here = child
        self.trie.node[here].id = id
        return 0

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
            at = trie_find(&self.trie, data, at, end, &id, &length)
            if at >= end:
                return found
            found.append((at, id, length))
            at += length

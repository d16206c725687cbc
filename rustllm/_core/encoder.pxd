# The encoder: text to ids and back over immutable tables, by any number of threads.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from rustllm._core.cache cimport Workspace
from rustllm._core.coder cimport Coder
from rustllm._core.specials cimport SpecialMatcher
from rustllm._core.text cimport TextView

cdef enum:
    MAX_SPARE = 64

# A text of a batch, or a part of a long one, and where its ids are.
cdef struct Item:
    TextView view
    Py_ssize_t at
    Py_ssize_t stop
    int worker
    Py_ssize_t start
    Py_ssize_t count

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
    cdef const uint8_t* fetch(
        self, Workspace* space, const TextView* view, Py_ssize_t* n
    ) except NULL
    cdef object run(self, object text, SpecialMatcher accept, SpecialMatcher refuse, int kind)
    cdef int encode_long_text(
        self, Workspace* space, const TextView* view, SpecialMatcher refuse, uint32_t* id,
        Py_ssize_t* position
    ) except? -1
    cdef int encode_window(
        self, Workspace* space, const uint8_t* text, Py_ssize_t n, Py_ssize_t end, Item* items
    ) except? -1
    cdef object batch(
        self, object texts, SpecialMatcher accept, SpecialMatcher refuse, int threads, int kind
    )
    cdef Py_ssize_t spell(self, Workspace* space, object ids) except -1
    cdef int prepare_spelling(self) except -1

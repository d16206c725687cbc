"""The encoder: text to ids and back over immutable tables, by any number of threads.

A text goes through three steps: its pretokens are cut a thousand at a time, each is looked up in
the cache of the thread, and those not there are merged. Ids are written straight to a ``uint32``
buffer; Python integers are made only when a list is asked for, and kept, since a vocabulary is
finite.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.long cimport PyLong_FromUnsignedLong
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset
from numpy cimport (
    NPY_UINT32, PyArray_CheckExact, PyArray_DATA, PyArray_EMPTY, PyArray_ISCARRAY_RO, PyArray_SIZE,
    PyArray_TYPE, import_array, npy_intp,
)

import os

import numpy as np

from rustllm._core.bpe cimport (
    bpe_encode, bpe_encode_ref, bpe_free, bpe_learn_merges, bpe_learn_order,
)
from rustllm._core.cache cimport (
    grow_text, lease_out, reserve_more, reserve_out, reserve_text, workspace_free, workspace_new,
    workspace_teach, workspace_trim,
)
from rustllm._core.coder cimport encode_range, encode_text
from rustllm._core.from_utf8 cimport text_from_utf8
from rustllm._core.specials cimport SpecialMatcher, Trie, trie_find
from rustllm._core.spell cimport Speller, spell_array, spell_list, spelling_new
from rustllm._core.split cimport N_PATTERNS, find_safe_cut
from rustllm._core.status cimport CANCELLED, NO_MEMORY, OK, OUT_OF_RANGE, check
from rustllm._core.text cimport TextView, to_utf8, utf8_room, view_utf8
from rustllm._core.vocab cimport MAX_VOCAB, NO_ID, prefetch, vocab_find, vocab_init

cdef extern from *:
    """
    #include <stddef.h>
    /* Nothing between the two lets another thread run, but where threads need no GIL. */
    #if PY_VERSION_HEX >= 0x030A0000 && !defined(Py_GIL_DISABLED) && !defined(PYPY_VERSION)
    #define rl_gc_disable() PyGC_Disable()
    #define rl_gc_enable() PyGC_Enable()
    #else
    #define rl_gc_disable() 0
    #define rl_gc_enable() 0
    #endif
    static inline void *rl_take(void **slot) {
        return __atomic_exchange_n(slot, (void *)0, __ATOMIC_ACQUIRE);
    }
    static inline ptrdiff_t rl_add(ptrdiff_t *place, ptrdiff_t n) {
        return __atomic_fetch_add(place, n, __ATOMIC_RELAXED);
    }
    static inline int rl_read(int *place) { return __atomic_load_n(place, __ATOMIC_RELAXED); }
    static inline void rl_write(int *place, int value) {
        __atomic_store_n(place, value, __ATOMIC_RELAXED);
    }
    static inline void rl_lower(ptrdiff_t *place, ptrdiff_t value) {
        ptrdiff_t now = __atomic_load_n(place, __ATOMIC_RELAXED);
        while (value < now && !__atomic_compare_exchange_n(place, &now, value, 0, __ATOMIC_RELAXED,
                                                           __ATOMIC_RELAXED)) {}
    }
    static inline void *rl_read_pointer(void **slot) {
        return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    }
    static inline int rl_give(void **slot, void *value) {
        void *none = 0;
        return __atomic_compare_exchange_n(slot, &none, value, 0, __ATOMIC_RELEASE,
                                           __ATOMIC_RELAXED);
    }
    """
    int rl_gc_disable() noexcept
    int rl_gc_enable() noexcept
    void* rl_take(void** slot) nogil
    void* rl_read_pointer(void** slot) noexcept nogil
    bint rl_give(void** slot, void* value) nogil
    Py_ssize_t rl_add(Py_ssize_t* place, Py_ssize_t n) noexcept nogil
    int rl_read(int* place) noexcept nogil
    void rl_write(int* place, int value) noexcept nogil
    void rl_lower(Py_ssize_t* place, Py_ssize_t value) noexcept nogil

cdef extern from "system_threads.h" nogil:
    ctypedef struct rl_thread:
        pass
    int rl_thread_start(
        rl_thread* thread, void* (*fn)(void*) noexcept nogil, void* argument, size_t stack_bytes
    ) noexcept
    void rl_thread_join(rl_thread thread) noexcept

cdef enum:
    SHORT_TEXT = 256        # bytes up to which the GIL is kept
    LONG_TEXT = 1 << 20     # characters from which one text is encoded in parts, by several threads
    PART = 1 << 18          # bytes of a part
    WINDOW = 1 << 21        # characters of a long text that are taken at a time

import_array()

cdef object empty = np.empty
cdef object uint32 = np.dtype(np.uint32)
cdef object int64 = np.dtype(np.int64)

cdef enum:
    MAX_THREADS = 64
    PER_THREAD = 1 << 15    # characters that are worth another thread
    WORTH_TEACHING = 1 << 18    # bytes that a thread has read, for another to start from its caches
    LEASED_IDS = 1 << 16    # ids from which a result is handed over instead of copied
    REFUSED = -100

cdef struct Job:
    const Coder* coder
    Item* items
    Py_ssize_t n
    Py_ssize_t next[MAX_THREADS]    # item of each share to take, atomically ...
    Py_ssize_t last[MAX_THREADS]    # ... and where the share ends
    Py_ssize_t grain
    const uint8_t* whole        # the text that items are parts of, or NULL
    Py_ssize_t whole_bytes
    const Trie* accept
    const Trie* refuse
    Py_ssize_t refused          # first item that holds a refused token
    int status
    int n_workers
    Workspace* space[MAX_THREADS]

cdef struct Worker:
    Job* job
    int index
    rl_thread thread


cdef int processors() except -1:
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
               else os.cpu_count() or 1)


cdef int encode_item(Job* job, Workspace* space, Item* item) noexcept nogil:
    cdef const uint8_t* text = <const uint8_t*>item.view.data
    cdef Py_ssize_t n = item.view.length, found, length
    cdef uint32_t id = 0
    cdef int status
    item.start = space.n_out
    item.count = 0
    if job.whole is not NULL:
        status = encode_range(
            job.coder, space, job.whole, item.at, item.stop, job.whole_bytes
        )
        item.count = space.n_out - item.start
        return status
    if item.view.kind:
        if reserve_text(space, utf8_room(&item.view)) < 0:
            return NO_MEMORY
        text = space.text
        n = to_utf8(&item.view, space.text)
    if job.refuse is not NULL:
        found = trie_find(job.refuse, text, 0, n, &id, &length)
        if found < n:
            item.start = id
            item.count = count_characters(text, found)
            return REFUSED
    status = encode_text(job.coder, space, text, n, job.accept)
    item.count = space.n_out - item.start
    return status


cdef void* work(void* argument) noexcept nogil:
    # Take items until there are none. The first thread is the caller's and looks for signals.
    cdef Worker* worker = <Worker*>argument
    cdef Job* job = worker.job
    cdef Workspace* space = job.space[worker.index]
    cdef Py_ssize_t at, i, done = 0
    cdef int status, share = worker.index, shares = 0
    while True:
        # First the thread's own share, so that a second call over the same texts finds them in the
        # same caches; then what is left of the others'.
        at = rl_add(&job.next[share], job.grain)
        if rl_read(&job.status) == CANCELLED:
            return NULL
        if at >= job.last[share]:
            shares += 1
            if shares == job.n_workers:
                return NULL
            share = (share + 1) % job.n_workers
            continue
        for i in range(at, min(at + job.grain, job.last[share])):
            job.items[i].worker = worker.index
            status = encode_item(job, space, &job.items[i])
            done += job.items[i].count
            if status == REFUSED:
                rl_lower(&job.refused, i)
                rl_write(&job.status, status)
                return NULL
            if status < 0:
                rl_write(&job.status, status)
                return NULL
        if worker.index == 0 and done > 1 << 20:
            done = 0
            with gil:
                if has_signal():
                    rl_write(&job.status, CANCELLED)
                    return NULL


cdef bint has_signal() noexcept:
    # Whether a handler raised; the exception is kept for whoever called.
    cdef int raised = 0
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        pending.append(error)
        raised = 1
    return raised

cdef list pending = []


cdef void share_out(Job* job, int threads) noexcept nogil:
    # Consecutive items, of about as many characters for each thread.
    cdef Py_ssize_t total = 0, size = 0, at = 0, i
    cdef int share
    for i in range(job.n):
        total += job.items[i].view.length + job.items[i].stop - job.items[i].at + 1
    for share in range(threads):
        job.next[share] = at
        while at < job.n and (share == threads - 1 or size * threads < total * (share + 1)):
            size += job.items[at].view.length + job.items[at].stop - job.items[at].at + 1
            at += 1
        job.last[share] = at


cdef int run_job(Encoder encoder, Job* job, int threads, const Workspace* wise) except? -1:
    # `wise` is a workspace that new ones may learn from, or NULL.
    cdef Worker workers[MAX_THREADS]
    cdef int i, started = 1
    threads = max(1, min(threads, MAX_THREADS, <int>min(job.n, <Py_ssize_t>MAX_THREADS)))
    job.refused = job.n
    job.grain = max(<Py_ssize_t>1, min(<Py_ssize_t>64, job.n // (threads * 32)))
    share_out(job, threads)
    for i in range(threads):
        job.space[i] = encoder.take()
        if job.space[i] is NULL:
            raise MemoryError
        job.n_workers = i + 1
        workers[i].job = job
        workers[i].index = i
        if wise is NULL or job.space[i].n_read > wise.n_read:
            wise = job.space[i]
    with nogil:
        for i in range(threads):
            if job.space[i].n_read == 0 and wise.n_read > WORTH_TEACHING:
                workspace_teach(job.space[i], wise)
        while started < threads:
            if rl_thread_start(&workers[started].thread, work, &workers[started], 0) != 0:
                break           # as many as the system grants
            started += 1
        work(&workers[0])
        for i in range(1, started):
            rl_thread_join(workers[i].thread)
    if job.status == CANCELLED and pending:
        raise pending.pop()
    return job.status


cdef inline bint splits_character(const TextView* view, Py_ssize_t at) noexcept nogil:
    # Whether a surrogate pair, or the bytes of a character, lie over `at`.
    cdef uint32_t high, low
    if at >= view.length or view.kind == 1:
        return False
    if view.kind == 0:
        return (<const uint8_t*>view.data)[at] & 0xC0 == 0x80
    if view.kind == 2:
        high = (<const uint16_t*>view.data)[at - 1]
        low = (<const uint16_t*>view.data)[at]
    else:
        high = (<const uint32_t*>view.data)[at - 1]
        low = (<const uint32_t*>view.data)[at]
    return high >> 10 == 0xD800 >> 10 and low >> 10 == 0xDC00 >> 10


cdef int end_job(Encoder encoder, Job* job) except -1:
    cdef int i
    for i in range(job.n_workers):
        encoder.give(job.space[i])
    return 0


cdef class Numbers:
    # Read access to a contiguous array of uint32, for as long as this object lives.
    cdef Py_buffer view
    cdef const uint32_t* data
    cdef Py_ssize_t n
    cdef bint held

    def __cinit__(self, array):
        array = np.ascontiguousarray(array, dtype=np.uint32)
        PyObject_GetBuffer(array, &self.view, PyBUF_C_CONTIGUOUS)
        self.held = True
        self.data = <const uint32_t*>self.view.buf
        self.n = self.view.len // 4

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef object new_array(const uint32_t* ids, Py_ssize_t n):
    cdef npy_intp size = n
    cdef object array = PyArray_EMPTY(1, &size, NPY_UINT32, 0)
    if n:
        memcpy(PyArray_DATA(array), ids, n * sizeof(uint32_t))
    return array


cdef object array_of(Workspace* space):
    # The copy of few ids is cheaper than a lease, and one of few ids in a large block would hold
    # the block.
    if space.n_out < LEASED_IDS or space.n_out * 2 < space.out_room:
        return new_array(space.out, space.n_out)
    return lease_out(space).array


cdef list new_list(Py_ssize_t n):
    # Without starting a collection, which would visit every id of the lists made before for
    # nothing: integers hold nothing. What is due is done when the next container is made.
    cdef list result
    cdef bint collecting = rl_gc_disable()
    try:
        result = PyList_New(n)
    finally:
        if collecting:
            rl_gc_enable()
    return result


cdef class Encoder:
    """Byte-pair encoder over a fixed vocabulary.

    Parameters
    ----------
    blob : bytes
        The bytes of all tokens in the order of their ids, end to end.
    offsets : array of uint32, shape [n_vocab + 1]
        Where each token starts in `blob`. An id that is not in use has no bytes.
    order : array of uint32, optional
        Ids in the order in which merging prefers them; their pairs are found by merging each. Only
        these ids can come out of text. Give either this or `merges`.
    merges : array of uint32, shape [n, 3], optional
        Left id, right id and the id they make, in the order of their ranks.
    listed : bytes, optional
        With `merges`, one byte an id, not 0 for the ids that text can give. All by default.
    pattern : int
        Number of the pattern that cuts pretokens (`rustllm._core.split`), or -1 to merge across the
        whole text.
    by_char : bool
        Merging starts from characters, with byte fallback, rather than from bytes.
    whole : bool
        A pretoken that is a token is not merged (tiktoken, `ignore_merges`).
    fallback : array of uint32 [256], optional
        Ids of single bytes, for characters that are no token; 0x7FFFFFFF for none.
    unknown : int, optional
        Id of what cannot be spelt; without it such text is an error.
    fuse_unknown : bool
        A run of such characters gives one id.
    spaces : bool
        Text is SentencePiece's: U+2581 and the space are one, and `blob` has spaces.
    prefix : int
        1 puts a space before the text, 2 before every stretch between special tokens.

    Notes
    -----
    Immutable. Threads share the tables; each takes a workspace (cache and buffers) for the length
    of a call from a list that is read without a lock, so calls from several threads run at once.
    Forked children may go on encoding.
    """

    def __cinit__(
        self, bytes blob, offsets, *, order=None, merges=None, bytes listed=None, int pattern=-1,
        bint by_char=False, bint whole=False, fallback=None, unknown=None, bint fuse_unknown=False,
        bint spaces=False, int prefix=0,
    ):
        cdef Numbers starts = Numbers(offsets), rule, bytes_
        cdef Py_ssize_t n = starts.n - 1, i
        cdef const uint8_t* mark = NULL
        cdef const uint8_t* data = blob
        cdef uint32_t id
        cdef int status, threads
        memset(&self.coder, 0, sizeof(Coder))
        if (order is None) == (merges is None):
            raise ValueError("give either order or merges")
        if pattern < -1 or pattern >= N_PATTERNS:
            raise ValueError(f"no pattern {pattern}")
        if n < 0 or n > MAX_VOCAB:
            raise ValueError(f"a vocabulary of {n} tokens; up to {MAX_VOCAB} are possible")
        if starts.data[0] != 0 or starts.data[n] != len(blob):
            raise ValueError("offsets do not cover the blob")
        for i in range(n):
            if starts.data[i] > starts.data[i + 1]:
                raise ValueError(f"offset {i} exceeds the next")
        if listed is not None and len(listed) != n:
            raise ValueError("listed needs one byte an id")
        self.coder.pattern = pattern
        self.coder.spaces = spaces
        self.coder.prefix = prefix
        self.coder.bpe.by_char = by_char
        self.coder.bpe.whole = whole
        self.coder.bpe.fuse_unknown = fuse_unknown
        self.coder.bpe.unknown = NO_ID
        if unknown is not None:
            if not 0 <= unknown < n:
                raise ValueError(f"unknown id {unknown} is outside the vocabulary")
            self.coder.bpe.unknown = unknown
        rule = Numbers(order if order is not None else merges)
        self.listed = <uint8_t*>calloc(n + 1, 1)
        self.ints = <void**>calloc(n + 1, sizeof(void*))
        if self.listed is NULL or self.ints is NULL:
            raise MemoryError
        if order is not None:
            for i in range(rule.n):
                if rule.data[i] >= n:
                    raise ValueError(f"id {rule.data[i]} is outside the vocabulary")
                self.listed[rule.data[i]] = 1
        elif listed is not None:
            mark = listed
            for i in range(n):
                self.listed[i] = mark[i] != 0
        else:
            memset(self.listed, 1, n)
        for i in range(256):
            self.coder.bpe.byte_id[i] = NO_ID
            self.coder.bpe.fallback[i] = NO_ID
        for i in range(n):
            if self.listed[i] and starts.data[i + 1] - starts.data[i] == 1:
                id = data[starts.data[i]]
                if self.coder.bpe.byte_id[id] == NO_ID:
                    self.coder.bpe.byte_id[id] = i
        if fallback is not None:
            bytes_ = Numbers(fallback)
            if bytes_.n != 256:
                raise ValueError("fallback needs 256 ids")
            for i in range(256):
                if bytes_.data[i] != NO_ID and bytes_.data[i] >= n:
                    raise ValueError(f"id {bytes_.data[i]} is outside the vocabulary")
                self.coder.bpe.fallback[i] = bytes_.data[i]
        threads = processors()
        with nogil:
            status = vocab_init(&self.coder.bpe.vocab, data, starts.data, n, self.listed)
            if status >= 0:
                if order is not None:
                    status = bpe_learn_order(&self.coder.bpe, rule.data, rule.n, threads)
                else:
                    status = bpe_learn_merges(&self.coder.bpe, rule.data, rule.n // 3)
        check(status, "the vocabulary is too large")
        self.ready = True
        self.parts = {
            "offsets": offsets, "order": order, "merges": merges, "listed": listed,
            "pattern": pattern, "by_char": by_char, "whole": whole, "fallback": fallback,
            "unknown": unknown, "fuse_unknown": fuse_unknown, "spaces": spaces, "prefix": prefix,
        }

    def __reduce__(self):
        return rebuild, (self.tables()[0], self.parts)

    def __dealloc__(self):
        cdef int i
        if self.ints is not NULL and self.ready:
            for i in range(self.coder.bpe.vocab.n):
                Py_XDECREF(<PyObject*>self.ints[i])
        free(self.ints)
        free(self.listed)
        free(self.spelling)
        for i in range(MAX_SPARE):
            workspace_free(<Workspace*>self.spare[i])
        bpe_free(&self.coder.bpe)

    # -- without the GIL ------------------------------------------------------------------------

    cdef Workspace* take(self) noexcept nogil:
        cdef int i
        cdef void* space
        for i in range(MAX_SPARE):
            space = rl_take(&self.spare[i])
            if space is not NULL:
                return <Workspace*>space
            if i >= 8 and self.spare[i] is NULL:
                break
        return workspace_new()

    cdef void give(self, Workspace* space) noexcept nogil:
        cdef int i
        if space is NULL:
            return
        workspace_trim(space)
        for i in range(MAX_SPARE):
            if rl_give(&self.spare[i], space):
                return
        workspace_free(space)

    # -- with it --------------------------------------------------------------------------------

    cdef list as_list(self, const uint32_t* ids, Py_ssize_t n):
        cdef list result = new_list(n)
        cdef Py_ssize_t i
        cdef object number
        cdef void* known
        for i in range(n):
            if i + 16 < n:
                prefetch(self.ints[ids[i + 16]])
            known = self.ints[ids[i]]
            if known is NULL:
                number = PyLong_FromUnsignedLong(ids[i])
                Py_INCREF(number)
                known = <void*>number
                self.ints[ids[i]] = known
            number = <object>known
            Py_INCREF(number)
            PyList_SET_ITEM(result, i, number)
        return result

    cdef const uint8_t* fetch(
        self, Workspace* space, const TextView* view, Py_ssize_t* n
    ) except NULL:
        # UTF-8 of a text: its own memory when it is ASCII, else a copy in the workspace.
        if view.kind == 0:
            n[0] = view.length
            return <const uint8_t*>view.data
        if reserve_text(space, utf8_room(view)) < 0:
            raise MemoryError
        if view.length > 1 << 14:
            with nogil:
                n[0] = to_utf8(view, space.text)
        else:
            n[0] = to_utf8(view, space.text)
        return space.text

    cdef object run(self, object text, SpecialMatcher accept, SpecialMatcher refuse, int kind):
        # kind 0: array, 1: list, 2: count. A refused token is returned as (id, position).
        cdef Workspace* space = self.take()
        cdef const uint8_t* data = NULL
        cdef TextView view
        cdef Py_ssize_t n = 0, found = 0, length
        cdef uint32_t id = 0
        cdef int status
        if space is NULL:
            raise MemoryError
        try:
            view_utf8(text, &view)
            if view.length > LONG_TEXT and accept is None and self.coder.pattern >= 0:
                status = self.encode_long_text(space, &view, refuse, &id, &found)
                if status == REFUSED:
                    return id, found
                n = 0
            else:
                data = self.fetch(space, &view, &n)
                if refuse is not None:
                    found = trie_find(&refuse.trie, data, 0, n, &id, &length)
                    if found < n:
                        return id, count_characters(data, found)
                status = OK
            if n > SHORT_TEXT:
                with nogil:
                    status = encode_text(
                        &self.coder, space, data, n, &accept.trie if accept is not None else NULL
                    )
            elif n:
                # A microsecond or less: not worth giving the GIL up for.
                status = encode_text(
                    &self.coder, space, data, n, &accept.trie if accept is not None else NULL
                )
            if status < 0:
                check_encoded(status)
            if kind == 1:
                return self.as_list(space.out, space.n_out)
            if kind == 2:
                return space.n_out
            return array_of(space)
        finally:
            self.give(space)

    def encode(self, text, SpecialMatcher accept=None, SpecialMatcher refuse=None):
        """Ids of `text` as ``uint32 [n_tokens]``.

        Tokens of `accept` become their ids. If the text holds one of `refuse`, the result is a
        tuple of its id and the index of its first character instead.
        """
        return self.run(text, accept, refuse, 0)

    def encode_list(self, text, SpecialMatcher accept=None, SpecialMatcher refuse=None):
        """As `encode`, with a list of integers."""
        return self.run(text, accept, refuse, 1)

    def count(self, text, SpecialMatcher accept=None, SpecialMatcher refuse=None):
        """As `encode`, with the number of ids only."""
        return self.run(text, accept, refuse, 2)

    def encode_bytes(self, bytes data):
        """Ids of UTF-8 `data` as ``uint32 [n_tokens]``; bytes that are not UTF-8 are kept."""
        cdef Workspace* space = self.take()
        cdef const uint8_t* text = data
        cdef Py_ssize_t n = len(data)
        cdef int status
        if space is NULL:
            raise MemoryError
        try:
            with nogil:
                status = encode_text(&self.coder, space, text, n, NULL)
            if status < 0:
                check_encoded(status)
            return array_of(space)
        finally:
            self.give(space)

    def encode_piece(self, bytes piece, bint reference=False):
        """Ids of one pretoken given as bytes: no cutting, no cache."""
        cdef Workspace* space
        cdef const uint8_t* text = piece
        cdef Py_ssize_t n = len(piece), count
        if n == 0:
            return new_array(NULL, 0)
        space = self.take()
        if space is NULL:
            raise MemoryError
        try:
            if reserve_out(space, n + 4) < 0:
                raise MemoryError
            with nogil:
                if reference:
                    count = bpe_encode_ref(&self.coder.bpe, &space.merge, text, n, space.out)
                else:
                    count = bpe_encode(&self.coder.bpe, &space.merge, text, n, space.out)
            if count < 0:
                check_encoded(<int>count)
            return new_array(space.out, count)
        finally:
            self.give(space)

    cdef int encode_long_text(
        self, Workspace* space, const TextView* view, SpecialMatcher refuse, uint32_t* id,
        Py_ssize_t* position
    ) except? -1:
        # A window of the text at a time, so that buffers are small and stay in the caches; what
        # follows the last place to cut in one is the beginning of the next. REFUSED with the token
        # and where it is if the text spells one of `refuse`.
        cdef Item* items
        cdef TextView part = view[0]
        cdef Py_ssize_t taken = 0, held = 0, n, cut, found, length, width = max(1, view.kind)
        cdef Py_ssize_t margin = 4096 + (refuse.n_nodes if refuse is not None else 0)
        cdef const uint8_t* text
        cdef int status = OK
        while taken < view.length or held:
            # Of bytes that are UTF-8 already only the bounds move.
            part.data = <const uint8_t*>view.data + taken * width
            part.length = min(view.length - taken, <Py_ssize_t>WINDOW)
            while splits_character(view, taken + part.length):
                part.length += 1
            taken += part.length
            if view.kind == 0:
                text = <const uint8_t*>view.data + taken - part.length - held
                n = held + part.length
            else:
                if grow_text(space, held + utf8_room(&part)) < 0:
                    raise MemoryError
                with nogil:
                    n = held + to_utf8(&part, space.text + held)
                text = space.text
            if refuse is not None:
                # What was looked at before is looked at again only as far as a token may reach.
                found = max(held - margin, <Py_ssize_t>0)
                found = trie_find(&refuse.trie, text, found, n, id, &length)
                if found < n:
                    position[0] = taken - count_characters(text + found, n - found)
                    if view.kind == 0:
                        found = taken - (n - found)
                        position[0] = count_characters(<const uint8_t*>view.data, found)
                    return REFUSED
            cut = n
            if taken < view.length:
                cut = find_safe_cut(text, max(n - PART, <Py_ssize_t>0), n, PART)
                if cut > n - margin:
                    held = n
                    continue
            items = <Item*>malloc((cut // PART + 2) * sizeof(Item))
            if items is NULL:
                raise MemoryError
            try:
                status = self.encode_window(space, text, cut, n, items)
            finally:
                free(items)
            if status < 0:
                return status
            if reserve_more(space, space.n_out * (view.length - taken) // (taken + 1)) < 0:
                raise MemoryError
            held = n - cut
            if view.kind and held:
                memmove(space.text, space.text + cut, held)
            if taken == view.length:
                break
        return OK

    cdef int encode_window(
        self, Workspace* space, const uint8_t* text, Py_ssize_t n, Py_ssize_t end, Item* items
    ) except? -1:
        # text[:n] of text[:end], in parts between places where a pretoken starts whatever precedes
        # it, by several threads.
        cdef Py_ssize_t most = n // PART + 1, at = 0, cut, i
        cdef Job job
        cdef int status
        memset(&job, 0, sizeof(Job))
        job.coder = &self.coder
        job.items = items
        job.whole = text
        job.whole_bytes = end
        while at < n:
            cut = n
            if n - at > PART and job.n < most - 1:
                cut = find_safe_cut(text, at + PART, n, PART)
            items[job.n].view.length = 0
            items[job.n].at = at
            items[job.n].stop = cut
            job.n += 1
            at = cut
        try:
            status = run_job(self, &job, processors(), space)
            if status >= 0:
                for i in range(job.n):
                    if reserve_out(space, items[i].count) < 0:
                        status = NO_MEMORY
                        break
                    memcpy(
                        space.out + space.n_out,
                        job.space[items[i].worker].out + items[i].start,
                        items[i].count * sizeof(uint32_t),
                    )
                    space.n_out += items[i].count
        finally:
            end_job(self, &job)
        if status == CANCELLED:
            PyErr_CheckSignals()
        return min(status, 0)

    cdef object batch(
        self, object texts, SpecialMatcher accept, SpecialMatcher refuse, int threads, int kind
    ):
        # kind 0: (ids, offsets), 1: lists, 2: counts. A refused token is (id, position, text).
        cdef list held = texts if type(texts) is list else list(texts)
        cdef Py_ssize_t n = len(held), i, j, total = 0, size = 0
        cdef Item* items
        cdef Job job
        cdef int status
        cdef Py_buffer view
        cdef int64_t* offset
        cdef uint32_t* out
        if type(texts) is list:
            held = held[:]      # nobody else may drop a text while threads read it
        items = <Item*>malloc(n * sizeof(Item) + 1)
        if items is NULL:
            raise MemoryError
        memset(&job, 0, sizeof(Job))
        job.coder = &self.coder
        job.items = items
        job.n = n
        job.accept = &accept.trie if accept is not None else NULL
        job.refuse = &refuse.trie if refuse is not None else NULL
        try:
            for i in range(n):
                view_utf8(held[i], &items[i].view)
                items[i].at = 0
                items[i].stop = 0
                size += items[i].view.length
            if threads <= 0:
                threads = processors()
            threads = <int>min(<Py_ssize_t>threads, size // PER_THREAD + 1, n, MAX_THREADS)
            status = run_job(self, &job, threads, NULL)
            if status == CANCELLED:
                PyErr_CheckSignals()
            if status == REFUSED:
                i = job.refused
                return items[i].start, items[i].count, i
            if status < 0:
                check_encoded(status)
            if kind == 1:
                return [
                    self.as_list(job.space[items[i].worker].out + items[i].start, items[i].count)
                    for i in range(n)
                ]
            offsets = empty(n if kind == 2 else n + 1, int64)
            PyObject_GetBuffer(offsets, &view, PyBUF_WRITABLE)
            offset = <int64_t*>view.buf
            if kind == 2:
                for i in range(n):
                    offset[i] = items[i].count
            else:
                offset[0] = 0
                for i in range(n):
                    total += items[i].count
                    offset[i + 1] = total
            PyBuffer_Release(&view)
            if kind == 2:
                return offsets
            ids = empty(total, uint32)
            if total:
                PyObject_GetBuffer(ids, &view, PyBUF_WRITABLE)
                out = <uint32_t*>view.buf
                with nogil:
                    i = 0
                    while i < n:
                        # What one thread wrote one after another is copied at once.
                        j = i + 1
                        total = items[i].count
                        while (j < n and items[j].worker == items[i].worker
                                and items[j].start == items[i].start + total):
                            total += items[j].count
                            j += 1
                        memcpy(
                            out, job.space[items[i].worker].out + items[i].start,
                            total * sizeof(uint32_t),
                        )
                        out += total
                        i = j
                PyBuffer_Release(&view)
            return ids, offsets
        finally:
            end_job(self, &job)
            free(items)

    def encode_batch(
        self, texts, SpecialMatcher accept=None, SpecialMatcher refuse=None, int threads=0
    ):
        """Ids of all `texts`, end to end, and their borders.

        Returns
        -------
        ids : ndarray of uint32
        offsets : ndarray of int64 [n_texts + 1]
            With a token of `refuse` in text i: a tuple of its id, the index of its first character
            and i instead.
        """
        return self.batch(texts, accept, refuse, threads, 0)

    def encode_batch_lists(
        self, texts, SpecialMatcher accept=None, SpecialMatcher refuse=None, int threads=0
    ):
        """As `encode_batch`, with a list of lists of integers."""
        return self.batch(texts, accept, refuse, threads, 1)

    def count_batch(
        self, texts, SpecialMatcher accept=None, SpecialMatcher refuse=None, int threads=0
    ):
        """As `encode_batch`, with the number of ids of each text as ``int64 [n_texts]``."""
        return self.batch(texts, accept, refuse, threads, 2)

    def encode_spans(
        self, const uint8_t[::1] data, const int64_t[:, ::1] spans, SpecialMatcher accept=None,
        int threads=1, end=None, dtype=uint32
    ):
        """Ids of the texts ``data[start:stop]``, in UTF-8, that the rows of `spans` name.

        Parameters
        ----------
        data : buffer
            Must not be written to meanwhile.
        spans : ndarray of int64 [n, 2]
        end : int, optional
            Put behind the ids of every text.
        dtype : numpy dtype
            Of the ids: an unsigned integer of 2 or an integer of 4 bytes.

        Returns
        -------
        ids : ndarray of `dtype`
        lengths : ndarray of int64 [n]
            Ids of each text, `end` included.

        Raises
        ------
        OverflowError
            An id does not fit `dtype`.
        """
        cdef Py_ssize_t n = spans.shape[0], i, j, size = 0, total = 0
        cdef Py_ssize_t more = end is not None
        cdef uint32_t last = 0 if end is None else end
        cdef uint32_t most = last
        cdef int width = dtype.itemsize, status
        cdef const uint8_t* base = &data[0] if data.shape[0] else NULL
        cdef const uint32_t* source
        cdef uint8_t* out
        cdef int64_t* length
        cdef Item* items
        cdef Job job
        cdef Py_buffer view
        if spans.shape[1] != 2 or dtype.kind not in "iu" or (width != 2 and width != 4):
            raise ValueError("spans needs two columns, dtype 2 or 4 bytes")
        items = <Item*>malloc(n * sizeof(Item) + 1)
        if items is NULL:
            raise MemoryError
        memset(&job, 0, sizeof(Job))
        job.coder = &self.coder
        job.items = items
        job.n = n
        job.accept = &accept.trie if accept is not None else NULL
        try:
            for i in range(n):
                if not 0 <= spans[i, 0] <= spans[i, 1] <= data.shape[0]:
                    raise ValueError(f"span {i} is outside of the buffer")
                items[i].view.kind = 0
                items[i].view.data = <void*>(base + spans[i, 0])
                items[i].view.length = spans[i, 1] - spans[i, 0]
                items[i].at = 0
                items[i].stop = 0
                size += items[i].view.length
            threads = <int>min(<Py_ssize_t>max(threads, 1), size // PER_THREAD + 1, MAX_THREADS)
            if n:
                status = run_job(self, &job, threads, NULL)
                if status == CANCELLED:
                    PyErr_CheckSignals()
                check_encoded(status)
            lengths = empty(n, int64)
            PyObject_GetBuffer(lengths, &view, PyBUF_WRITABLE)
            length = <int64_t*>view.buf
            for i in range(n):
                length[i] = items[i].count + more
                total += length[i]
            PyBuffer_Release(&view)
            ids = empty(total, dtype)
            PyObject_GetBuffer(ids, &view, PyBUF_WRITABLE)
            out = <uint8_t*>view.buf
            with nogil:
                for i in range(n):
                    source = job.space[items[i].worker].out + items[i].start
                    if width == 4:
                        memcpy(out, source, items[i].count * sizeof(uint32_t))
                        out += 4 * items[i].count
                        if more:
                            (<uint32_t*>out)[0] = last
                            out += 4
                    else:
                        for j in range(items[i].count):
                            most |= source[j]
                            (<uint16_t*>out)[j] = <uint16_t>source[j]
                        out += 2 * items[i].count
                        if more:
                            (<uint16_t*>out)[0] = <uint16_t>last
                            out += 2
            PyBuffer_Release(&view)
            if width == 2 and most > 0xFFFF:
                raise OverflowError(f"an id of this text does not fit {dtype}")
            return ids, lengths
        finally:
            end_job(self, &job)
            free(items)

    @property
    def n_vocab(self):
        """One more than the largest id."""
        return self.coder.bpe.vocab.n

    def id_to_bytes(self, Py_ssize_t id):
        """Bytes of token `id`; KeyError when the id is not in use."""
        cdef uint32_t start
        if id < 0 or id >= self.coder.bpe.vocab.n:
            raise KeyError(id)
        start = self.coder.bpe.vocab.offset[id]
        if self.coder.bpe.vocab.offset[id + 1] == start:
            raise KeyError(id)
        return PyBytes_FromStringAndSize(
            <char*>self.coder.bpe.vocab.blob + start, self.coder.bpe.vocab.offset[id + 1] - start
        )

    def bytes_to_id(self, bytes data):
        """Id that text can give whose bytes are `data`; KeyError when there is none."""
        cdef uint32_t id = NO_ID
        if data:
            id = vocab_find(&self.coder.bpe.vocab, <const uint8_t*><const char*>data, len(data))
        if id == NO_ID:
            raise KeyError(data)
        return id

    def is_listed(self, Py_ssize_t id):
        """Whether text can give `id` without naming a special token."""
        return 0 <= id < self.coder.bpe.vocab.n and self.listed[id] != 0

    def tables(self):
        """The blob and the offsets that the encoder was made of."""
        cdef uint32_t n = self.coder.bpe.vocab.n
        blob = PyBytes_FromStringAndSize(
            <char*>self.coder.bpe.vocab.blob, self.coder.bpe.vocab.offset[n]
        )
        return blob, new_array(self.coder.bpe.vocab.offset, n + 1)

    def merges(self):
        """Merges as ``uint32 [n, 3]``: left id, right id, the id they make, by rank."""
        cdef uint32_t n = self.coder.bpe.n_made, priority
        cdef uint64_t i, entry
        cdef Py_buffer view
        cdef uint32_t* row
        array = np.full((n, 3), NO_ID, dtype=np.uint32)
        PyObject_GetBuffer(array, &view, PyBUF_WRITABLE)
        row = <uint32_t*>view.buf
        for i in range(self.coder.bpe.pair_mask + 1):
            entry = self.coder.bpe.pair[i]
            if entry != ~<uint64_t>0:
                priority = <uint32_t>entry & MAX_VOCAB
                row[3 * priority] = <uint32_t>(entry >> 42)
                row[3 * priority + 1] = <uint32_t>(entry >> 21) & MAX_VOCAB
                row[3 * priority + 2] = self.coder.bpe.made[priority]
        PyBuffer_Release(&view)
        return array[array[:, 0] != NO_ID]

    def decode(self, ids):
        """Bytes that `ids` spell; KeyError with the first that is not in use."""
        cdef Workspace* space = self.take()
        cdef Py_ssize_t n
        if space is NULL:
            raise MemoryError
        try:
            n = self.spell(space, ids)
            return PyBytes_FromStringAndSize(<char*>space.text, n)
        finally:
            self.give(space)

    def decode_text(self, ids, str errors):
        """As `decode`, the bytes read as UTF-8 with the error handler `errors`."""
        cdef Workspace* space = self.take()
        cdef Py_ssize_t n
        cdef bytes handler = errors.encode()
        if space is NULL:
            raise MemoryError
        try:
            n = self.spell(space, ids)
            return text_from_utf8(space.text, n, handler)
        finally:
            self.give(space)

    cdef Py_ssize_t spell(self, Workspace* space, object ids) except -1:
        # Write what `ids` spell to space.text; returns how many bytes.
        cdef Py_buffer view
        cdef Speller speller
        self.prepare_spelling()
        speller.vocab = &self.coder.bpe.vocab
        speller.short = <const uint8_t*>self.spelling
        if type(ids) is list:
            return spell_list(&speller, space, ids)
        if not PyObject_CheckBuffer(ids):
            return spell_list(&speller, space, list(ids))
        if PyArray_CheckExact(ids) and PyArray_TYPE(ids) == NPY_UINT32 and PyArray_ISCARRAY_RO(ids):
            return spell_array(
                &speller, space, <const uint32_t*>PyArray_DATA(ids), PyArray_SIZE(ids)
            )
        array = np.asarray(ids)
        if array.dtype != uint32:
            if array.dtype.kind not in "iu":
                raise TypeError(f"ids are integers, not {array.dtype}")
            if array.size and (array.min() < 0 or array.max() > MAX_VOCAB):
                raise KeyError(int(array[(array < 0) | (array > MAX_VOCAB)][0]))
        array = np.ascontiguousarray(array, dtype=uint32)
        PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
        try:
            return spell_array(&speller, space, <const uint32_t*>view.buf, view.len // 4)
        finally:
            PyBuffer_Release(&view)

    cdef int prepare_spelling(self) except -1:
        # Made when first decoding, by whoever comes first.
        cdef uint8_t* table
        if rl_read_pointer(&self.spelling) is not NULL:
            return 0
        table = spelling_new(&self.coder.bpe.vocab)
        if table is NULL:
            raise MemoryError
        if not rl_give(&self.spelling, table):
            free(table)
        return 0


def rebuild(bytes blob, dict parts):
    """Encoder from the parts of another; what unpickling calls."""
    return Encoder(blob, parts["offsets"], **{k: v for k, v in parts.items() if k != "offsets"})


cdef Py_ssize_t count_characters(const uint8_t* text, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, count = 0
    for i in range(n):
        count += (text[i] & 0xC0) != 0x80
    return count


cdef int check_encoded(int status) except -1:
    if status == OUT_OF_RANGE:
        raise UnicodeError("the vocabulary cannot spell a character of the text")
    return check(status, "no memory to encode the text")

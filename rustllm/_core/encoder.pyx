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
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.long cimport PyLong_FromUnsignedLong
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from rustllm._core.bpe cimport (
    bpe_encode, bpe_encode_ref, bpe_free, bpe_learn_merges, bpe_learn_order, is_adjacent,
)
from rustllm._core.cache cimport (
    ID_MASK, LONG_BITS, LONG_WORDS, MAX_ENDS, MAX_LONG_BYTES, SHORT_BITS, LongEntry, ShortEntry,
    reserve_out, reserve_plain, reserve_text, workspace_free, workspace_new, workspace_trim,
)
from rustllm._core.specials cimport SpecialMatcher
from rustllm._core.split cimport N_PATTERNS, find_safe_cut, split_ends
from rustllm._core.status cimport NO_MEMORY, OK, OUT_OF_RANGE, check
from rustllm._core.text cimport TextView, to_utf8, utf8_room, view_text
from rustllm._core.vocab cimport MAX_VOCAB, NO_ID, hash_bytes, mix, vocab_find, vocab_init

cdef extern from *:
    """
    #include <stdint.h>
    static const uint64_t rl_low_mask[16] = {
        0, 0xFFull, 0xFFFFull, 0xFFFFFFull, 0xFFFFFFFFull, 0xFFFFFFFFFFull, 0xFFFFFFFFFFFFull,
        0xFFFFFFFFFFFFFFull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull};
    static const uint64_t rl_high_mask[16] = {
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFFull, 0xFFFFull, 0xFFFFFFull, 0xFFFFFFFFull,
        0xFFFFFFFFFFull, 0xFFFFFFFFFFFFull, 0xFFFFFFFFFFFFFFull};
    static inline void *rl_take(void **slot) {
        return __atomic_exchange_n(slot, (void *)0, __ATOMIC_ACQUIRE);
    }
    static inline int rl_give(void **slot, void *value) {
        void *none = 0;
        return __atomic_compare_exchange_n(slot, &none, value, 0, __ATOMIC_RELEASE,
                                           __ATOMIC_RELAXED);
    }
    """
    const uint64_t rl_low_mask[16]
    const uint64_t rl_high_mask[16]
    void* rl_take(void** slot) nogil
    bint rl_give(void** slot, void* value) nogil

cdef enum:
    STEP = 1 << 20          # bytes encoded between two looks for signals

cdef object empty = np.empty
cdef object uint32 = np.dtype(np.uint32)


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
    cdef object array = empty(n, uint32)
    cdef Py_buffer view
    if n:
        PyObject_GetBuffer(array, &view, PyBUF_WRITABLE)
        memcpy(view.buf, ids, n * sizeof(uint32_t))
        PyBuffer_Release(&view)
    return array


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
        cdef int status
        memset(&self.bpe, 0, sizeof(Bpe))
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
        self.pattern = pattern
        self.spaces = spaces
        self.prefix = prefix
        self.bpe.by_char = by_char
        self.bpe.whole = whole
        self.bpe.fuse_unknown = fuse_unknown
        self.bpe.unknown = NO_ID
        if unknown is not None:
            if not 0 <= unknown < n:
                raise ValueError(f"unknown id {unknown} is outside the vocabulary")
            self.bpe.unknown = unknown
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
            self.bpe.byte_id[i] = NO_ID
            self.bpe.fallback[i] = NO_ID
        for i in range(n):
            if self.listed[i] and starts.data[i + 1] - starts.data[i] == 1:
                id = data[starts.data[i]]
                if self.bpe.byte_id[id] == NO_ID:
                    self.bpe.byte_id[id] = i
        if fallback is not None:
            bytes_ = Numbers(fallback)
            if bytes_.n != 256:
                raise ValueError("fallback needs 256 ids")
            for i in range(256):
                if bytes_.data[i] != NO_ID and bytes_.data[i] >= n:
                    raise ValueError(f"id {bytes_.data[i]} is outside the vocabulary")
                self.bpe.fallback[i] = bytes_.data[i]
        with nogil:
            status = vocab_init(&self.bpe.vocab, data, starts.data, n, self.listed)
            if status >= 0:
                if order is not None:
                    status = bpe_learn_order(&self.bpe, rule.data, rule.n)
                else:
                    status = bpe_learn_merges(&self.bpe, rule.data, rule.n // 3)
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
            for i in range(self.bpe.vocab.n):
                Py_XDECREF(<PyObject*>self.ints[i])
        free(self.ints)
        free(self.listed)
        for i in range(MAX_SPARE):
            workspace_free(<Workspace*>self.spare[i])
        bpe_free(&self.bpe)

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

    cdef int encode_range(
        self, Workspace* space, const uint8_t* text, Py_ssize_t at, Py_ssize_t stop, Py_ssize_t end
    ) noexcept nogil:
        cdef const uint8_t* base
        cdef const uint8_t* p
        cdef uint32_t* ends = space.ends
        cdef uint32_t* out
        cdef ShortEntry* line
        cdef Py_ssize_t left, got, i, n, start, count
        cdef uint64_t low, high, h
        while at < stop:
            base = text + at
            left = min(end - at, <Py_ssize_t>0xFFFFFF00)
            if self.pattern >= 0:
                got = split_ends(self.pattern, base, 0, left, ends, MAX_ENDS)
            else:
                got = cut_ends(&self.bpe, base, left, ends, MAX_ENDS)
            # One id a byte at most, and room for the four that are always written.
            if reserve_out(space, ends[got - 1] + 4) < 0:
                return NO_MEMORY
            out = space.out + space.n_out
            start = 0
            for i in range(got):
                p = base + start
                n = <Py_ssize_t>ends[i] - start
                if n <= 15:
                    if left - start >= 16:
                        memcpy(&low, p, 8)
                        memcpy(&high, p + 8, 8)
                        low &= rl_low_mask[n]
                        high &= rl_high_mask[n]
                    else:
                        low = 0
                        high = 0
                        memcpy(&low, p, min(n, <Py_ssize_t>8))
                        if n > 8:
                            memcpy(&high, p + 8, n - 8)
                    high |= <uint64_t>n << 56
                    h = mix(
                        low * <uint64_t>0x9E3779B97F4A7C15ULL
                        ^ high * <uint64_t>0xC2B2AE3D27D4EB4FULL
                    )
                    line = space.line + 2 * (h >> (64 - SHORT_BITS))
                    if line.low != low or line.high != high:
                        line += 1
                        if line.low != low or line.high != high:
                            count = miss_short(&self.bpe, space, line - 1, p, n, low, high, out)
                            if count < 0:
                                return <int>count
                            out += count
                            start = ends[i]
                            if at + start >= stop:
                                break
                            continue
                    memcpy(out, line.id, 16)
                    count = line.id[0] >> 29
                    out[0] = line.id[0] & ID_MASK
                else:
                    count = encode_long(&self.bpe, space, p, n, out)
                    if count < 0:
                        return <int>count
                out += count
                start = ends[i]
                if at + start >= stop:
                    break
            space.n_out = out - space.out
            at += start
        return OK

    cdef int encode_fragment(
        self, Workspace* space, const uint8_t* text, Py_ssize_t n, bint first
    ) noexcept nogil:
        cdef Py_ssize_t i = 0, used = 0
        cdef bint prefix
        if n == 0:
            return OK
        if not self.spaces:
            return self.encode_range(space, text, 0, n, n)
        prefix = self.prefix == 2 or (self.prefix == 1 and first)
        if not prefix and not holds_mark(text, n):
            return self.encode_range(space, text, 0, n, n)
        if reserve_plain(space, n + 1) < 0:
            return NO_MEMORY
        if prefix:
            space.plain[0] = c" "
            used = 1
        while i < n:
            if text[i] == 0xE2 and i + 2 < n and text[i + 1] == 0x96 and text[i + 2] == 0x81:
                space.plain[used] = c" "
                i += 3
            else:
                space.plain[used] = text[i]
                i += 1
            used += 1
        return self.encode_range(space, space.plain, 0, used, used)

    cdef int encode_text(
        self, Workspace* space, const uint8_t* text, Py_ssize_t n, SpecialMatcher accept
    ) noexcept nogil:
        cdef Py_ssize_t at = 0, found, length
        cdef uint32_t id = 0
        cdef int status
        cdef bint first = True
        if accept is None:
            return self.encode_fragment(space, text, n, True)
        while at < n:
            found = accept.find(text, at, n, &id, &length)
            status = self.encode_fragment(space, text + at, found - at, first)
            if status < 0:
                return status
            first = False
            if found == n:
                break
            if reserve_out(space, 1) < 0:
                return NO_MEMORY
            space.out[space.n_out] = id
            space.n_out += 1
            at = found + length
        return OK

    # -- with it --------------------------------------------------------------------------------

    cdef list as_list(self, const uint32_t* ids, Py_ssize_t n):
        cdef list result = PyList_New(n)
        cdef Py_ssize_t i
        cdef object number
        cdef void* known
        for i in range(n):
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

    cdef const uint8_t* fetch(self, Workspace* space, object text, Py_ssize_t* n) except NULL:
        # UTF-8 of `text`: its own memory when it is ASCII, else a copy in the workspace.
        cdef TextView view
        view_text(text, &view)
        if view.kind == 0:
            n[0] = view.length
            return <const uint8_t*>view.data
        if reserve_text(space, utf8_room(&view)) < 0:
            raise MemoryError
        if view.length > 1 << 14:
            with nogil:
                n[0] = to_utf8(&view, space.text)
        else:
            n[0] = to_utf8(&view, space.text)
        return space.text

    cdef object run(self, object text, SpecialMatcher accept, SpecialMatcher refuse, int kind):
        # kind 0: array, 1: list, 2: count. A refused token is returned as (id, position).
        cdef Workspace* space = self.take()
        cdef const uint8_t* data
        cdef Py_ssize_t n = 0, found, length
        cdef uint32_t id = 0
        cdef int status
        if space is NULL:
            raise MemoryError
        try:
            data = self.fetch(space, text, &n)
            if refuse is not None:
                found = refuse.find(data, 0, n, &id, &length)
                if found < n:
                    return id, count_characters(data, found)
            with nogil:
                status = self.encode_text(space, data, n, accept)
            if status < 0:
                check_encoded(status)
            if kind == 1:
                return self.as_list(space.out, space.n_out)
            if kind == 2:
                return space.n_out
            return new_array(space.out, space.n_out)
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
                status = self.encode_text(space, text, n, None)
            if status < 0:
                check_encoded(status)
            return new_array(space.out, space.n_out)
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
                    count = bpe_encode_ref(&self.bpe, &space.merge, text, n, space.out)
                else:
                    count = bpe_encode(&self.bpe, &space.merge, text, n, space.out)
            if count < 0:
                check_encoded(<int>count)
            return new_array(space.out, count)
        finally:
            self.give(space)

    @property
    def n_vocab(self):
        """One more than the largest id."""
        return self.bpe.vocab.n

    def id_to_bytes(self, Py_ssize_t id):
        """Bytes of token `id`; KeyError when the id is not in use."""
        cdef uint32_t start
        if id < 0 or id >= self.bpe.vocab.n:
            raise KeyError(id)
        start = self.bpe.vocab.offset[id]
        if self.bpe.vocab.offset[id + 1] == start:
            raise KeyError(id)
        return PyBytes_FromStringAndSize(
            <char*>self.bpe.vocab.blob + start, self.bpe.vocab.offset[id + 1] - start
        )

    def bytes_to_id(self, bytes data):
        """Id that text can give whose bytes are `data`; KeyError when there is none."""
        cdef uint32_t id = NO_ID
        if data:
            id = vocab_find(&self.bpe.vocab, <const uint8_t*><const char*>data, len(data))
        if id == NO_ID:
            raise KeyError(data)
        return id

    def is_listed(self, Py_ssize_t id):
        """Whether text can give `id` without naming a special token."""
        return 0 <= id < self.bpe.vocab.n and self.listed[id] != 0

    def tables(self):
        """The blob and the offsets that the encoder was made of."""
        cdef uint32_t n = self.bpe.vocab.n
        blob = PyBytes_FromStringAndSize(
            <char*>self.bpe.vocab.blob, self.bpe.vocab.offset[n]
        )
        return blob, new_array(self.bpe.vocab.offset, n + 1)

    def merges(self):
        """Merges as ``uint32 [n, 3]``: left id, right id, the id they make, by rank."""
        cdef uint32_t n = self.bpe.n_made, priority
        cdef uint64_t i, entry
        cdef Py_buffer view
        cdef uint32_t* row
        array = np.full((n, 3), NO_ID, dtype=np.uint32)
        PyObject_GetBuffer(array, &view, PyBUF_WRITABLE)
        row = <uint32_t*>view.buf
        for i in range(self.bpe.pair_mask + 1):
            entry = self.bpe.pair[i]
            if entry != ~<uint64_t>0:
                priority = <uint32_t>entry & MAX_VOCAB
                row[3 * priority] = <uint32_t>(entry >> 42)
                row[3 * priority + 1] = <uint32_t>(entry >> 21) & MAX_VOCAB
                row[3 * priority + 2] = self.bpe.made[priority]
        PyBuffer_Release(&view)
        return array[array[:, 0] != NO_ID]

    def decode(self, ids):
        """Bytes that `ids` spell; KeyError with the first that is not in use."""
        cdef Py_buffer view
        if PyObject_CheckBuffer(ids):
            array = np.asarray(ids)
            if array.dtype.kind not in "iu":
                raise TypeError(f"ids are integers, not {array.dtype}")
            if array.size and (array.min() < 0 or array.max() > MAX_VOCAB):
                raise KeyError(int(array[(array < 0) | (array > MAX_VOCAB)][0]))
            array = np.ascontiguousarray(array, dtype=np.uint32)
            PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
            try:
                return self.join(<const uint32_t*>view.buf, view.len // 4)
            finally:
                PyBuffer_Release(&view)
        return self.decode_sequence(ids if type(ids) is list else list(ids))

    cdef bytes decode_sequence(self, list ids):
        cdef Py_ssize_t n = len(ids), i
        cdef int64_t id
        cdef uint32_t* numbers = <uint32_t*>malloc(n * sizeof(uint32_t) + 1)
        if numbers is NULL:
            raise MemoryError
        try:
            for i in range(n):
                try:
                    id = ids[i]
                except OverflowError:
                    raise KeyError(ids[i]) from None
                if id < 0 or id >= self.bpe.vocab.n:
                    raise KeyError(id)
                numbers[i] = <uint32_t>id
            return self.join(numbers, n)
        finally:
            free(numbers)

    cdef bytes join(self, const uint32_t* ids, Py_ssize_t n):
        cdef Py_ssize_t total = 0, i, used = 0
        cdef uint32_t start, length
        cdef const uint32_t* offset = self.bpe.vocab.offset
        cdef const uint8_t* blob = self.bpe.vocab.blob
        cdef Py_ssize_t size = self.bpe.vocab.offset[self.bpe.vocab.n]
        cdef bytes result
        cdef uint8_t* out
        for i in range(n):
            if ids[i] >= self.bpe.vocab.n:
                raise KeyError(ids[i])
            length = offset[ids[i] + 1] - offset[ids[i]]
            if length == 0:
                raise KeyError(ids[i])
            total += length
        result = PyBytes_FromStringAndSize(NULL, total)
        out = <uint8_t*>PyBytes_AS_STRING(result)
        for i in range(n):
            start = offset[ids[i]]
            length = offset[ids[i] + 1] - start
            # Most tokens are short: a fixed copy is one load and one store.
            if length <= 16 and used + 16 <= total and start + 16 <= size:
                memcpy(out + used, blob + start, 16)
            else:
                memcpy(out + used, blob + start, length)
            used += length
        return result


def rebuild(bytes blob, dict parts):
    """Encoder from the parts of another; what unpickling calls."""
    return Encoder(blob, parts["offsets"], **{k: v for k, v in parts.items() if k != "offsets"})


cdef inline bint holds_mark(const uint8_t* text, Py_ssize_t n) noexcept nogil:
    # Whether U+2581 occurs.
    cdef Py_ssize_t i
    for i in range(n - 2):
        if text[i] == 0xE2 and text[i + 1] == 0x96 and text[i + 2] == 0x81:
            return True
    return False


cdef Py_ssize_t cut_ends(
    const Bpe* bpe, const uint8_t* text, Py_ssize_t n, uint32_t* ends, Py_ssize_t room
) noexcept nogil:
    # Without a pattern, cut where no token has these two bytes side by side: nothing merges there.
    cdef Py_ssize_t i, got = 0
    if bpe.fuse_unknown:
        ends[0] = <uint32_t>n
        return 1
    for i in range(1, n):
        if not is_adjacent(bpe, text[i - 1], text[i]) and (text[i] & 0xC0) != 0x80:
            ends[got] = <uint32_t>i
            got += 1
            if got == room:
                return got
    ends[got] = <uint32_t>n
    return got + 1


cdef Py_ssize_t miss_short(
    const Bpe* bpe, Workspace* space, ShortEntry* line, const uint8_t* p, Py_ssize_t n,
    uint64_t low, uint64_t high, uint32_t* out
) noexcept nogil:
    cdef Py_ssize_t count = bpe_encode(bpe, &space.merge, p, n, out)
    cdef Py_ssize_t i
    if count < 0:
        return count
    if count > 4:
        return count
    line[1] = line[0]
    line[0].low = low
    line[0].high = high
    for i in range(4):
        line[0].id[i] = out[i] if i < count else 0
    line[0].id[0] |= <uint32_t>count << 29
    return count


cdef Py_ssize_t encode_long(
    const Bpe* bpe, Workspace* space, const uint8_t* p, Py_ssize_t n, uint32_t* out
) noexcept nogil:
    cdef uint64_t h
    cdef LongEntry* entry
    cdef Py_ssize_t count, words
    if n > MAX_LONG_BYTES:
        return bpe_encode(bpe, &space.merge, p, n, out)
    h = hash_bytes(p, n)
    entry = space.long_entry + (h >> (64 - LONG_BITS))
    if entry.hash == h and entry.at and entry.n_bytes == n:
        if memcmp(space.words + entry.at + entry.n_ids, p, n) == 0:
            memcpy(out, space.words + entry.at, entry.n_ids * sizeof(uint32_t))
            return entry.n_ids
    count = bpe_encode(bpe, &space.merge, p, n, out)
    if count < 0:
        return count
    words = count + (n + 3) // 4
    if space.n_words + words > LONG_WORDS:
        memset(space.long_entry, 0, (<size_t>1 << LONG_BITS) * sizeof(LongEntry))
        space.n_words = 1
        entry = space.long_entry + (h >> (64 - LONG_BITS))
    entry.hash = h
    entry.at = space.n_words
    entry.n_bytes = <unsigned short>n
    entry.n_ids = <unsigned short>count
    memcpy(space.words + space.n_words, out, count * sizeof(uint32_t))
    memcpy(space.words + space.n_words + count, p, n)
    space.n_words += <uint32_t>words
    return count


cdef Py_ssize_t count_characters(const uint8_t* text, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, count = 0
    for i in range(n):
        count += (text[i] & 0xC0) != 0x80
    return count


cdef int check_encoded(int status) except -1:
    if status == OUT_OF_RANGE:
        raise UnicodeError("the vocabulary cannot spell a character of the text")
    return check(status, "no memory to encode the text")

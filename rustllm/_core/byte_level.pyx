"""Vocabularies written as text: GPT-2's printable alphabet for bytes, merges as pairs of words.

GPT-2 writes every byte as one printable character: those that are printable stand for themselves,
the other 68 for U+0100 upwards in the order of their values.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy

import numpy as np

from rustllm._core.status cimport check
from rustllm._core.unicode cimport decode_utf8
from rustllm._core.vocab cimport NO_ID, Vocab, vocab_find, vocab_free, vocab_init

cdef uint8_t to_byte[512]       # byte of each character below 512 ...
cdef uint8_t is_known[512]      # ... and whether it has one
cdef uint32_t to_char[256]


cdef int fill() except -1:
    cdef int byte, extra = 256
    for byte in range(256):
        if 33 <= byte < 127 or 161 <= byte < 173 or byte >= 174:
            to_char[byte] = byte
        else:
            to_char[byte] = extra
            extra += 1
        to_byte[to_char[byte]] = byte
        is_known[to_char[byte]] = 1
    return 0

fill()


cdef Py_ssize_t to_bytes(const uint8_t* s, Py_ssize_t n, uint8_t* out) noexcept nogil:
    # Bytes that a byte-level string stands for; -1 if it has a character that is none.
    cdef Py_ssize_t i = 0, used = 0
    cdef uint32_t c
    while i < n:
        i += decode_utf8(s + i, n - i, &c)
        if c >= 512 or not is_known[c]:
            return -1
        out[used] = to_byte[c]
        used += 1
    return used


cdef class Strings:
    # Strings in a buffer, checked once.
    cdef Py_buffer text
    cdef bint held
    cdef object starts, sizes
    cdef Py_buffer start_view, size_view
    cdef bint start_held, size_held
    cdef const uint8_t* data
    cdef const int64_t* start
    cdef const int64_t* size
    cdef Py_ssize_t n

    def __cinit__(self, buffer, offsets, lengths):
        cdef Py_ssize_t i
        self.starts = np.ascontiguousarray(offsets, dtype=np.int64)
        self.sizes = np.ascontiguousarray(lengths, dtype=np.int64)
        if len(self.starts) != len(self.sizes):
            raise ValueError("as many offsets as lengths are needed")
        PyObject_GetBuffer(buffer, &self.text, PyBUF_SIMPLE)
        self.held = True
        PyObject_GetBuffer(self.starts, &self.start_view, PyBUF_SIMPLE)
        self.start_held = True
        PyObject_GetBuffer(self.sizes, &self.size_view, PyBUF_SIMPLE)
        self.size_held = True
        self.data = <const uint8_t*>self.text.buf
        self.start = <const int64_t*>self.start_view.buf
        self.size = <const int64_t*>self.size_view.buf
        self.n = len(self.starts)
        for i in range(self.n):
            if (self.start[i] < 0 or self.size[i] < 0 or self.size[i] > self.text.len
                    or self.start[i] > self.text.len - self.size[i]):
                raise ValueError(f"string {i} lies outside the buffer")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.text)
        if self.start_held:
            PyBuffer_Release(&self.start_view)
        if self.size_held:
            PyBuffer_Release(&self.size_view)


def bytes_to_text(bytes data):
    """Byte-level string of `data`.

    >>> bytes_to_text(b" the")
    'Ġthe'
    """
    return "".join([chr(to_char[byte]) for byte in data])


def text_to_bytes(str text):
    """Bytes of a byte-level string; ValueError if it has a character that stands for no byte.

    >>> text_to_bytes("Ġthe")
    b' the'
    """
    cdef bytes data = text.encode("utf-8", "surrogatepass")
    cdef bytes out = PyBytes_FromStringAndSize(NULL, len(data))
    cdef Py_ssize_t n = to_bytes(data, len(data), <uint8_t*>PyBytes_AS_STRING(out))
    if n < 0:
        raise ValueError(f"{text!r} has a character that stands for no byte")
    return out[:n]


def decode_vocabulary(buffer, offsets, lengths, bytes verbatim):
    """Bytes of byte-level strings, end to end.

    Parameters
    ----------
    buffer : bytes-like
    offsets, lengths : array of int64 [n]
        Where each string starts in `buffer`, and its bytes of UTF-8.
    verbatim : bytes
        One byte a string; where it is not 0, and where a character stands for no byte, the string
        is taken as it is.

    Returns
    -------
    blob : bytes
    ends : ndarray of uint32 [n + 1]
    """
    cdef Strings strings = Strings(buffer, offsets, lengths)
    cdef Py_ssize_t i, total = 0, got
    cdef const uint8_t* keep = verbatim
    cdef uint8_t* out
    cdef uint32_t* end
    cdef Py_buffer view
    if len(verbatim) != strings.n:
        raise ValueError("verbatim needs one byte a string")
    for i in range(strings.n):
        total += strings.size[i]
    if total >= 0xFFFFFFFF:
        raise ValueError("a vocabulary of 4 GiB or more")
    ends = np.zeros(strings.n + 1, dtype=np.uint32)
    out = <uint8_t*>malloc(total + 1)
    if out is NULL:
        raise MemoryError
    PyObject_GetBuffer(ends, &view, PyBUF_SIMPLE | 1)
    end = <uint32_t*>view.buf
    try:
        with nogil:
            total = 0
            for i in range(strings.n):
                got = -1
                if not keep[i]:
                    got = to_bytes(
                        strings.data + strings.start[i], strings.size[i], out + total
                    )
                if got < 0:
                    got = strings.size[i]
                    memcpy(out + total, strings.data + strings.start[i], got)
                total += got
                end[i + 1] = <uint32_t>total
        return PyBytes_FromStringAndSize(<char*>out, total), ends
    finally:
        PyBuffer_Release(&view)
        free(out)


def merge_ids(bytes blob, ends, bytes listed, buffer, offsets, lengths, bint byte_level=True):
    """Ids of merges written as two words with a space between.

    Parameters
    ----------
    blob, ends, listed
        The vocabulary as bytes, and which of its tokens merges may name.
    buffer, offsets, lengths
        The merges, as in `decode_vocabulary`.
    byte_level : bool
        The words are in GPT-2's alphabet rather than plain UTF-8.

    Returns
    -------
    triples : ndarray of uint32 [n, 3]
        Left, right and made id.
    bad : int
        Index of the first merge that does not name three tokens, or -1.
    """
    cdef Strings strings = Strings(buffer, offsets, lengths)
    cdef Strings vocabulary = Strings(blob, ends[:len(ends) - 1], np.diff(ends.astype(np.int64)))
    cdef Vocab vocab
    cdef Py_buffer view, end_view
    cdef uint8_t joined[2048]
    cdef const uint8_t* s
    cdef const uint8_t* space
    cdef Py_ssize_t i, n, bad = -1, left, right
    cdef uint32_t* row
    cdef int status
    ends = np.ascontiguousarray(ends, dtype=np.uint32)
    if len(listed) != vocabulary.n or ends[len(ends) - 1] != len(blob):
        raise ValueError("the vocabulary's parts do not fit each other")
    triples = np.zeros((strings.n, 3), dtype=np.uint32)
    PyObject_GetBuffer(ends, &end_view, PyBUF_SIMPLE)
    try:
        status = vocab_init(
            &vocab, <const uint8_t*><const char*>blob, <const uint32_t*>end_view.buf,
            <uint32_t>vocabulary.n, <const uint8_t*><const char*>listed,
        )
    finally:
        PyBuffer_Release(&end_view)
    check(status, "no memory for the vocabulary")
    PyObject_GetBuffer(triples, &view, PyBUF_SIMPLE | 1)
    row = <uint32_t*>view.buf
    try:
        with nogil:
            for i in range(strings.n):
                s = strings.data + strings.start[i]
                n = strings.size[i]
                bad = i
                if n < 3 or n > <Py_ssize_t>sizeof(joined):
                    break
                space = <const uint8_t*>memchr(s + 1, c" ", n - 2)
                if space is NULL:
                    break
                if byte_level:
                    left = to_bytes(s, space - s, joined)
                    if left <= 0:
                        break
                    right = to_bytes(space + 1, s + n - space - 1, joined + left)
                    if right <= 0:
                        break
                else:
                    left = space - s
                    right = n - left - 1
                    memcpy(joined, s, left)
                    memcpy(joined + left, space + 1, right)
                row[3 * i] = vocab_find(&vocab, joined, left)
                row[3 * i + 1] = vocab_find(&vocab, joined + left, right)
                row[3 * i + 2] = vocab_find(&vocab, joined, left + right)
                if (row[3 * i] == NO_ID or row[3 * i + 1] == NO_ID
                        or row[3 * i + 2] == NO_ID):
                    break
                bad = -1
        return triples, bad
    finally:
        PyBuffer_Release(&view)
        vocab_free(&vocab)


cdef inline int hex_digit(uint8_t byte) noexcept nogil:
    if c"0" <= byte <= c"9":
        return byte - c"0"
    byte |= 0x20
    return byte - c"a" + 10 if c"a" <= byte <= c"f" else -1


def decode_pieces(buffer, offsets, lengths, bytes codes):
    """Bytes of SentencePiece's pieces, end to end.

    Parameters
    ----------
    buffer, offsets, lengths
        The pieces, as in `decode_vocabulary`.
    codes : bytes
        One byte a piece: 0 for one that has U+2581 for a space, 1 for one to take as it is, 2 for
        one that stands for a byte and is written ``<0x0A>``.

    Returns
    -------
    blob : bytes
    ends : ndarray of uint32 [n + 1]
    fallback : ndarray of uint32 [256]
        Id of the piece that stands for each byte, 0x7FFFFFFF where there is none.
    """
    cdef Strings strings = Strings(buffer, offsets, lengths)
    cdef Py_ssize_t i, j, n, total = 0, bad = -1
    cdef const uint8_t* code = codes
    cdef const uint8_t* s
    cdef uint8_t* out
    cdef uint32_t* end
    cdef uint32_t byte_piece[256]
    cdef Py_buffer view
    cdef int high, low
    if len(codes) != strings.n:
        raise ValueError("codes needs one byte a piece")
    for i in range(strings.n):
        total += strings.size[i]
    if total >= 0xFFFFFFFF:
        raise ValueError("a vocabulary of 4 GiB or more")
    for i in range(256):
        byte_piece[i] = NO_ID
    ends = np.zeros(strings.n + 1, dtype=np.uint32)
    out = <uint8_t*>malloc(total + 1)
    if out is NULL:
        raise MemoryError
    PyObject_GetBuffer(ends, &view, PyBUF_SIMPLE | 1)
    end = <uint32_t*>view.buf
    try:
        with nogil:
            total = 0
            for i in range(strings.n):
                s = strings.data + strings.start[i]
                n = strings.size[i]
                if code[i] == 2:
                    high = hex_digit(s[3]) if n == 6 else -1
                    low = hex_digit(s[4]) if n == 6 else -1
                    if high < 0 or low < 0 or s[0] != c"<" or s[5] != c">":
                        bad = i
                        break
                    out[total] = <uint8_t>(high * 16 + low)
                    if byte_piece[out[total]] == NO_ID:
                        byte_piece[out[total]] = <uint32_t>i
                    total += 1
                else:
                    j = 0
                    while j < n:
                        if (s[j] == 0xE2 and code[i] == 0 and j + 2 < n and s[j + 1] == 0x96
                                and s[j + 2] == 0x81):
                            out[total] = c" "
                            j += 3
                        else:
                            out[total] = s[j]
                            j += 1
                        total += 1
                end[i + 1] = <uint32_t>total
        if bad >= 0:
            raise ValueError(f"piece {bad} stands for a byte but is not written as <0x0A> is")
        fallback = np.array([byte_piece[i] for i in range(256)], dtype=np.uint32)
        return PyBytes_FromStringAndSize(<char*>out, total), ends, fallback
    finally:
        PyBuffer_Release(&view)
        free(out)

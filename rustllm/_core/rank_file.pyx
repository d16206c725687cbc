"""Reading tiktoken's files of ranks: a line a token, base64 and a number."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import numpy as np

from rustllm._core.vocab cimport MAX_VOCAB

cdef enum:
    NO_DIGIT = 1 << 24

# What a character of base64 means as the first, second, third and fourth of a group.
cdef uint32_t digit[4][256]

cdef int fill() except -1:
    cdef const char* alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef int i, place
    for place in range(4):
        for i in range(256):
            digit[place][i] = NO_DIGIT
        for i in range(64):
            digit[place][<uint8_t>alphabet[i]] = i << (18 - 6 * place)
    return 0

fill()


cdef Py_ssize_t decode_base64(
    const uint8_t* s, Py_ssize_t n, uint8_t* out, Py_ssize_t* used
) noexcept nogil:
    # How many characters of padded base64 of at least one byte stand at `s`; -1 if there is none.
    # It ends where a character is no digit. `out` takes `used` bytes, 3 for 4 characters at most.
    cdef Py_ssize_t i = 0, written = 0
    cdef uint32_t group
    while i + 4 <= n:
        group = digit[0][s[i]] | digit[1][s[i + 1]] | digit[2][s[i + 2]] | digit[3][s[i + 3]]
        if group >= NO_DIGIT:
            break
        out[written] = <uint8_t>(group >> 16)
        out[written + 1] = <uint8_t>(group >> 8)
        out[written + 2] = <uint8_t>group
        written += 3
        i += 4
    if i + 4 <= n and s[i + 3] == c"=":
        group = digit[0][s[i]] | digit[1][s[i + 1]]
        if s[i + 2] != c"=":
            group |= digit[2][s[i + 2]]
        # Bits that no byte takes are zero.
        if group >= NO_DIGIT or group & (0xFF if s[i + 2] != c"=" else 0xFFFF):
            return -1
        out[written] = <uint8_t>(group >> 16)
        written += 1
        if s[i + 2] != c"=":
            out[written] = <uint8_t>(group >> 8)
            written += 1
        i += 4
    used[0] = written
    return i if i else -1


cdef Py_ssize_t line_of_token(const uint8_t* s, Py_ssize_t n, Py_ssize_t token) noexcept nogil:
    """The number, from 1, of the line that gives the token; empty lines give none."""
    cdef Py_ssize_t i = 0, line = 0
    while i < n:
        line += 1
        if s[i] != c"\n" and not (s[i] == c"\r" and (i + 1 == n or s[i + 1] == c"\n")):
            if token == 0:
                break
            token -= 1
        while i < n and s[i] != c"\n":
            i += 1
        i += 1
    return line


def parse_ranks(data):
    """Tokens of a file of ranks, in the order of their ranks.

    Parameters
    ----------
    data : bytes-like
        Lines ``BASE64 RANK``; empty lines are skipped.

    Returns
    -------
    blob : bytes
        The tokens, end to end, by rank.
    ends : ndarray of uint32 [n + 1]
        Where each rank's token starts; a rank that no line gives has no bytes.
    order : ndarray of uint32
        The ranks there are, ascending.
    bad : int
        Number of the first line, from 1, that is malformed or repeats a rank; 0 if none is.

    Notes
    -----
    O(n); about 1 ms for 1 MB.
    """
    cdef Py_buffer view, out_view
    cdef const uint8_t* s
    cdef Py_ssize_t n, i = 0, start, used = 0, got = 0, size, bad = 0, line = 0, n_lines = 0
    cdef bint in_order = True
    cdef uint8_t* scratch = NULL
    cdef uint32_t* entry = NULL     # rank, offset, length
    cdef uint32_t* end
    cdef uint64_t rank, top = 0
    cdef uint8_t* out
    cdef bytes blob
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    s = <const uint8_t*>view.buf
    n = view.len
    try:
        if n >= 0xFFFFFFFF:
            raise ValueError("a file of 4 GiB or more")
        # The shortest line is "AA== 0\n" less its line end.
        scratch = <uint8_t*>malloc(n + 1)
        entry = <uint32_t*>malloc((n // 6 + 1) * 3 * sizeof(uint32_t))
        if scratch is NULL or entry is NULL:
            raise MemoryError
        with nogil:
            while i < n:
                line += 1
                if s[i] == c"\n" or (s[i] == c"\r" and (i + 1 == n or s[i + 1] == c"\n")):
                    i += 1 + (s[i] == c"\r")
                    continue
                size = decode_base64(s + i, n - i, scratch + used, &got)
                if size < 0 or i + size >= n or s[i + size] != c" ":
                    bad = line
                    break
                i += size + 1
                rank = 0
                start = i
                while i < n and c"0" <= s[i] <= c"9" and rank <= MAX_VOCAB:
                    rank = rank * 10 + (s[i] - c"0")
                    i += 1
                if i == start or rank >= MAX_VOCAB:
                    bad = line
                    break
                if i < n and s[i] == c"\r":
                    i += 1
                if i < n and s[i] != c"\n":
                    bad = line
                    break
                i += 1
                entry[3 * n_lines] = <uint32_t>rank
                entry[3 * n_lines + 1] = <uint32_t>used
                entry[3 * n_lines + 2] = <uint32_t>got
                in_order = in_order and rank >= top
                top = max(top, rank + 1)
                used += got
                n_lines += 1
        if bad:
            return b"", np.zeros(1, np.uint32), np.zeros(0, np.uint32), bad
        ends = np.zeros(top + 1, dtype=np.uint32)
        PyObject_GetBuffer(ends, &out_view, PyBUF_SIMPLE | 1)
        end = <uint32_t*>out_view.buf
        blob = PyBytes_FromStringAndSize(<char*>scratch if in_order else NULL, used)
        out = <uint8_t*>PyBytes_AS_STRING(blob)
        try:
            with nogil:
                for i in range(n_lines):
                    if end[entry[3 * i] + 1]:
                        bad = line_of_token(s, n, i)
                        break
                    end[entry[3 * i] + 1] = entry[3 * i + 2]
                if not bad:
                    for i in range(<Py_ssize_t>top):
                        end[i + 1] += end[i]
                    for i in range(0 if in_order else n_lines):
                        memcpy(
                            out + end[entry[3 * i]], scratch + entry[3 * i + 1], entry[3 * i + 2]
                        )
        finally:
            PyBuffer_Release(&out_view)
        return blob, ends, np.flatnonzero(np.diff(ends)).astype(np.uint32), bad
    finally:
        free(scratch)
        free(entry)
        PyBuffer_Release(&view)

"""A Python string from UTF-8, written straight into its own memory.

The bytes are validated and counted first, so the string is made at its size and width; CPython
finds both out while it goes along. What is not UTF-8 is left to CPython and its error handlers.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from rustllm._core.dispatch cimport simd_level
from rustllm._core.utf8 cimport utf8_valid_up_to

cdef extern from "Python.h":
    str PyUnicode_New(Py_ssize_t n, uint32_t largest)
    void* PyUnicode_DATA(object text)
    str PyUnicode_DecodeUTF8(const char* data, Py_ssize_t n, const char* errors)

cdef extern from "widen.h" nogil:
    Py_ssize_t rl_measure(const uint8_t* s, Py_ssize_t n, int level, int* kind) noexcept
    void rl_widen(const uint8_t* s, Py_ssize_t n, int level, int kind, void* out) noexcept

cdef enum:
    TINY = 16               # bytes up to which CPython is as good, and shares what it has already
    LONG = 1 << 16          # bytes from which the GIL is given up


cdef Py_ssize_t measure(const uint8_t* data, Py_ssize_t n, int* kind) noexcept nogil:
    # Characters, and how wide they are; -1 if the bytes are not UTF-8.
    cdef Py_ssize_t count = rl_measure(data, n, simd_level(), kind)
    if kind[0] and utf8_valid_up_to(data, n) < <size_t>n:
        return -1
    return count


cdef void fill(void* out, const uint8_t* data, Py_ssize_t n, int kind) noexcept nogil:
    if kind:
        rl_widen(data, n, simd_level(), kind, out)
    else:
        memcpy(out, data, n)


cdef str text_from_utf8(const uint8_t* data, Py_ssize_t n, const char* errors):
    cdef Py_ssize_t count
    cdef int kind = 0
    cdef str text
    cdef void* out
    if n <= TINY:
        return PyUnicode_DecodeUTF8(<const char*>data, n, errors)
    if n < LONG:
        count = measure(data, n, &kind)
    else:
        with nogil:
            count = measure(data, n, &kind)
    if count < 0:
        return PyUnicode_DecodeUTF8(<const char*>data, n, errors)
    text = PyUnicode_New(
        count,
        0x7F if kind == 0 else 0xFF if kind == 1 else 0xFFFF if kind == 2 else 0x10FFFF,
    )
    # Nobody else has the string yet.
    out = PyUnicode_DATA(text)
    if n < LONG:
        fill(out, data, n, kind)
    else:
        with nogil:
            fill(out, data, n, kind)
    return text


def decode_utf8(bytes data, str errors="strict"):
    """Text of UTF-8 `data`: ``data.decode("utf-8", errors)``, sooner.

    Parameters
    ----------
    data : bytes
    errors : str, optional
        Handler for what is not UTF-8, as `bytes.decode` takes it.

    Notes
    -----
    Linear time; without the GIL from 64 KiB on.

    Examples
    --------
    >>> from rustllm._core.from_utf8 import decode_utf8
    >>> decode_utf8("naïve, 素朴".encode()), decode_utf8(b"ab\\xff", "replace")
    ('naïve, 素朴', 'ab�')
    """
    cdef bytes handler = errors.encode()
    return text_from_utf8(data, len(data), handler)

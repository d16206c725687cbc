"""The code points of a Python string as UTF-8, without the copy that CPython would keep."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from rustllm._core.dispatch cimport AVX512, simd_level
from rustllm._core.view cimport TextSlice

cdef extern from "Python.h":
    bint PyUnicode_Check(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    int PyUnicode_READY(object text) except -1
    int PyUnicode_KIND(object text)
    void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)


cdef extern from "transcode.h" nogil:
    Py_ssize_t rl_units_to_utf8(
        const uint16_t* s, Py_ssize_t n, uint8_t* out, Py_ssize_t* used
    ) noexcept

cdef extern from "transcode_avx512.h" nogil:
    Py_ssize_t rl_units1_avx512(
        const uint8_t* s, Py_ssize_t n, uint8_t* out, Py_ssize_t* used
    ) noexcept
    Py_ssize_t rl_units2_avx512(
        const uint16_t* s, Py_ssize_t n, uint8_t* out, Py_ssize_t* used
    ) noexcept
    Py_ssize_t rl_units4_avx512(
        const uint32_t* s, Py_ssize_t n, uint8_t* out, Py_ssize_t* used
    ) noexcept


cdef int view_text(object text, TextView* view) except -1:
    if not PyUnicode_Check(text):
        raise TypeError(f"expected str, got {type(text).__name__}")
    view.length = PyUnicode_GET_LENGTH(text)
    view.data = PyUnicode_DATA(text)
    view.kind = 0 if PyUnicode_IS_COMPACT_ASCII(text) else PyUnicode_KIND(text)
    return 0


cdef int view_utf8(object text, TextView* view) except -1:
    if not isinstance(text, TextSlice):
        return view_text(text, view)
    view.data = (<TextSlice>text).data
    view.length = (<TextSlice>text).n_bytes
    view.kind = 0
    return 0


cdef Py_ssize_t utf8_room(const TextView* view) noexcept nogil:
    # Whole words are written ahead, so a few bytes more than the worst case.
    if view.kind == 0:
        return view.length
    return view.length * (2 if view.kind == 1 else 3 if view.kind == 2 else 4) + 16


cdef inline uint8_t* put(uint8_t* out, uint32_t c) noexcept nogil:
    if c < 0x80:
        out[0] = <uint8_t>c
        return out + 1
    if c < 0x800:
        out[0] = <uint8_t>(0xC0 | c >> 6)
        out[1] = <uint8_t>(0x80 | (c & 0x3F))
        return out + 2
    if c < 0x10000:
        out[0] = <uint8_t>(0xE0 | c >> 12)
        out[1] = <uint8_t>(0x80 | (c >> 6 & 0x3F))
        out[2] = <uint8_t>(0x80 | (c & 0x3F))
        return out + 3
    out[0] = <uint8_t>(0xF0 | c >> 18)
    out[1] = <uint8_t>(0x80 | (c >> 12 & 0x3F))
    out[2] = <uint8_t>(0x80 | (c >> 6 & 0x3F))
    out[3] = <uint8_t>(0x80 | (c & 0x3F))
    return out + 4


cdef Py_ssize_t latin1_to_utf8(const uint8_t* s, Py_ssize_t n, uint8_t* out) noexcept nogil:
    cdef uint8_t* start = out
    cdef Py_ssize_t i = 0, used = 0
    cdef uint64_t word
    if simd_level() == AVX512:
        i = rl_units1_avx512(s, n, out, &used)
        out += used
    while i < n:
        if i + 8 <= n:
            memcpy(&word, s + i, 8)
            if word & <uint64_t>0x8080808080808080ULL == 0:
                memcpy(out, &word, 8)
                out += 8
                i += 8
                continue
        out = put(out, s[i])
        i += 1
    return out - start


cdef Py_ssize_t ucs2_to_utf8(const uint16_t* s, Py_ssize_t n, uint8_t* out) noexcept nogil:
    cdef Py_ssize_t i = 0, used = 0
    cdef uint32_t c, low
    cdef bint wide = simd_level() == AVX512
    while True:
        if wide:
            i += rl_units2_avx512(s + i, n - i, out + used, &used)
        i += rl_units_to_utf8(s + i, n - i, out + used, &used)
        if i >= n:
            return used
        c = s[i]
        i += 1
        low = s[i] if i < n else 0
        if c < 0xDC00 and low >= 0xDC00 and low < 0xE000:
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00)
            i += 1
        else:
            c = 0xFFFD
        used = put(out + used, c) - out


cdef Py_ssize_t ucs4_to_utf8(const uint32_t* s, Py_ssize_t n, uint8_t* out) noexcept nogil:
    cdef uint8_t* start = out
    cdef Py_ssize_t i = 0, used
    cdef uint32_t c, low
    cdef bint wide = simd_level() == AVX512
    while i < n:
        if wide and i + 16 <= n:
            used = 0
            i += rl_units4_avx512(s + i, n - i, out, &used)
            out += used
            if i == n:
                break
        c = s[i]
        i += 1
        if c >= 0xD800 and c < 0xE000:
            low = s[i] if i < n else 0
            if c < 0xDC00 and low >= 0xDC00 and low < 0xE000:
                c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00)
                i += 1
            else:
                c = 0xFFFD
        out = put(out, c)
    return out - start


cdef Py_ssize_t to_utf8(const TextView* view, uint8_t* out) noexcept nogil:
    if view.kind == 0:
        memcpy(out, view.data, view.length)
        return view.length
    if view.kind == 1:
        return latin1_to_utf8(<const uint8_t*>view.data, view.length, out)
    if view.kind == 2:
        return ucs2_to_utf8(<const uint16_t*>view.data, view.length, out)
    return ucs4_to_utf8(<const uint32_t*>view.data, view.length, out)


def utf8(text):
    """UTF-8 of `text`, surrogates resolved as in decoding UTF-16 with "replace"; for tests."""
    cdef TextView view
    cdef bytearray out
    cdef Py_ssize_t n
    view_text(text, &view)
    out = bytearray(utf8_room(&view))
    n = to_utf8(&view, <uint8_t*><char*>out)
    return bytes(out[:n])

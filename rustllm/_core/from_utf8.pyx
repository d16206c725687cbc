"""Python strings from UTF-8, written straight into their own memory.

The bytes are validated and counted first, so the string is made at its size and width; CPython
finds both out while it goes along. What is not UTF-8 is left to CPython and its error handlers.
"""

from io import FileIO

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcpy

from rustllm._core.dispatch cimport simd_level
from rustllm._core.utf8 cimport utf8_valid_up_to

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char* memory, Py_ssize_t n, int flags)
    int PyBUF_WRITE
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


cdef inline str new_text(Py_ssize_t n, int kind):
    # Room for `n` characters; nobody else has the string yet.
    return PyUnicode_New(
        n, 0x7F if kind == 0 else 0xFF if kind == 1 else 0xFFFF if kind == 2 else 0x10FFFF
    )


cdef inline str valid_text(const uint8_t* data, Py_ssize_t n, bint is_ascii):
    # Of a line of bytes that were validated with others.
    cdef Py_ssize_t count = n
    cdef int kind = 0
    cdef str text
    if n <= 1 or (n <= TINY and not is_ascii):
        return PyUnicode_DecodeUTF8(<const char*>data, n, b"strict")
    if not is_ascii:
        count = rl_measure(data, n, simd_level(), &kind)
    text = new_text(count, kind)
    fill(PyUnicode_DATA(text), data, n, kind)
    return text


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
    text = new_text(count, kind)
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


def read_utf8(file, Py_ssize_t n, str errors="strict"):
    """The next `n` bytes of a file as text, read straight into the string if they are ASCII.

    Parameters
    ----------
    file : io.FileIO
        Nothing else may be given: it must not keep what it is to read into.
    n : int
    errors : str, optional
        Handler for what is not UTF-8, as `bytes.decode` takes it.

    Returns
    -------
    str or None
        None if there are fewer bytes.

    Raises
    ------
    OSError, UnicodeDecodeError
        As reading and decoding raise them.

    Notes
    -----
    Linear time, without the GIL. No copy is made of ASCII, and one of other text.

    Examples
    --------
    >>> import tempfile
    >>> from rustllm._core.from_utf8 import read_utf8
    >>> with tempfile.TemporaryFile(buffering=0) as file:
    ...     _ = file.write("grüße".encode())
    ...     _ = file.seek(0)
    ...     read_utf8(file, 7)
    'grüße'
    """
    if type(file) is not FileIO:
        raise TypeError("a FileIO is needed")
    if n < 1:
        raise ValueError("n is at least 1")
    # Nobody else has the string yet, and the view of it ends before anybody has.
    cdef str text = PyUnicode_New(n, 0x7F)
    cdef uint8_t* s = <uint8_t*>PyUnicode_DATA(text)
    cdef bytes handler = errors.encode()
    cdef Py_ssize_t at = 0, got = 0
    cdef int kind = 0
    while at < n:
        with PyMemoryView_FromMemory(<char*>s + at, n - at, PyBUF_WRITE) as view:
            got = file.readinto(view) or 0
        if got == 0:
            return None
        at += got
    with nogil:
        measure(s, n, &kind)
    return text if kind == 0 and n > TINY else text_from_utf8(s, n, handler)


def decode_lines(bytes data, Py_ssize_t n):
    """Lines of UTF-8 as a list of str, without the ``"\\n"`` or ``"\\r\\n"`` at their ends.

    Parameters
    ----------
    data : bytes
    n : int
        How many bytes to look at, at most all. What follows the last line end is a line, if there
        is any.

    Raises
    ------
    UnicodeDecodeError
        As decoding these bytes together raises it.

    Notes
    -----
    Linear time. The string of all lines is not made.

    Examples
    --------
    >>> from rustllm._core.from_utf8 import decode_lines
    >>> decode_lines(b"one\\r\\n\\ntwo", 9)
    ['one', '', 'two']
    """
    cdef const uint8_t* s = data
    cdef const uint8_t* newline
    cdef Py_ssize_t start = 0, end, after, count
    cdef int kind = 0
    cdef bint is_ascii
    cdef list lines = []
    if not 0 <= n <= len(data):
        raise IndexError(n)
    with nogil:
        count = measure(s, n, &kind)
    is_ascii = kind == 0
    if count < 0:
        PyUnicode_DecodeUTF8(<const char*>s, n, b"strict")  # raises and says where
    while start < n:
        newline = <const uint8_t*>memchr(s + start, c"\n", n - start)
        end = n if newline is NULL else newline - s
        after = end + 1
        if newline is not NULL and end > start and s[end - 1] == c"\r":
            end -= 1
        lines.append(valid_text(s + start, end - start, is_ascii))
        start = after
    return lines

# The code points of a Python string as UTF-8, without the copy that CPython would keep in it.

from libc.stdint cimport uint8_t

cdef struct TextView:
    const void* data
    Py_ssize_t length       # in code points; in bytes when kind is 0
    int kind                # 0: UTF-8 already; else bytes a code point: 1, 2 or 4

# Borrow the contents of `text`, which must outlive the view. TypeError unless it is a str.
cdef int view_text(object text, TextView* view) except -1

# The same for a str or a TextSlice, whose bytes are looked at where they are.
cdef int view_utf8(object text, TextView* view) except -1

# Bytes that `to_utf8` may write.
cdef Py_ssize_t utf8_room(const TextView* view) noexcept nogil

# Write `view` as UTF-8 to `out`; returns how many bytes. A surrogate pair becomes the character it
# stands for, a lone surrogate becomes U+FFFD, as decoding UTF-16 with "replace" has it.
cdef Py_ssize_t to_utf8(const TextView* view, uint8_t* out) noexcept nogil

# A Python string from UTF-8, written straight into its own memory.

from libc.stdint cimport uint8_t

# `errors` is the name of the handler for bytes that are not UTF-8, as bytes.decode takes it.
cdef str text_from_utf8(const uint8_t* data, Py_ssize_t n, const char* errors)

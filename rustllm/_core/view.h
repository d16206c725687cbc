/* Hashing and searching bytes as Python does, on memory that is no Python object. */
#ifndef RUSTLLM_VIEW_H
#define RUSTLLM_VIEW_H

#include <Python.h>
#include <stddef.h>
#include <string.h>

/* Exported by Python 3.13, but declared among its internals only; public again, renamed, in 3.14. */
#if PY_VERSION_HEX >= 0x030D0000 && PY_VERSION_HEX < 0x030E0000
extern Py_hash_t _Py_HashBytes(const void *data, Py_ssize_t n);
#endif

/* The hash of a bytes object, and of an ASCII str, of this content. */
static inline Py_hash_t rl_hash_bytes(const void *data, Py_ssize_t n) {
#if PY_VERSION_HEX >= 0x030E0000
    return Py_HashBuffer(data, n);
#else
    return _Py_HashBytes(data, n);
#endif
}

/* First occurrence of `needle`, or NULL. Linear time where the C library has memmem. */
static inline const void *rl_find(const void *data, size_t n, const void *needle, size_t m) {
    if (m == 1) return memchr(data, *(const unsigned char *)needle, n);
#if defined(_WIN32)
    const char *p = data, *end = p + n;
    while ((size_t)(end - p) >= m) {
        if (m == 0) return p;
        p = memchr(p, *(const unsigned char *)needle, (size_t)(end - p) - m + 1);
        if (p == NULL) return NULL;
        if (memcmp(p, needle, m) == 0) return p;
        p++;
    }
    return NULL;
#else
    return memmem(data, n, needle, m);
#endif
}

#endif

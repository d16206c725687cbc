"""Ids to the bytes that they spell.

Most tokens are short, so a table has an entry of 16 bytes for each, of which the last is the
length: one load and one store, whatever the length. Ids are taken a few hundred at a time. First
each is checked and its entry asked for, then the entries are read, so that the waits for memory
overlap.
"""

from cpython.number cimport PyNumber_Index
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy

from rustllm._core.cache cimport Workspace, grow_text
from rustllm._core.status cimport NO_MEMORY, OK
from rustllm._core.vocab cimport Vocab, prefetch

cdef extern from *:
    """
    #include <stdint.h>
    /* An int that is an id: its value, or -1 for anything that cannot be one. */
    static inline int64_t rl_small_int(PyObject *number) {
        int overflow;
        long long value;
    #if !defined(PYPY_VERSION) && PY_VERSION_HEX >= 0x030C0000
        if (PyUnstable_Long_IsCompact((PyLongObject *)number))
            return (int64_t)PyUnstable_Long_CompactValue((PyLongObject *)number);
    #elif !defined(PYPY_VERSION)
        if (Py_SIZE(number) == 1) return (int64_t)((PyLongObject *)number)->ob_digit[0];
    #endif
        value = PyLong_AsLongLongAndOverflow(number, &overflow);
        return overflow ? -1 : value;
    }
    """
    int64_t rl_small_int(PyObject* number) noexcept

cdef extern from "Python.h":
    bint PyLong_CheckExact(PyObject* item) noexcept
    PyObject* PyList_GET_ITEM(list items, Py_ssize_t i) noexcept
    Py_ssize_t PyList_GET_SIZE(list items) noexcept

cdef enum:
    CHUNK = 256             # ids taken at a time: as many entries as half a first-level cache holds
    AHEAD = 24              # integers asked for before they are read
    LONG = 255              # in place of the length of a token that an entry cannot hold
    EXPECTED = 5            # bytes a token, on average, that room is made for at once
    MANY_IDS = 1 << 14      # ids from which the GIL is given up

cdef uint8_t* spelling_new(const Vocab* vocab) noexcept nogil:
    cdef uint32_t i, start, length
    cdef uint8_t* table = <uint8_t*>calloc(<size_t>vocab.n + 1, 16)
    if table is NULL:
        return NULL
    for i in range(vocab.n):
        start = vocab.offset[i]
        length = vocab.offset[i + 1] - start
        if length <= 15:
            memcpy(table + 16 * <size_t>i, vocab.blob + start, length)
            table[16 * <size_t>i + 15] = <uint8_t>length
        else:
            table[16 * <size_t>i + 15] = LONG
    return table


cdef int append(
    const Speller* speller, Workspace* space, const uint32_t* ids, int n, Py_ssize_t* used,
    int* bad
) noexcept nogil:
    # Append the bytes of `n` ids of the vocabulary, at most CHUNK, to the `used` bytes of
    # space.text; `bad` becomes the index of the first that is not in use, if there is one.
    cdef const uint8_t* entry
    cdef uint8_t* out
    cdef uint32_t start, length
    cdef int i
    # Sixteen bytes are written for every token, whatever its length.
    if grow_text(space, used[0] + 16 * (n + 1)) < 0:
        return NO_MEMORY
    out = space.text + used[0]
    for i in range(n):
        entry = speller.short + 16 * <size_t>ids[i]
        length = entry[15]
        if length - 1 < 15:
            memcpy(out, entry, 16)
        elif length == 0:
            bad[0] = i
            break
        else:
            start = speller.vocab.offset[ids[i]]
            length = speller.vocab.offset[ids[i] + 1] - start
            used[0] = out - space.text
            if grow_text(space, used[0] + length + 16 * (n - i)) < 0:
                return NO_MEMORY
            out = space.text + used[0]
            memcpy(out, speller.vocab.blob + start, length)
        out += length
    used[0] = out - space.text
    return OK


cdef int append_all(
    const Speller* speller, Workspace* space, const uint32_t* ids, Py_ssize_t n, Py_ssize_t* used,
    Py_ssize_t* wrong
) noexcept nogil:
    # As `append`, for any number of ids; `wrong` may also be the index of one beyond the
    # vocabulary.
    cdef uint32_t n_vocab = speller.vocab.n
    cdef Py_ssize_t first = 0
    cdef int many, i, taken, bad = -1, status
    while first < n:
        many = <int>min(n - first, <Py_ssize_t>CHUNK)
        taken = many
        for i in range(many):
            if ids[first + i] >= n_vocab:
                taken = i
                break
            prefetch(speller.short + 16 * <size_t>ids[first + i])
        status = append(speller, space, ids + first, taken, used, &bad)
        if status < 0:
            return status
        if bad >= 0 or taken < many:
            wrong[0] = first + (bad if bad >= 0 else taken)
            return OK
        first += many
    return OK


cdef int make_room(Workspace* space, Py_ssize_t n) except -1:
    # For about as much as `n` ids spell, so that it seldom has to grow.
    if grow_text(space, EXPECTED * n + 16) < 0:
        raise MemoryError
    return 0


cdef Py_ssize_t spell_array(
    const Speller* speller, Workspace* space, const uint32_t* ids, Py_ssize_t n
) except -1:
    cdef Py_ssize_t used = 0, wrong = -1
    cdef int status
    make_room(space, n)
    if n < MANY_IDS:
        status = append_all(speller, space, ids, n, &used, &wrong)
    else:
        with nogil:
            status = append_all(speller, space, ids, n, &used, &wrong)
    if status < 0:
        raise MemoryError
    if wrong >= 0:
        raise KeyError(ids[wrong])
    return used


cdef Py_ssize_t spell_list(const Speller* speller, Workspace* space, list ids) except -1:
    cdef uint32_t chunk[CHUNK]
    cdef uint32_t n_vocab = speller.vocab.n
    cdef Py_ssize_t n = PyList_GET_SIZE(ids), first = 0, used = 0
    cdef int64_t id
    cdef PyObject* item
    cdef int many, i, bad = -1
    make_room(space, n)
    while first < n:
        many = <int>min(n - first, <Py_ssize_t>CHUNK)
        i = 0
        while i < many:
            if first + i + AHEAD < n:
                prefetch(PyList_GET_ITEM(ids, first + i + AHEAD))
            item = PyList_GET_ITEM(ids, first + i)
            if not PyLong_CheckExact(item):
                break
            id = rl_small_int(item)
            if id < 0 or id >= n_vocab:
                break
            chunk[i] = <uint32_t>id
            prefetch(speller.short + 16 * id)
            i += 1
        if append(speller, space, chunk, i, &used, &bad) < 0:
            raise MemoryError
        if bad >= 0:
            raise KeyError(chunk[bad])
        first += i
        if i < many:
            chunk[0] = id_of(ids[first], n_vocab)
            if PyList_GET_SIZE(ids) != n:
                raise RuntimeError("the list of ids changed its size while it was read")
            if append(speller, space, chunk, 1, &used, &bad) < 0:
                raise MemoryError
            if bad >= 0:
                raise KeyError(chunk[0])
            first += 1
    return used


cdef uint32_t id_of(object item, uint32_t n_vocab) except? 0xFFFFFFFF:
    # The slow way, which may run code of the caller's.
    cdef object number = PyNumber_Index(item)      # not int(): 1.5 is no id
    if not 0 <= number < n_vocab:
        raise KeyError(item if type(item) is int else number)
    return number

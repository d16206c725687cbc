"""Sizes that come from Python, checked once, in one way."""

from libc.stdint cimport SIZE_MAX

from rustllm._core.status cimport BAD_ARGUMENT, NO_MEMORY, failure

MAX_BYTES = SIZE_MAX // 4


cdef size_t checked_size(value, str name) except? <size_t> -1:
    cdef Py_ssize_t small
    if type(value) is int:
        try:
            small = value
            if 0 <= small <= <Py_ssize_t> MAX_BYTES:
                return <size_t> small
        except OverflowError:
            pass
    try:
        n = value.__index__()
    except AttributeError:
        what = f"{name} must be an integer, not {type(value).__name__}"
        raise failure(BAD_ARGUMENT, what, None) from None
    if n < 0:
        raise failure(BAD_ARGUMENT, f"{name} must not be negative, but is {n}", None)
    if n > MAX_BYTES:
        raise failure(NO_MEMORY, f"{name} of {n} exceeds the address space", None)
    return n

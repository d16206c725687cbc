"""Status codes of code that runs without the GIL, turned into exceptions in one place.

A ``nogil`` function returns a small negative :class:`Status`; its caller, back under the GIL, hands
the code to ``check``, or to ``failure`` when facts belong to it. The exception classes live a floor
above, in :mod:`rustllm.errors`, which registers itself here when it is imported, so that this floor
imports nothing above it; until then the built-in that fits is raised.
"""

_raiser = None

_BUILT_IN = {
    NO_MEMORY: MemoryError,
    BAD_ARGUMENT: ValueError,
    OUT_OF_RANGE: IndexError,
    BAD_FORMAT: ValueError,
    TRUNCATED: ValueError,
    LIMIT_REACHED: MemoryError,
    NOT_FINITE: ValueError,
    LIVE_VIEWS: BufferError,
    BAD_UTF8: ValueError,
}


def register_raiser(raiser):
    """Let `raiser(code, what, fields)` build the exception for a failing status code."""
    global _raiser
    _raiser = raiser


cdef object failure(int code, str what, dict fields):
    if _raiser is None:
        return _BUILT_IN.get(code, RuntimeError)(what)
    return _raiser(code, what, {} if fields is None else fields)


cdef int check(int code, str what) except -1:
    if code >= 0:
        return code
    raise failure(code, what, None)


def check_status(int code, str what):
    """Raise for a negative status `code`; return it otherwise."""
    return check(code, what)

# Status codes of nogil code, and the one place that turns them into exceptions.

cpdef enum Status:
    OK = 0
    NO_MEMORY = -1
    BAD_ARGUMENT = -2
    OUT_OF_RANGE = -3
    BAD_FORMAT = -4
    TRUNCATED = -5
    LIMIT_REACHED = -6
    NOT_FINITE = -7
    CANCELLED = -8
    STALE = -9
    CLOSED = -10
    LIVE_VIEWS = -11
    RELEASED_TWICE = -12
    BAD_UTF8 = -13

# Returns `code` when it is not negative; otherwise raises. Call with the GIL.
cdef int check(int code, str what) except -1

# The exception for a failing `code`, to raise; `fields` (may be None) become its attributes.
cdef object failure(int code, str what, dict fields)

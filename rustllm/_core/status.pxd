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

# Returns `code` when it is not negative; otherwise raises. Call with the GIL.
cdef int check(int code, str what) except -1

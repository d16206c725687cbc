"""Status codes of code that runs without the GIL, turned into exceptions in one place.

A ``nogil`` function returns a small negative :class:`Status`; its caller, back under the GIL, hands
the code to ``check``. The exception classes live a floor above, in :mod:`rustllm.errors`, which
registers itself here when it is imported, so that this floor imports nothing above it.
"""

_raiser = None


def register_raiser(raiser):
    """Let `raiser(code, what)` build the exception for a failing status code."""
    global _raiser
    _raiser = raiser


cdef int check(int code, str what) except -1:
    if code >= 0:
        return code
    if code == NO_MEMORY and _raiser is None:
        raise MemoryError(what)
    if _raiser is None:
        raise RuntimeError(f"{what} (status {code})")
    raise _raiser(code, what)


def check_status(int code, str what):
    """Raise for a negative status `code`; return it otherwise."""
    return check(code, what)

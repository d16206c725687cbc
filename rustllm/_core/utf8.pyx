"""UTF-8 validation at the processor's vector width."""

from libc.stdint cimport uint8_t

from rustllm._core.dispatch cimport simd_level
from rustllm._core.status cimport BAD_UTF8, failure

cdef extern from "utf8.h" nogil:
    size_t rl_utf8_valid_up_to(const uint8_t* s, size_t n, int level) noexcept
    size_t rl_utf8_scalar(const uint8_t* s, size_t n, size_t at) noexcept
    int rl_is_ascii(const uint8_t* s, size_t n, int level) noexcept
    size_t rl_utf8_count(const uint8_t* s, size_t n) noexcept


cdef size_t utf8_valid_up_to(const uint8_t* data, size_t n) noexcept nogil:
    return rl_utf8_valid_up_to(data, n, simd_level())


cdef size_t utf8_valid_up_to_ref(const uint8_t* data, size_t n) noexcept nogil:
    return rl_utf8_scalar(data, n, 0)


cdef bint is_ascii_bytes(const uint8_t* data, size_t n) noexcept nogil:
    return rl_is_ascii(data, n, simd_level())


cdef size_t utf8_count(const uint8_t* data, size_t n) noexcept nogil:
    return rl_utf8_count(data, n)


def valid_utf8_length(const uint8_t[::1] data, *, bint reference=False):
    """How many leading bytes of `data` are whole, valid UTF-8 sequences.

    Parameters
    ----------
    data : buffer of bytes
        Any contiguous buffer.
    reference : bool, optional
        Go byte by byte, for tests.

    Returns
    -------
    int
        ``len(data)`` when all is valid, else the offset of the first bad sequence, as in
        ``UnicodeDecodeError.start``.

    Notes
    -----
    Linear time, without the GIL.

    Examples
    --------
    >>> from rustllm._core.utf8 import valid_utf8_length
    >>> valid_utf8_length("héllo".encode()), valid_utf8_length(b"ab\\xffcd")
    (6, 2)
    """
    cdef size_t n = data.shape[0]
    cdef size_t good
    if n == 0:
        return 0
    with nogil:
        if reference:
            good = utf8_valid_up_to_ref(&data[0], n)
        else:
            good = utf8_valid_up_to(&data[0], n)
    return good


def validate_utf8(const uint8_t[::1] data):
    """Require that `data` is UTF-8.

    Parameters
    ----------
    data : buffer of bytes
        Any contiguous buffer.

    Raises
    ------
    InvalidUtf8Error
        It is not; ``offset`` says where the first bad sequence starts.

    Examples
    --------
    >>> from rustllm.memory import validate_utf8
    >>> validate_utf8("naïve".encode())
    """
    cdef size_t good = valid_utf8_length(data)
    if good < <size_t> data.shape[0]:
        raise failure(BAD_UTF8, "not UTF-8", {"offset": good})


def is_ascii(const uint8_t[::1] data):
    """Whether every byte of `data` is below 128.

    Examples
    --------
    >>> from rustllm._core.utf8 import is_ascii
    >>> is_ascii(b"plain"), is_ascii("naïve".encode())
    (True, False)
    """
    cdef bint result
    if data.shape[0] == 0:
        return True
    with nogil:
        result = is_ascii_bytes(&data[0], data.shape[0])
    return result

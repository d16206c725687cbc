"""The texts of lines, found in a buffer and unescaped where they stand, without Python objects.

A line of JSON is read by a scanner that accepts less than :func:`json.loads` and never anything
else: whatever is unusual (an error, an escaped key, a lone surrogate, ``NaN``, a number of hundreds
of digits, deep nesting, a field that is no text) is left to the caller, line by line, who asks
:func:`json.loads`. An unescaped string is never longer than an escaped one, so it is written over
it, and what is found is a pair of offsets.
"""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memmove

from rustllm._core.utf8 cimport utf8_valid_up_to

cdef extern from "json_string.h" nogil:
    size_t rl_json_run(const uint8_t* s, size_t n, size_t at) noexcept
    size_t rl_json_run_scalar(const uint8_t* s, size_t n, size_t at) noexcept

cdef enum:
    ODD = -1                # not for this scanner
    MAX_DEPTH = 63          # of nesting: a bit for each level
    MAX_DIGITS = 300        # json.loads refuses integers of thousands

# What may come next.
cdef enum Want:
    KEY, KEY_OR_END, VALUE, VALUE_OR_END, COMMA_OR_END

cdef int8_t[256] HEX

cdef void make_tables() noexcept:
    cdef int i
    for i in range(256):
        HEX[i] = -1
    for i in range(10):
        HEX[c"0" + i] = <int8_t>i
    for i in range(6):
        HEX[c"a" + i] = HEX[c"A" + i] = <int8_t>(10 + i)

make_tables()


cdef inline Py_ssize_t skip_space(const uint8_t* s, Py_ssize_t n, Py_ssize_t at) noexcept nogil:
    while at < n and (s[at] == c" " or s[at] == c"\t" or s[at] == c"\n" or s[at] == c"\r"):
        at += 1
    return at


cdef inline int hex4(const uint8_t* s) noexcept nogil:
    # Value of four hexadecimal digits; negative when one of them is none.
    cdef int a = HEX[s[0]], b = HEX[s[1]], c = HEX[s[2]], d = HEX[s[3]]
    if (a | b | c | d) < 0:
        return ODD
    return a << 12 | b << 8 | c << 4 | d


cdef Py_ssize_t end_of_string(
    const uint8_t* s, Py_ssize_t n, Py_ssize_t at, bint* escaped, bint* lone
) noexcept nogil:
    # Where the quote is that ends the string whose first character is at `at`, or ODD.
    cdef int unit, low
    escaped[0] = lone[0] = False
    while True:
        at = rl_json_run(s, n, at)
        if at >= n or s[at] < 0x20:
            return ODD
        if s[at] == c'"':
            return at
        escaped[0] = True
        if n - at < 2:
            return ODD
        if s[at + 1] != c"u":
            if memchr(b'"\\/bfnrt', s[at + 1], 8) is NULL:
                return ODD
            at += 2
            continue
        if n - at < 6:
            return ODD
        unit = hex4(s + at + 2)
        if unit < 0:
            return ODD
        at += 6
        if 0xD800 <= unit < 0xE000:
            low = ODD
            if unit < 0xDC00 and n - at >= 6 and s[at] == c"\\" and s[at + 1] == c"u":
                low = hex4(s + at + 2)
            if 0xDC00 <= low < 0xE000:
                at += 6
            else:
                lone[0] = True


cdef Py_ssize_t end_of_number(const uint8_t* s, Py_ssize_t n, Py_ssize_t at) noexcept nogil:
    cdef Py_ssize_t start
    if s[at] == c"-":
        at += 1
    start = at
    while at < n and c"0" <= s[at] <= c"9":
        at += 1
    if at == start or (s[start] == c"0" and at > start + 1) or at - start > MAX_DIGITS:
        return ODD
    if at < n and s[at] == c".":
        at += 1
        start = at
        while at < n and c"0" <= s[at] <= c"9":
            at += 1
        if at == start:
            return ODD
    if at < n and (s[at] == c"e" or s[at] == c"E"):
        at += 1
        if at < n and (s[at] == c"+" or s[at] == c"-"):
            at += 1
        start = at
        while at < n and c"0" <= s[at] <= c"9":
            at += 1
        if at == start:
            return ODD
    return at


cdef Py_ssize_t end_of_word(const uint8_t* s, Py_ssize_t n, Py_ssize_t at) noexcept nogil:
    if n - at >= 4 and (memcmp(s + at, b"true", 4) == 0 or memcmp(s + at, b"null", 4) == 0):
        return at + 4
    if n - at >= 5 and memcmp(s + at, b"false", 5) == 0:
        return at + 5
    return ODD


cdef int find_text(
    const uint8_t* s, Py_ssize_t n, const uint8_t* name, Py_ssize_t n_name,
    Py_ssize_t* start, Py_ssize_t* stop, bint* escaped
) noexcept nogil:
    # The string under `name` in the object that the whole of s[:n] must be; of two, the last.
    cdef Py_ssize_t at = skip_space(s, n, 0), end
    cdef uint64_t objects = 1       # a bit for each open bracket, the innermost lowest: 1 for {
    cdef int depth = 1
    cdef Want want = KEY_OR_END
    cdef bint ours = False, found = False, plain, lone, has_escape
    if at >= n or s[at] != c"{":
        return ODD
    at += 1
    while depth:
        at = skip_space(s, n, at)
        if at >= n:
            return ODD
        if (s[at] == c"}" and objects & 1 and (want == KEY_OR_END or want == COMMA_OR_END)) or (
            s[at] == c"]" and not objects & 1 and (want == VALUE_OR_END or want == COMMA_OR_END)
        ):
            depth -= 1
            objects >>= 1
            want = COMMA_OR_END
            at += 1
        elif want == COMMA_OR_END:
            if s[at] != c",":
                return ODD
            want = KEY if objects & 1 else VALUE
            at += 1
        elif want == KEY or want == KEY_OR_END:
            if s[at] != c'"':
                return ODD
            end = end_of_string(s, n, at + 1, &has_escape, &lone)
            if end < 0 or has_escape:
                return ODD
            ours = (depth == 1 and end - at - 1 == n_name and memcmp(s + at + 1, name, n_name) == 0)
            at = skip_space(s, n, end + 1)
            if at >= n or s[at] != c":":
                return ODD
            at += 1
            want = VALUE
        else:
            plain = ours
            ours = False
            if plain:
                found = False
            want = COMMA_OR_END
            if s[at] == c'"':
                end = end_of_string(s, n, at + 1, &has_escape, &lone)
                if end < 0:
                    return ODD
                if plain:
                    if lone:
                        return ODD
                    found = True
                    start[0] = at + 1
                    stop[0] = end
                    escaped[0] = has_escape
                at = end + 1
            elif s[at] == c"{" or s[at] == c"[":
                if depth == MAX_DEPTH:
                    return ODD
                depth += 1
                objects = objects << 1 | (s[at] == c"{")
                want = KEY_OR_END if s[at] == c"{" else VALUE_OR_END
                at += 1
            else:
                if s[at] == c"-" or c"0" <= s[at] <= c"9":
                    at = end_of_number(s, n, at)
                else:
                    at = end_of_word(s, n, at)
                if at < 0:
                    return ODD
    return 0 if found and skip_space(s, n, at) == n else ODD


cdef Py_ssize_t unescape(uint8_t* s, Py_ssize_t at, Py_ssize_t stop) noexcept nogil:
    # Write the string s[at:stop], which end_of_string accepted, over itself; returns its new end.
    cdef Py_ssize_t out = at, run
    cdef uint32_t c
    while True:
        run = rl_json_run(s, stop, at) - at
        if out != at:
            memmove(s + out, s + at, run)
        at += run
        out += run
        if at == stop:
            return out
        c = s[at + 1]
        at += 2
        if c == c"n":
            s[out] = 10
        elif c == c"t":
            s[out] = 9
        elif c == c"r":
            s[out] = 13
        elif c == c"b":
            s[out] = 8
        elif c == c"f":
            s[out] = 12
        elif c != c"u":
            s[out] = <uint8_t>c
        else:
            c = hex4(s + at)
            at += 4
            if 0xD800 <= c < 0xDC00:
                c = 0x10000 + ((c - 0xD800) << 10) + (<uint32_t>hex4(s + at + 2) - 0xDC00)
                at += 6
            if c < 0x80:
                s[out] = <uint8_t>c
            elif c < 0x800:
                s[out] = <uint8_t>(0xC0 | c >> 6)
                s[out + 1] = <uint8_t>(0x80 | (c & 0x3F))
                out += 1
            elif c < 0x10000:
                s[out] = <uint8_t>(0xE0 | c >> 12)
                s[out + 1] = <uint8_t>(0x80 | (c >> 6 & 0x3F))
                s[out + 2] = <uint8_t>(0x80 | (c & 0x3F))
                out += 2
            else:
                s[out] = <uint8_t>(0xF0 | c >> 18)
                s[out + 1] = <uint8_t>(0x80 | (c >> 12 & 0x3F))
                s[out + 2] = <uint8_t>(0x80 | (c >> 6 & 0x3F))
                s[out + 3] = <uint8_t>(0x80 | (c & 0x3F))
                out += 3
        out += 1


cdef inline bint is_blank(const uint8_t* s, Py_ssize_t n) noexcept nogil:
    # As ``not line.strip()`` of bytes.
    cdef Py_ssize_t i
    for i in range(n):
        if s[i] != c" " and not 9 <= s[i] <= 13:
            return False
    return True


def scan_texts(
    uint8_t[::1] data, Py_ssize_t at, Py_ssize_t stop, bytes name, int64_t[:, ::1] spans,
    Py_ssize_t n
):
    """Find the texts of the lines ``data[at:stop]``.

    Parameters
    ----------
    data : writable buffer
        Texts are unescaped in it.
    at, stop : int
        Where the first line begins and the last ends; its line end may be missing.
    name : bytes or None
        Key of the text in an object of JSON; None: a line is a text itself.
    spans : ndarray of int64 [room, 2]
        Gets where each text begins and ends, from row `n` on.
    n : int
        Rows that are in use.

    Returns
    -------
    at : int
        Where the line begins that was not done: an odd one, or one that found no room; `stop`
        when all were.
    n : int
        Rows in use now.
    odd : int
        Where the odd line at `at` ends, behind its line end; -1 if that is not why it ended.

    Notes
    -----
    Linear time, without the GIL. Lines end with ``\\n``, before which one ``\\r`` is dropped; those
    of white space only are no documents. An odd line, which has not been touched, is one that is
    not UTF-8, or that the scanner leaves to :func:`json.loads`.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm._core.json_text import scan_texts
    >>> data = bytearray(b'{"text": "a\\\\u00e9"}\\n{"text": NaN}\\n')
    >>> spans = np.empty((4, 2), np.int64)
    >>> scan_texts(data, 0, len(data), b"text", spans, 0)
    (20, 1, 34)
    >>> bytes(data[spans[0, 0]:spans[0, 1]]).decode()
    'aé'
    """
    cdef Py_ssize_t room = spans.shape[0], n_name = 0, end, after
    cdef Py_ssize_t start = 0, last = 0, odd = -1
    cdef const uint8_t* key = NULL
    cdef const uint8_t* found
    cdef uint8_t* s
    cdef bint escaped = False
    if spans.shape[1] != 2:
        raise ValueError("spans needs two columns")
    if not (0 <= at <= stop <= data.shape[0] and 0 <= n):
        raise ValueError("outside of the buffer")
    if at == stop:
        return at, n, -1
    if name is not None:
        key = name
        n_name = len(name)
    s = &data[0]
    with nogil:
        while at < stop and n < room:
            found = <const uint8_t*>memchr(s + at, c"\n", stop - at)
            after = found - s + 1 if found is not NULL else stop
            end = after - 1 if found is not NULL else stop
            if end > at and s[end - 1] == c"\r":
                end -= 1
            if not is_blank(s + at, end - at):
                if <Py_ssize_t>utf8_valid_up_to(s + at, end - at) < end - at:
                    odd = after
                    break
                if key is NULL:
                    spans[n, 0] = at
                    spans[n, 1] = end
                else:
                    if find_text(s + at, end - at, key, n_name, &start, &last, &escaped) < 0:
                        odd = after
                        break
                    spans[n, 0] = at + start
                    spans[n, 1] = unescape(s, at + start, at + last) if escaped else at + last
                n += 1
            at = after
    return at, n, odd


def run_of(const uint8_t[::1] data, bint reference=False):
    """Bytes before the first of `data` that a JSON string cannot simply hold; for tests."""
    cdef size_t n = data.shape[0]
    if n == 0:
        return 0
    return rl_json_run_scalar(&data[0], n, 0) if reference else rl_json_run(&data[0], n, 0)

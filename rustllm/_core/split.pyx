"""Pre-tokenization: where the pretokens of a text end, for the patterns that public models use.

``next_end`` reads each regular expression alternative by alternative, character by character; it is
the definition that everything faster is tested against.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc

from rustllm._core.dispatch cimport simd_level
from rustllm._core.unicode cimport (
    END, LETTER, LOWER, MARK, NUMBER, OTHER, PUNCTUATION, SPACE, SYMBOL, UPPER, class_at,
    decode_utf8,
)

cdef extern from "split_masks.h" nogil:
    ctypedef Py_ssize_t (*rl_next_end)(int, const uint8_t*, Py_ssize_t, Py_ssize_t) noexcept nogil
    Py_ssize_t rl_split_masks(
        int level, int pattern, rl_next_end next, const uint8_t* text, Py_ssize_t at,
        Py_ssize_t stop, uint32_t* ends, Py_ssize_t room
    ) noexcept

# The expression of each pattern in the syntax of the `regex` package, for documentation,
# tokenizer files and as the oracle of the tests. SMOLLM and DEEPSEEK apply theirs in turn.
_CONTRACTION = r"'(?i:[sdmt]|ll|ve|re)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_UPPER_TAIL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_UPPER_HEAD = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_PREFIX = r"[^\r\n\p{L}\p{N}]?"
EXPRESSIONS = {
    "gpt2": (_GPT2,),
    "cl100k": (
        rf"{_CONTRACTION}|{_PREFIX}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    ),
    "o200k": (
        rf"{_PREFIX}{_UPPER_TAIL}(?:{_CONTRACTION})?|{_PREFIX}{_UPPER_HEAD}(?:{_CONTRACTION})?"
        rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
    ),
    "qwen2": (
        rf"{_CONTRACTION}|{_PREFIX}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    ),
    "smollm": (r"\p{N}", _GPT2),
    "tekken": (
        rf"{_PREFIX}{_UPPER_TAIL}|{_PREFIX}{_UPPER_HEAD}"
        rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
    ),
    "deepseek": (
        r"\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
    ),
    # tiktoken tries \s++$ before \s*[\r\n]. With the tokens of cl100k_base, none of which goes on
    # after a line end, that gives the ids of CL100K; with others it may not.
    "cl100k_tiktoken": (
        rf"{_CONTRACTION}|{_PREFIX}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        rf"|\s+\z|{_SPACES}",
    ),
}
NAMES = tuple(EXPRESSIONS)


cdef inline bint is_letter(uint8_t cls) noexcept nogil:
    return cls == LOWER or cls == UPPER or cls == LETTER


cdef inline bint is_upper_like(uint8_t cls) noexcept nogil:
    return cls == UPPER or cls == LETTER or cls == MARK


cdef inline bint is_lower_like(uint8_t cls) noexcept nogil:
    return cls == LOWER or cls == LETTER or cls == MARK


cdef inline bint is_rest(uint8_t cls) noexcept nogil:
    # [^\s\p{L}\p{N}]
    return cls == OTHER or cls == MARK or cls == PUNCTUATION or cls == SYMBOL


cdef inline bint is_line_end(uint8_t byte) noexcept nogil:
    return byte == c"\n" or byte == c"\r"


cdef Py_ssize_t after_letters(const uint8_t* s, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    cdef int width = 0
    while is_letter(class_at(s, at, end, &width)):
        at += width
    return at


cdef Py_ssize_t after_numbers(
    const uint8_t* s, Py_ssize_t at, Py_ssize_t end, Py_ssize_t most
) noexcept nogil:
    cdef int width = 0
    while most > 0 and class_at(s, at, end, &width) == NUMBER:
        at += width
        most -= 1
    return at


cdef Py_ssize_t after_rest(const uint8_t* s, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    cdef int width = 0
    while is_rest(class_at(s, at, end, &width)):
        at += width
    return at


cdef inline Py_ssize_t contraction(
    const uint8_t* s, Py_ssize_t at, Py_ssize_t end, bint any_case
) noexcept nogil:
    # Length of 's 't 'm 'd 'll 've 're at `at`, or 0. With `any_case`, case is folded the way the
    # expression engines do it: U+017F, the long s, is an s too.
    cdef uint8_t a, b
    cdef uint8_t fold = 0x20 if any_case else 0
    if end - at < 2 or s[at] != c"'":
        return 0
    a = s[at + 1] | fold
    if a == c"s" or a == c"t" or a == c"m" or a == c"d":
        return 2
    if end - at < 3:
        return 0
    if any_case and s[at + 1] == 0xC5 and s[at + 2] == 0xBF:
        return 3
    b = s[at + 2] | fold
    if (a == c"l" and b == c"l") or (b == c"e" and (a == c"v" or a == c"r")):
        return 3
    return 0


cdef Py_ssize_t after_spaces(
    const uint8_t* s, Py_ssize_t at, Py_ssize_t end, bint lines, bint to_end
) noexcept nogil:
    # \s+(?!\S)|\s+ and, with `lines`, \s*[\r\n]+ before them, and with `to_end` \s+$ before that.
    cdef Py_ssize_t last = at, here = at, after_line = 0
    cdef int width = 0
    while class_at(s, here, end, &width) == SPACE:
        if is_line_end(s[here]):
            after_line = here + 1
        last = here
        here += width
    if to_end and here == end:
        return end
    if lines and after_line:
        return after_line
    return last if here < end and last > at else here


cdef Py_ssize_t next_gpt2(
    const uint8_t* s, Py_ssize_t at, Py_ssize_t end, bint digits
) noexcept nogil:
    # With `digits`, each number was cut out first, so that text before one ends there.
    cdef Py_ssize_t q = contraction(s, at, end, False), here
    cdef int width = 0
    cdef uint8_t cls
    if q:
        return at + q
    q = at + (s[at] == c" ")
    cls = class_at(s, q, end, &width)
    if is_letter(cls):
        return after_letters(s, q + width, end)
    if cls == NUMBER:
        if not digits:
            return after_numbers(s, q + width, end, end)
        return q + width if q == at else q
    if is_rest(cls):
        return after_rest(s, q + width, end)
    if digits:
        here = at
        while class_at(s, here, end, &width) == SPACE:
            here += width
        if class_at(s, here, end, &width) == NUMBER:
            return here
    return after_spaces(s, at, end, False, False)


cdef Py_ssize_t next_cl100k(
    const uint8_t* s, Py_ssize_t at, Py_ssize_t end, Py_ssize_t digits, bint to_end
) noexcept nogil:
    cdef Py_ssize_t q = contraction(s, at, end, True)
    cdef int width = 0, after = 0
    cdef uint8_t cls = class_at(s, at, end, &width)
    if q:
        return at + q
    if is_letter(cls):
        return after_letters(s, at + width, end)
    if cls == NUMBER:
        return after_numbers(s, at + width, end, digits - 1)
    if not is_line_end(s[at]) and is_letter(class_at(s, at + width, end, &after)):
        return after_letters(s, at + width + after, end)
    q = at
    if s[at] == c" ":
        q = at + 1
        cls = class_at(s, q, end, &width)
    if is_rest(cls):
        q = after_rest(s, q + width, end)
        while q < end and is_line_end(s[q]):
            q += 1
        return q
    return after_spaces(s, at, end, True, to_end)


cdef Py_ssize_t after_upper_tail(
    const uint8_t* s, Py_ssize_t at, Py_ssize_t end
) noexcept nogil:
    # [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ at `at`; -1 if it does not match.
    cdef Py_ssize_t after_both = -1
    cdef int width = 0
    cdef uint8_t cls = class_at(s, at, end, &width)
    while is_upper_like(cls):
        at += width
        if cls != UPPER:
            after_both = at
        cls = class_at(s, at, end, &width)
    if cls != LOWER:
        # Give back to the last character that may stand in the second set.
        return after_both
    while is_lower_like(cls):
        at += width
        cls = class_at(s, at, end, &width)
    return at


cdef Py_ssize_t after_upper_head(
    const uint8_t* s, Py_ssize_t at, Py_ssize_t end
) noexcept nogil:
    # [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]* at `at`; -1 if it does not match.
    cdef Py_ssize_t start = at
    cdef int width = 0
    while is_upper_like(class_at(s, at, end, &width)):
        at += width
    if at == start:
        return -1
    while is_lower_like(class_at(s, at, end, &width)):
        at += width
    return at


cdef Py_ssize_t next_o200k(
    const uint8_t* s, Py_ssize_t at, Py_ssize_t end, Py_ssize_t digits, bint contractions
) noexcept nogil:
    cdef int width = 0
    cdef uint8_t cls = class_at(s, at, end, &width)
    cdef Py_ssize_t q = -1
    cdef bint prefix = not is_letter(cls) and cls != NUMBER and not is_line_end(s[at])
    if prefix:
        q = after_upper_tail(s, at + width, end)
    if q < 0:
        q = after_upper_tail(s, at, end)
    if q < 0 and prefix:
        q = after_upper_head(s, at + width, end)
    if q < 0:
        q = after_upper_head(s, at, end)
    if q >= 0:
        return q + contraction(s, q, end, True) if contractions else q
    if cls == NUMBER:
        return after_numbers(s, at + width, end, digits - 1)
    q = at
    if s[at] == c" ":
        q = at + 1
        cls = class_at(s, q, end, &width)
    if is_rest(cls):
        q = after_rest(s, q + width, end)
        while q < end and (is_line_end(s[q]) or s[q] == c"/"):
            q += 1
        return q
    return after_spaces(s, at, end, True, False)


cdef inline uint8_t deepseek_class(
    const uint8_t* s, Py_ssize_t at, Py_ssize_t end, int* width
) noexcept nogil:
    # Class for the third expression, whose text ends where a number or a CJK run was cut out.
    cdef uint8_t cls = class_at(s, at, end, width)
    if cls == NUMBER or is_cjk(s, at, end):
        return END
    return cls


cdef bint is_cjk(const uint8_t* s, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    cdef uint32_t c
    if at >= end:
        return False
    decode_utf8(s + at, end - at, &c)
    return (c >= 0x4E00 and c <= 0x9FA5) or (c >= 0x3040 and c <= 0x30FF)


cdef inline bint is_ascii_letter(uint8_t byte) noexcept nogil:
    return <uint8_t>((byte | 0x20) - c"a") < 26


cdef inline bint is_ascii_sign(uint8_t byte) noexcept nogil:
    return byte > 0x20 and byte < 0x7F and not is_ascii_letter(byte) and not (
        byte >= c"0" and byte <= c"9"
    )


cdef Py_ssize_t next_deepseek(const uint8_t* s, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    cdef int width = 0, after = 0
    cdef uint8_t cls = class_at(s, at, end, &width), following
    cdef Py_ssize_t q = at, last = at, after_line = 0
    if cls == NUMBER:
        return after_numbers(s, at, end, 3)
    if is_cjk(s, at, end):
        while is_cjk(s, q, end):
            q += 3
        return q
    cls = deepseek_class(s, at, end, &width)
    if is_ascii_sign(s[at]) and at + 1 < end and is_ascii_letter(s[at + 1]):
        q = at + 1
        while q < end and is_ascii_letter(s[q]):
            q += 1
        return q
    following = deepseek_class(s, at + width, end, &after)
    if is_letter(cls) or cls == MARK or (
        (cls == OTHER or cls == SPACE) and not is_line_end(s[at])
        and (is_letter(following) or following == MARK)
    ):
        q = at + width
        cls = deepseek_class(s, q, end, &width)
        while is_letter(cls) or cls == MARK:
            q += width
            cls = deepseek_class(s, q, end, &width)
        return q
    if s[at] == c" " and (following == PUNCTUATION or following == SYMBOL):
        q = at + 1
        cls = following
        width = after
    if cls == PUNCTUATION or cls == SYMBOL:
        while cls == PUNCTUATION or cls == SYMBOL:
            q += width
            cls = deepseek_class(s, q, end, &width)
        while q < end and is_line_end(s[q]):
            q += 1
        return q
    if cls == SPACE:
        while cls == SPACE:
            if is_line_end(s[q]):
                after_line = q + 1
            last = q
            q += width
            cls = deepseek_class(s, q, end, &width)
        if after_line:
            return after_line
        return last if cls != END and last > at else q
    # Nothing matches here: the stretch up to the next match is a pretoken of its own.
    while True:
        q += width
        cls = deepseek_class(s, q, end, &width)
        if cls != OTHER:
            return q
        following = deepseek_class(s, q + width, end, &after)
        if is_letter(following) or following == MARK:
            return q


cdef Py_ssize_t next_end(
    int pattern, const uint8_t* text, Py_ssize_t at, Py_ssize_t end
) noexcept nogil:
    if pattern == GPT2:
        return next_gpt2(text, at, end, False)
    if pattern == CL100K:
        return next_cl100k(text, at, end, 3, False)
    if pattern == O200K:
        return next_o200k(text, at, end, 3, True)
    if pattern == QWEN2:
        return next_cl100k(text, at, end, 1, False)
    if pattern == SMOLLM:
        return next_gpt2(text, at, end, True)
    if pattern == TEKKEN:
        return next_o200k(text, at, end, 1, False)
    if pattern == CL100K_TIKTOKEN:
        return next_cl100k(text, at, end, 3, True)
    return next_deepseek(text, at, end)


cdef Py_ssize_t split_ends_ref(
    int pattern, const uint8_t* text, Py_ssize_t at, Py_ssize_t end,
    uint32_t* ends, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t n = 0
    while at < end and n < room:
        at = next_end(pattern, text, at, end)
        ends[n] = <uint32_t>at
        n += 1
    return n


cdef Py_ssize_t split_ends(
    int pattern, const uint8_t* text, Py_ssize_t at, Py_ssize_t end,
    uint32_t* ends, Py_ssize_t room
) noexcept nogil:
    cdef Py_ssize_t got = rl_split_masks(
        simd_level(), pattern, next_end, text, at, end, ends, room
    )
    return got if got >= 0 else split_ends_ref(pattern, text, at, end, ends, room)


cdef Py_ssize_t find_safe_cut(
    const uint8_t* text, Py_ssize_t from_, Py_ssize_t end, Py_ssize_t reach
) noexcept nogil:
    # A run of letters ends before a character that is no letter, no mark and no apostrophe,
    # whatever came before it; so does, one step on, a line before a character that is no space.
    cdef Py_ssize_t at = from_, stop = min(end, from_ + reach)
    cdef int width = 0
    cdef uint8_t previous, cls
    while at < stop and (text[at] & 0xC0) == 0x80:
        at += 1
    previous = class_at(text, at, end, &width)
    at += width
    while at < stop:
        cls = class_at(text, at, end, &width)
        if is_letter(previous) and not is_letter(cls) and cls != MARK and text[at] != c"'":
            return at
        if text[at - 1] == c"\n" and cls != SPACE and text[at] != c"/":
            return at
        previous = cls
        at += width
    return end


def pattern_id(str name):
    """Number of a pattern by its name, such as ``"cl100k"``.

    Raises
    ------
    KeyError
        There is no pattern of that name.
    """
    if name not in NAMES:
        raise KeyError(name)
    return NAMES.index(name)


def pretoken_ends(int pattern, bytes text, bint reference=False):
    """Offsets at which the pretokens of UTF-8 `text` end, in order.

    Parameters
    ----------
    pattern : int
        A number from ``pattern_id``.
    text : bytes
        UTF-8, under 4 GiB.
    reference : bool
        Use the character-by-character definition even where a faster way exists.

    >>> pretoken_ends(pattern_id("gpt2"), b"Hello, world")
    [5, 6, 12]
    """
    cdef Py_ssize_t n = len(text), room = 4096, at = 0, got, i
    cdef const uint8_t* data = text
    cdef uint32_t* ends
    cdef list result = []
    if pattern < 0 or pattern >= N_PATTERNS:
        raise ValueError(f"no pattern {pattern}")
    if n >= 0xFFFFFFFF:
        raise ValueError("text of 4 GiB or more")
    if n == 0:
        return result
    ends = <uint32_t*>malloc(room * sizeof(uint32_t))
    if ends is NULL:
        raise MemoryError
    try:
        while at < n:
            with nogil:
                if reference:
                    got = split_ends_ref(pattern, data, at, n, ends, room)
                else:
                    got = split_ends(pattern, data, at, n, ends, room)
            for i in range(got):
                result.append(ends[i])
            at = ends[got - 1]
    finally:
        free(ends)
    return result


def safe_cut(bytes text, Py_ssize_t from_, Py_ssize_t reach=4096):
    """First offset after `from_` where a pretoken starts under every pattern; for tests."""
    cdef Py_ssize_t n = len(text)
    if from_ < 0 or from_ >= n or reach < 0:
        return n
    return find_safe_cut(text, from_, n, reach)

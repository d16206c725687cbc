# Character classes from one pinned version of Unicode; a UTF-8 decoder that never reads too far.
#
# The tables are generated (tools/make_unicode_tables.py); each module that cimports this gets its
# own copy of the small class table, so that a look-up is two loads and no call.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "unicode_tables.h" nogil:
    const char* RL_UNICODE_VERSION
    const uint16_t rl_class_index[]
    const uint8_t rl_class_block[][128]
    const uint16_t rl_category_index[]
    const uint8_t rl_category_block[][128]

# What the splitters ask of a character.
cpdef enum CharClass:
    OTHER = 0         # controls, unassigned, private use
    SPACE = 1         # White_Space, line ends among them
    NUMBER = 2        # Nd, Nl, No
    UPPER = 3         # Lu, Lt
    LOWER = 4         # Ll
    LETTER = 5        # Lm, Lo
    MARK = 6          # Mn, Mc, Me
    PUNCTUATION = 7   # P*
    SYMBOL = 8        # S*
    END = 15          # past the end of the text

cdef inline uint8_t class_of(uint32_t code_point) noexcept nogil:
    return rl_class_block[rl_class_index[code_point >> 7]][code_point & 127]

cdef inline uint8_t category_of(uint32_t code_point) noexcept nogil:
    # Index into unicode.CATEGORIES.
    return rl_category_block[rl_category_index[code_point >> 7]][code_point & 127]

cdef inline int decode_utf8(
    const uint8_t* text, Py_ssize_t left, uint32_t* code_point
) noexcept nogil:
    # Width of the character at `text`, which has `left` > 0 bytes. A byte that starts no valid
    # character is a character of its own, 0xFFFFFFFF.
    cdef uint32_t first = text[0], c
    if first < 0x80:
        code_point[0] = first
        return 1
    code_point[0] = 0xFFFFFFFF
    if first < 0xC2 or first > 0xF4:
        return 1
    if first < 0xE0:
        if left < 2 or (text[1] & 0xC0) != 0x80:
            return 1
        code_point[0] = (first & 0x1F) << 6 | (text[1] & 0x3F)
        return 2
    if first < 0xF0:
        if left < 3 or (text[1] & 0xC0) != 0x80 or (text[2] & 0xC0) != 0x80:
            return 1
        c = (first & 0x0F) << 12 | <uint32_t>(text[1] & 0x3F) << 6 | (text[2] & 0x3F)
        if c < 0x800 or (c >= 0xD800 and c < 0xE000):
            return 1
        code_point[0] = c
        return 3
    if left < 4 or (text[1] & 0xC0) != 0x80 or (text[2] & 0xC0) != 0x80:
        return 1
    if (text[3] & 0xC0) != 0x80:
        return 1
    c = (first & 0x07) << 18 | <uint32_t>(text[1] & 0x3F) << 12
    c |= <uint32_t>(text[2] & 0x3F) << 6 | (text[3] & 0x3F)
    if c < 0x10000 or c > 0x10FFFF:
        return 1
    code_point[0] = c
    return 4

cdef inline uint8_t class_at(
    const uint8_t* text, Py_ssize_t at, Py_ssize_t end, int* width
) noexcept nogil:
    # Class and width of the character at `at`; END and 0 at the end of the text.
    cdef uint32_t code_point
    if at >= end:
        width[0] = 0
        return END
    width[0] = decode_utf8(text + at, end - at, &code_point)
    if code_point > 0x10FFFF:
        return OTHER
    return class_of(code_point)

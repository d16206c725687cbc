"""One thread's way from a stretch of text to ids: cut, look up, merge what is not known.

Pretokens are cut a thousand at a time and looked up in the cache of the thread 64 at a time; those
not there are merged and kept. Text without a pattern is cut where no token has two bytes side by
side.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from rustllm._core.borders cimport borders_cut
from rustllm._core.bpe cimport Bpe, bpe_merge, is_adjacent
from rustllm._core.cache cimport (
    ID_MASK, LONG_BITS, LONG_WORDS, MAX_ENDS, MAX_LONG_BYTES, SHORT_BITS, Key, LongEntry,
    ShortEntry, Workspace, reserve_out, reserve_plain, rl_make_keys, rl_take_hits,
)
from rustllm._core.dispatch cimport simd_level
from rustllm._core.specials cimport Trie, trie_find
from rustllm._core.split cimport split_ends
from rustllm._core.status cimport NO_MEMORY, OK
from rustllm._core.vocab cimport NO_ID, hash_bytes, prefetch, vocab_find, vocab_find_hashed

cdef enum:
    BATCH = 64              # pretokens looked up together

# Marks on top of a key, where no pretoken has them: its ids are among the long ones; it is part of
# a pretoken, which is not looked up as a token.
cdef uint64_t MANY = <uint64_t>1 << 63
cdef uint64_t PART = <uint64_t>1 << 62


cdef int encode_range(
    const Coder* coder, Workspace* space, const uint8_t* text, Py_ssize_t at, Py_ssize_t stop,
    Py_ssize_t end
) noexcept nogil:
    # Pretokens are taken BATCH at a time, so that the waits for memory overlap.
    cdef const uint8_t* base
    cdef uint32_t* ends = space.ends
    cdef uint32_t* out
    cdef Key key[BATCH]
    cdef uint32_t line[BATCH]
    cdef uint32_t longs[BATCH]
    cdef Py_ssize_t left, got, first, start, here, n, count
    cdef int level = simd_level(), many, n_longs, i, j
    cdef uint32_t at_words
    space.n_read += stop - at
    while at < stop:
        base = text + at
        left = min(end - at, <Py_ssize_t>0xFFFFFF00)
        if coder.pattern >= 0:
            got = split_ends(coder.pattern, base, 0, left, ends, MAX_ENDS)
        else:
            got = cut_ends(&coder.bpe, base, left, ends, MAX_ENDS)
        while got > 1 and at + <Py_ssize_t>ends[got - 2] >= stop:
            got -= 1
        # One id a byte at most, and room for the four that are always written.
        if reserve_out(space, ends[got - 1] + 4) < 0:
            return NO_MEMORY
        out = space.out + space.n_out
        first = 0
        start = 0
        while first < got:
            many = <int>min(got - first, <Py_ssize_t>BATCH)
            n_longs = rl_make_keys(
                level, base, left, start, ends + first, many, space.line, SHORT_BITS, key, line,
                longs,
            )
            for j in range(n_longs):
                i = longs[j]
                here = ends[first + i - 1] if i else start
                n = <Py_ssize_t>ends[first + i] - here
                key[i].low = hash_bytes(base + here, n) if n <= MAX_LONG_BYTES else 0
                prefetch(space.long_entry + 4 * (key[i].low >> (66 - LONG_BITS)))
            i = rl_take_hits(level, space.line, key, line, 0, many, &out)
            while i < many:
                here = ends[first + i - 1] if i else start
                n = <Py_ssize_t>ends[first + i] - here
                if n <= 15:
                    count = miss_short(
                        &coder.bpe, space, space.line + 2 * <size_t>line[i], base + here, n,
                        key[i].low, key[i].high, out,
                    )
                else:
                    count = encode_long(
                        &coder.bpe, space, base + here, n, key[i].low, out, &at_words
                    )
                if count < 0:
                    return <int>count
                out += count
                i = rl_take_hits(level, space.line, key, line, i + 1, many, &out)
            first += many
            start = ends[first - 1]
        space.n_out = out - space.out
        at += ends[got - 1]
    return OK


cdef int encode_fragment(
    const Coder* coder, Workspace* space, const uint8_t* text, Py_ssize_t n, bint first
) noexcept nogil:
    cdef Py_ssize_t i = 0, used = 0
    cdef bint prefix
    if n == 0:
        return OK
    if not coder.spaces:
        return encode_range(coder, space, text, 0, n, n)
    prefix = coder.prefix == 2 or (coder.prefix == 1 and first)
    if not prefix and not holds_mark(text, n):
        return encode_range(coder, space, text, 0, n, n)
    if reserve_plain(space, n + 1) < 0:
        return NO_MEMORY
    if prefix:
        space.plain[0] = c" "
        used = 1
    while i < n:
        if text[i] == 0xE2 and i + 2 < n and text[i + 1] == 0x96 and text[i + 2] == 0x81:
            space.plain[used] = c" "
            i += 3
        else:
            space.plain[used] = text[i]
            i += 1
        used += 1
    return encode_range(coder, space, space.plain, 0, used, used)


cdef int encode_text(
    const Coder* coder, Workspace* space, const uint8_t* text, Py_ssize_t n, const Trie* accept
) noexcept nogil:
    cdef Py_ssize_t at = 0, found, length
    cdef uint32_t id = 0
    cdef int status
    cdef bint first = True
    if accept is NULL:
        return encode_fragment(coder, space, text, n, True)
    while at < n:
        found = trie_find(accept, text, at, n, &id, &length)
        status = encode_fragment(coder, space, text + at, found - at, first)
        if status < 0:
            return status
        first = False
        if found == n:
            break
        if reserve_out(space, 1) < 0:
            return NO_MEMORY
        space.out[space.n_out] = id
        space.n_out += 1
        at = found + length
    return OK


cdef inline bint holds_mark(const uint8_t* text, Py_ssize_t n) noexcept nogil:
    # Whether U+2581 occurs.
    cdef Py_ssize_t i
    for i in range(n - 2):
        if text[i] == 0xE2 and text[i + 1] == 0x96 and text[i + 2] == 0x81:
            return True
    return False


cdef Py_ssize_t cut_ends(
    const Bpe* bpe, const uint8_t* text, Py_ssize_t n, uint32_t* ends, Py_ssize_t room
) noexcept nogil:
    # Without a pattern, cut where no token has these two bytes side by side: nothing merges there.
    cdef Py_ssize_t i, got = 0
    if bpe.fuse_unknown:
        ends[0] = <uint32_t>n
        return 1
    for i in range(1, n):
        if not is_adjacent(bpe, text[i - 1], text[i]) and (text[i] & 0xC0) != 0x80:
            ends[got] = <uint32_t>i
            got += 1
            if got == room:
                return got
    ends[got] = <uint32_t>n
    return got + 1


cdef inline ShortEntry* place(
    Workspace* space, ShortEntry* line, uint64_t low, uint64_t high
) noexcept nogil:
    # A free entry for this key, the first of its line. The line beside it takes what does not fit.
    cdef ShortEntry* other = space.line + ((line - space.line) ^ 2)
    if line[1].high and not other[1].high:
        line = other
    line[1] = line[0]
    line[0].low = low
    line[0].high = high
    return line


cdef inline void keep_ids(ShortEntry* entry, const uint32_t* ids, Py_ssize_t n) noexcept nogil:
    # At most four.
    cdef int i
    for i in range(4):
        entry.id[i] = ids[i] if i < n else 0
    entry.id[0] |= <uint32_t>n << 29


cdef Py_ssize_t miss_short(
    const Bpe* bpe, Workspace* space, ShortEntry* line, const uint8_t* p, Py_ssize_t n,
    uint64_t low, uint64_t high, uint32_t* out
) noexcept nogil:
    cdef ShortEntry* other = space.line + ((line - space.line) ^ 2)
    cdef ShortEntry* entry
    cdef Py_ssize_t count, i
    cdef uint32_t at = 0
    for i in range(4):
        entry = line + i if i < 2 else other + (i - 2)
        if entry.low == low:
            if entry.high == high:
                memcpy(out, entry.id, 16)
                count = out[0] >> 29
                out[0] &= ID_MASK
                return count
            if entry.high == high | MANY and entry.id[3] == space.generation:
                memcpy(out, space.words + entry.id[1], entry.id[2] * sizeof(uint32_t))
                return entry.id[2]
    if high & PART:
        count = bpe_merge(bpe, &space.merge, p, n, out)
    else:
        count = encode_long(bpe, space, p, n, hash_bytes(p, n), out, &at)
    if count < 0 or (count > 4 and at == 0):
        return count
    if count > 4:
        entry = place(space, line, low, high | MANY)
        entry.id[0] = 0
        entry.id[1] = at
        entry.id[2] = <uint32_t>count
        entry.id[3] = space.generation
    else:
        keep_ids(place(space, line, low, high), out, count)
    return count


cdef Py_ssize_t merge_parts(
    const Bpe* bpe, Workspace* space, const uint8_t* p, Py_ssize_t n, uint32_t* out
) noexcept nogil:
    # Ids of a pretoken that is not known. Its parts between borders are few and mostly are known.
    cdef uint32_t ends[BATCH]
    cdef Key key[BATCH]
    cdef uint32_t line[BATCH]
    cdef uint32_t longs[BATCH]
    cdef uint32_t* start = out
    cdef Py_ssize_t here, count
    cdef int level = simd_level(), many, i
    if bpe.crossed is NULL:
        return bpe_merge(bpe, &space.merge, p, n, out)
    while n:
        many = <int>borders_cut(bpe.crossed, p, n, ends, BATCH)
        if many == 1:
            count = bpe_merge(bpe, &space.merge, p, ends[0], out)
            if count < 0:
                return count
            out += count
        else:
            rl_make_keys(
                level, p, n, 0, ends, many, space.line, SHORT_BITS, key, line, longs
            )
            for i in range(many):
                key[i].high |= PART
            i = rl_take_hits(level, space.line, key, line, 0, many, &out)
            while i < many:
                here = ends[i - 1] if i else 0
                if ends[i] - here <= 15:
                    count = miss_short(
                        bpe, space, space.line + 2 * <size_t>line[i], p + here, ends[i] - here,
                        key[i].low, key[i].high, out,
                    )
                else:
                    count = bpe_merge(bpe, &space.merge, p + here, ends[i] - here, out)
                if count < 0:
                    return count
                out += count
                i = rl_take_hits(level, space.line, key, line, i + 1, many, &out)
        p += ends[many - 1]
        n -= ends[many - 1]
    return out - start


cdef Py_ssize_t encode_long(
    const Bpe* bpe, Workspace* space, const uint8_t* p, Py_ssize_t n, uint64_t h, uint32_t* out,
    uint32_t* at
) noexcept nogil:
    # `h` is the hash of the pretoken; `at` becomes the place of its ids in space.words, if they are
    # there.
    cdef LongEntry* entry
    cdef LongEntry* line
    cdef Py_ssize_t count, words, i
    if n > MAX_LONG_BYTES:
        out[0] = vocab_find(&bpe.vocab, p, n) if bpe.whole else <uint32_t>NO_ID
        return 1 if out[0] != NO_ID else merge_parts(bpe, space, p, n, out)
    # Most short pretokens that are not cached are tokens; hardly any long one is.
    if bpe.whole and n <= 15:
        out[0] = vocab_find_hashed(&bpe.vocab, p, n, h)
        if out[0] != NO_ID:
            return 1
    line = space.long_entry + 4 * (h >> (66 - LONG_BITS))
    for i in range(4):
        entry = line + i
        if entry.hash == h and entry.at and entry.n_bytes == n:
            if memcmp(space.words + entry.at + entry.n_ids, p, n) == 0:
                memcpy(out, space.words + entry.at, entry.n_ids * sizeof(uint32_t))
                at[0] = entry.at
                return entry.n_ids
    count = 0
    if bpe.whole and n > 15:
        out[0] = vocab_find_hashed(&bpe.vocab, p, n, h)
        count = out[0] != NO_ID
    if count == 0:
        count = merge_parts(bpe, space, p, n, out)
    if count < 0:
        return count
    words = count + (n + 3) // 4
    if space.n_words + words > LONG_WORDS:
        memset(space.long_entry, 0, (<size_t>1 << LONG_BITS) * sizeof(LongEntry))
        space.n_words = 1
        space.generation += 1
    for i in range(3, 0, -1):
        line[i] = line[i - 1]
    entry = line
    entry.hash = h
    entry.at = space.n_words
    at[0] = space.n_words
    entry.n_bytes = <unsigned short>n
    entry.n_ids = <unsigned short>count
    memcpy(space.words + space.n_words, out, count * sizeof(uint32_t))
    memcpy(space.words + space.n_words + count, p, n)
    space.n_words += <uint32_t>words
    return count

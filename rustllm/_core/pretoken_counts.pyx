"""Count pretokens with several threads, in 64 bits.

Each thread counts into a small table of its own, which fits the second-level cache, and empties it
into shared tables when it fills up. The shared tables are sharded by hash, a lock each, so that
threads that empty their tables at the same time meet seldom. Memory is that of the distinct
pretokens, plus a megabyte a thread.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.pythread cimport (
    WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
    PyThread_release_lock,
)
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

from rustllm._core.split cimport find_safe_cut, split_ends
from rustllm._core.status cimport LIMIT_REACHED, NO_MEMORY, OK, check
from rustllm._core.train cimport MergeLoop
from rustllm._core.unicode cimport decode_utf8

cdef enum:
    SHORT = 15                 # longest pretoken that is its own key
    LONG_MARK = 0xFF
    THREAD_SLOTS = 1 << 15     # 768 KB
    THREAD_LIMIT = 20000
    SHARD_SLOTS = 64
    ENDS_AT_ONCE = 512
    SPAN_LIMIT = 1 << 30       # split_ends counts in 32 bits
    NO_SPLITTER = -1
    AT_SPACES = -2             # cut before runs of spaces, where nothing can join what is apart
    AT_WHITESPACE = -3         # the same before runs of spaces, tabs and line ends

WHOLE_LINES = NO_SPLITTER
SPACE_STRETCHES = AT_SPACES
WHITESPACE_STRETCHES = AT_WHITESPACE

# Sixteen bytes of ones, then sixteen of zeros: eight bytes from 16 - n on are a mask for n bytes.
cdef uint8_t[32] MASK_BYTES
memset(MASK_BYTES, 0xFF, 16)
memset(MASK_BYTES + 16, 0, 16)


cdef inline uint64_t load64(const void* p) noexcept nogil:
    cdef uint64_t x
    memcpy(&x, p, 8)
    return x


cdef inline uint64_t hash_key(uint64_t low, uint64_t high) noexcept nogil:
    cdef uint64_t h = (low ^ <uint64_t>0x9E3779B97F4A7C15) * <uint64_t>0xBF58476D1CE4E5B9
    h ^= h >> 32
    h = (h ^ high) * <uint64_t>0x94D049BB133111EB
    return h ^ (h >> 29)


cdef uint64_t hash_long(const uint8_t* data, uint64_t n) noexcept nogil:
    cdef uint64_t h = n
    cdef uint64_t i = 0
    while i + 8 <= n:
        h = hash_key(load64(data + i), h)
        i += 8
    # n > SHORT: the last eight bytes may overlap what was hashed already
    return hash_key(load64(data + n - 8), h)


cdef int make_table(CountTable* table, uint64_t n_slots) noexcept nogil:
    memset(table, 0, sizeof(CountTable))
    table.slots = <CountSlot*>calloc(n_slots, sizeof(CountSlot))
    if table.slots == NULL:
        return NO_MEMORY
    table.mask = n_slots - 1
    return OK


cdef void free_table(CountTable* table) noexcept nogil:
    free(table.slots)
    free(table.bytes)
    memset(table, 0, sizeof(CountTable))


cdef inline const uint8_t* slot_bytes(
    const CountTable* table, const CountSlot* slot, uint64_t* n
) noexcept nogil:
    if slot.key[15] != LONG_MARK:
        n[0] = slot.key[15]
        return slot.key
    n[0] = load64(slot.key + 8) & UINT32_MAX
    return table.bytes + load64(slot.key)


cdef inline uint64_t slot_hash(const CountTable* table, const CountSlot* slot) noexcept nogil:
    cdef uint64_t n = 0
    cdef const uint8_t* data = slot_bytes(table, slot, &n)
    if slot.key[15] != LONG_MARK:
        return hash_key(load64(slot.key), load64(slot.key + 8))
    return hash_long(data, n)


cdef inline uint64_t shard_of(uint64_t hash_) noexcept nogil:
    """Shard of a key; the low bits place it in its thread's table, so these are higher ones."""
    return hash_ >> 40 & (N_SHARDS - 1)


cdef int double_table(CountTable* table) noexcept nogil:
    cdef uint64_t n_slots = (table.mask + 1) * 2
    cdef uint64_t i, j
    cdef CountSlot* bigger = <CountSlot*>calloc(n_slots, sizeof(CountSlot))
    if bigger == NULL:
        return NO_MEMORY
    for i in range(table.mask + 1):
        if table.slots[i].count != 0:
            j = slot_hash(table, &table.slots[i]) & (n_slots - 1)
            while bigger[j].count != 0:
                j = (j + 1) & (n_slots - 1)
            bigger[j] = table.slots[i]
    free(table.slots)
    table.slots = bigger
    table.mask = n_slots - 1
    return OK


cdef int add_short(
    CountTable* table, uint64_t low, uint64_t high, uint64_t hash_, int64_t count
) noexcept nogil:
    cdef uint64_t i = hash_ & table.mask
    cdef CountSlot* slot
    while True:
        slot = &table.slots[i]
        if slot.count == 0:
            break
        if load64(slot.key) == low and load64(slot.key + 8) == high:
            slot.count += count
            return OK
        i = (i + 1) & table.mask
    memcpy(slot.key, &low, 8)
    memcpy(slot.key + 8, &high, 8)
    slot.count = count
    table.n_used += 1
    if 3 * table.n_used > 2 * table.mask:
        return double_table(table)
    return OK


cdef int add_long(
    CountTable* table, const uint8_t* data, uint64_t n, uint64_t hash_, int64_t count
) noexcept nogil:
    cdef uint64_t i = hash_ & table.mask
    cdef uint64_t about, wanted
    cdef CountSlot* slot
    cdef uint8_t* moved
    if n > UINT32_MAX:
        return LIMIT_REACHED
    # length, 16 bits of the hash, and the mark in the last byte (all our targets are little-endian)
    about = n | (hash_ >> 48 << 32) | (<uint64_t>LONG_MARK << 56)
    while True:
        slot = &table.slots[i]
        if slot.count == 0:
            break
        if load64(slot.key + 8) == about and memcmp(table.bytes + load64(slot.key), data, n) == 0:
            slot.count += count
            return OK
        i = (i + 1) & table.mask
    if table.n_bytes + n > table.bytes_capacity:
        wanted = table.bytes_capacity + (table.bytes_capacity >> 1) + n
        moved = <uint8_t*>realloc(table.bytes, wanted)
        if moved == NULL:
            return NO_MEMORY
        table.bytes = moved
        table.bytes_capacity = wanted
    memcpy(table.bytes + table.n_bytes, data, n)
    memcpy(slot.key, &table.n_bytes, 8)
    memcpy(slot.key + 8, &about, 8)
    slot.count = count
    table.n_bytes += n
    table.n_used += 1
    if 3 * table.n_used > 2 * table.mask:
        return double_table(table)
    return OK


cdef inline int add_pretoken(
    CountTable* table, const uint8_t* data, uint64_t n, bint has_16, int64_t count
) noexcept nogil:
    """Count `n` > 0 bytes; `has_16` says that 16 bytes may be read from `data`."""
    cdef uint64_t low, high
    cdef uint8_t key[16]
    if n > SHORT:
        return add_long(table, data, n, hash_long(data, n), count)
    if has_16:
        low = load64(data)
        high = load64(data + 8)
        if n < 8:
            low &= load64(MASK_BYTES + 16 - n)
            high = 0
        else:
            high &= load64(MASK_BYTES + 24 - n)
        high |= n << 56
    else:
        memset(key, 0, 16)
        memcpy(key, data, n)
        key[15] = <uint8_t>n
        low = load64(key)
        high = load64(key + 8)
    return add_short(table, low, high, hash_key(low, high), count)


cdef int compare_entries(const void* a, const void* b) noexcept nogil:
    cdef const CountEntry* x = <const CountEntry*>a
    cdef const CountEntry* y = <const CountEntry*>b
    cdef int order = memcmp(x.data, y.data, min(x.length, y.length))
    if order != 0:
        return order
    return (x.length > y.length) - (x.length < y.length)


cdef Py_ssize_t invalid_utf8_at(const uint8_t* text, Py_ssize_t n) noexcept nogil:
    """Offset of the first byte that is not UTF-8, or -1."""
    cdef Py_ssize_t at = 0
    cdef uint32_t code_point = 0
    while at < n:
        while at + 32 <= n and (
            load64(text + at) | load64(text + at + 8)
            | load64(text + at + 16) | load64(text + at + 24)
        ) & <uint64_t>0x8080808080808080 == 0:
            at += 32
        if at == n:
            break
        if text[at] < 0x80:
            at += 1
            continue
        at += decode_utf8(text + at, n - at, &code_point)
        if code_point == UINT32_MAX:
            return at - 1
    return -1


cdef inline bint is_blank(uint8_t byte, int splitter) noexcept nogil:
    if byte == c" ":
        return True
    return splitter == AT_WHITESPACE and (byte == c"\t" or byte == c"\n" or byte == c"\r")


cdef bint is_solid(const uint8_t* text, Py_ssize_t n) noexcept nogil:
    """Whether the last character of `n` > 0 bytes of text stays what it is.

    That is: no normalizer drops it or makes it blank, so that a blank behind it is the first one.
    """
    cdef uint8_t last = text[n - 1]
    if last < 0x80:
        return 0x20 < last < 0x7F
    if n >= 2 and text[n - 2] >= 0xC2:
        # no C1 controls, no-break space, soft hyphen
        return text[n - 2] > 0xC2 or (last > 0xA0 and last != 0xAD)
    if n < 3:
        return False
    if text[n - 3] == 0xE2:
        # of the general punctuation, dashes and quotes, bullets and dots; no block with U+2581
        if text[n - 2] == 0x80:
            return 0x90 <= last <= 0xA7 or 0xB0 <= last <= 0xBE
        return text[n - 2] > 0x81 and text[n - 2] != 0x96
    if text[n - 3] == 0xE3:
        return text[n - 2] > 0x80 or last > 0x80
    if text[n - 3] == 0xE1:
        # Myanmar, Georgian; Ethiopic; Latin and Greek with accents: no Ogham or Mongolian blanks
        return text[n - 2] < 0x84 or 0x88 <= text[n - 2] <= 0x8D or text[n - 2] >= 0xB8
    # no variation selectors, byte order marks, or characters of four bytes
    return 0xE4 <= text[n - 3] <= 0xED or (text[n - 3] == 0xE0 and text[n - 2] >= 0xA4)


cdef Py_ssize_t stretch_end(
    int splitter, const uint8_t* text, Py_ssize_t at, Py_ssize_t n
) noexcept nogil:
    """End of the stretch that starts at `at` < `n`: blanks, and what is behind them."""
    cdef Py_ssize_t start = at
    while True:
        while at < n and is_blank(text[at], splitter):
            at += 1
        while at < n and not is_blank(text[at], splitter):
            at += 1
        if at == n or is_solid(text + start, at - start):
            break
    return at


@cython.final
cdef class PretokenCounts:
    """How often each distinct pretoken occurs.

    Notes
    -----
    Threads may add at the same time, each through a `CountingThread` of its own. Reading
    (`items`, `fill`) is for when all of them have finished.
    """

    def __cinit__(self):
        cdef int i
        for i in range(N_SHARDS):
            self.locks[i] = NULL
        for i in range(N_SHARDS):
            check(make_table(&self.shards[i], SHARD_SLOTS), "pretoken counts")
            self.locks[i] = PyThread_allocate_lock()
            if self.locks[i] == NULL:
                raise MemoryError("pretoken counts")

    def __dealloc__(self):
        cdef int i
        for i in range(N_SHARDS):
            free_table(&self.shards[i])
            if self.locks[i] != NULL:
                PyThread_free_lock(self.locks[i])

    cdef int take_all(self, CountTable* table, uint64_t first_shard) noexcept nogil:
        """Move the counts of one thread into the shards, and empty its table."""
        cdef uint64_t ends[N_SHARDS]       # where each shard's slots end in `by_shard`
        cdef uint64_t i, shard, round_, at = 0
        cdef uint64_t n = table.n_used
        cdef CountSlot* slot
        cdef uint32_t* by_shard
        cdef uint32_t* used
        cdef uint8_t* shards
        cdef int code = OK
        if n == 0:
            return OK
        # places of the used slots, sorted by shard and as they come, and the shard of each
        by_shard = <uint32_t*>malloc(n * (2 * sizeof(uint32_t) + 1))
        if by_shard == NULL:
            return NO_MEMORY
        used = by_shard + n
        shards = <uint8_t*>(used + n)
        memset(ends, 0, sizeof(ends))
        for i in range(table.mask + 1):
            if table.slots[i].count != 0:
                shards[at] = <uint8_t>shard_of(slot_hash(table, &table.slots[i]))
                ends[shards[at]] += 1
                used[at] = <uint32_t>i
                at += 1
        for shard in range(1, N_SHARDS):
            ends[shard] += ends[shard - 1]
        for at in range(n):
            ends[shards[at]] -= 1
            by_shard[ends[shards[at]]] = used[at]
        for round_ in range(N_SHARDS):
            shard = (first_shard + round_) & (N_SHARDS - 1)
            at = ends[shard]               # its start, now
            i = ends[shard + 1] if shard + 1 < N_SHARDS else n
            if at == i:
                continue
            PyThread_acquire_lock(self.locks[shard], WAIT_LOCK)
            while at < i and code == OK:
                slot = &table.slots[by_shard[at]]
                code = self._take(&self.shards[shard], table, slot)
                slot.count = 0
                at += 1
            PyThread_release_lock(self.locks[shard])
            if code < 0:
                break
        free(by_shard)
        if code < 0:
            return code
        table.n_used = 0
        table.n_bytes = 0
        return OK

    cdef int _take(
        self, CountTable* target, const CountTable* table, const CountSlot* slot
    ) noexcept nogil:
        """Add the count of a slot of `table` to `target`."""
        cdef const uint8_t* data
        cdef uint64_t n = 0
        if slot.key[15] != LONG_MARK:
            return add_short(
                target, load64(slot.key), load64(slot.key + 8), slot_hash(table, slot), slot.count
            )
        data = slot_bytes(table, slot, &n)
        return add_long(target, data, n, hash_long(data, n), slot.count)

    cdef int add(self, const uint8_t* data, uint64_t n, int64_t count) noexcept nogil:
        """Add to one pretoken of at least one byte. The caller holds the GIL or is alone."""
        cdef uint8_t key[16]
        cdef uint64_t hash_
        if n > SHORT:
            hash_ = hash_long(data, n)
            return add_long(&self.shards[shard_of(hash_)], data, n, hash_, count)
        memset(key, 0, 16)
        memcpy(key, data, n)
        key[15] = <uint8_t>n
        hash_ = hash_key(load64(key), load64(key + 8))
        return add_short(
            &self.shards[shard_of(hash_)], load64(key), load64(key + 8), hash_, count
        )

    def __len__(self):
        cdef uint64_t n = 0
        cdef int i
        for i in range(N_SHARDS):
            n += self.shards[i].n_used
        return n

    def add_pretoken(self, bytes pretoken, int64_t count=1):
        """Add `count` > 0 to the count of `pretoken`."""
        if count <= 0:
            raise ValueError("a count is at least 1")
        if pretoken:
            check(self.add(<const uint8_t*>pretoken, len(pretoken), count), "pretoken counts")

    def add_items(self, list items):
        """Add ``(pretoken, count)`` pairs; see `add_pretoken`."""
        for pretoken, count in items:
            self.add_pretoken(pretoken, count)

    def items(self):
        """All pretokens with their counts, sorted by bytes, so that no order of work shows."""
        cdef uint64_t n = len(self)
        cdef uint64_t i, at = 0
        cdef int shard
        cdef CountEntry* entries = <CountEntry*>PyMem_Malloc((n + 1) * sizeof(CountEntry))
        if entries == NULL:
            raise MemoryError("pretoken counts")
        try:
            with nogil:
                for shard in range(N_SHARDS):
                    for i in range(self.shards[shard].mask + 1):
                        if self.shards[shard].slots[i].count != 0:
                            entries[at].data = slot_bytes(
                                &self.shards[shard], &self.shards[shard].slots[i],
                                &entries[at].length,
                            )
                            entries[at].count = self.shards[shard].slots[i].count
                            at += 1
                qsort(entries, n, sizeof(CountEntry), &compare_entries)
            return [
                (entries[i].data[:entries[i].length], entries[i].count) for i in range(n)
            ]
        finally:
            PyMem_Free(entries)

    def fill(self, MergeLoop loop, list byte_ids):
        """Give all pretokens of two bytes and more to `loop`; the counts are gone afterwards.

        Raises
        ------
        MemoryLimitError
            The distinct pretokens have 2**32 bytes or more.
        """
        cdef uint32_t ids[256]
        cdef uint64_t n_bytes = 0, n_words = 0, n = 0, i
        cdef int shard
        cdef const uint8_t* data
        for i in range(256):
            ids[i] = byte_ids[i]
        for shard in range(N_SHARDS):
            for i in range(self.shards[shard].mask + 1):
                if self.shards[shard].slots[i].count != 0:
                    slot_bytes(&self.shards[shard], &self.shards[shard].slots[i], &n)
                    if n > 1:
                        n_bytes += n
                        n_words += 1
        loop.allocate_words(n_bytes, n_words)
        for shard in range(N_SHARDS):
            with nogil:
                for i in range(self.shards[shard].mask + 1):
                    if self.shards[shard].slots[i].count == 0:
                        continue
                    data = slot_bytes(&self.shards[shard], &self.shards[shard].slots[i], &n)
                    if n > 1:
                        loop.add_word(data, n, self.shards[shard].slots[i].count, ids)
                free_table(&self.shards[shard])
            check(make_table(&self.shards[shard], SHARD_SLOTS), "pretoken counts")
            PyErr_CheckSignals()


@cython.final
cdef class CountingThread:
    """The counting of one thread. Call `flush` at the end.

    Parameters
    ----------
    shared : PretokenCounts
        Where the counts end up.
    splitter : int
        A `rustllm._core.split.Pattern`, or `WHOLE_LINES`, `SPACE_STRETCHES`,
        `WHITESPACE_STRETCHES`.
    """

    def __cinit__(self, PretokenCounts shared, int splitter, uint64_t first_shard=0):
        self.shared = shared
        self.splitter = splitter
        self.first_shard = first_shard
        check(make_table(&self.table, THREAD_SLOTS), "pretoken counts")

    def __dealloc__(self):
        free_table(&self.table)

    cdef int _count_span(
        self, const uint8_t* text, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t readable
    ) noexcept nogil:
        """Count text[begin:end], which is shorter than SPAN_LIMIT; text[:readable] exists."""
        cdef uint32_t ends[ENDS_AT_ONCE]
        cdef const uint8_t* span = text + begin
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t length = end - begin
        cdef Py_ssize_t safe = readable - begin - 16
        cdef Py_ssize_t n, i
        cdef int code
        while at < length:
            n = split_ends(self.splitter, span, at, length, ends, ENDS_AT_ONCE)
            for i in range(n):
                code = add_pretoken(&self.table, span + at, ends[i] - at, at <= safe, 1)
                if code < 0:
                    return code
                at = ends[i]
            if self.table.n_used > THREAD_LIMIT:
                code = self.shared.take_all(&self.table, self.first_shard)
                if code < 0:
                    return code
        return OK

    cdef int count_text(self, const uint8_t* text, Py_ssize_t n, bint by_line) noexcept nogil:
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t end = 0
        cdef Py_ssize_t cut
        cdef const uint8_t* found
        cdef int code = OK
        while at < n:
            if at == end:
                end = n
                found = NULL
                if by_line:
                    found = <const uint8_t*>memchr(text + at, c"\n", n - at)
                if found != NULL:
                    end = found - text + 1
            if self.splitter <= NO_SPLITTER:
                cut = end
                if self.splitter < NO_SPLITTER:
                    cut = stretch_end(self.splitter, text, at, end)
                code = add_pretoken(&self.table, text + at, cut - at, at + 16 <= n, 1)
                at = cut
                if code == OK and self.table.n_used > THREAD_LIMIT:
                    code = self.shared.take_all(&self.table, self.first_shard)
            else:
                while end - at > SPAN_LIMIT:
                    cut = find_safe_cut(text, at + SPAN_LIMIT // 2, end, SPAN_LIMIT // 2)
                    if cut == end or cut - at > SPAN_LIMIT:
                        return LIMIT_REACHED
                    code = self._count_span(text, at, cut, n)
                    if code < 0:
                        return code
                    at = cut
                code = self._count_span(text, at, end, n)
                at = end
            if code < 0:
                return code
        return code

    def count_bytes(self, const uint8_t[::1] text, bint by_line=True):
        """Count the pretokens of UTF-8 `text`; -1, or the offset of a byte that is not UTF-8."""
        cdef Py_ssize_t bad
        cdef int code
        if text.shape[0] == 0:
            return -1
        with nogil:
            bad = invalid_utf8_at(&text[0], text.shape[0])
            code = OK
            if bad < 0:
                code = self.count_text(&text[0], text.shape[0], by_line)
        check(code, "counting pretokens")
        return bad

    def count_strings(self, list texts):
        """Count the pretokens of each of `texts`, whole."""
        cdef Py_ssize_t n_texts = len(texts)
        cdef const char** starts
        cdef Py_ssize_t* lengths
        cdef Py_ssize_t i
        cdef int code = OK
        starts = <const char**>PyMem_Malloc((n_texts + 1) * sizeof(char*))
        lengths = <Py_ssize_t*>PyMem_Malloc((n_texts + 1) * sizeof(Py_ssize_t))
        try:
            if starts == NULL or lengths == NULL:
                raise MemoryError("counting pretokens")
            for i in range(n_texts):
                starts[i] = PyUnicode_AsUTF8AndSize(texts[i], &lengths[i])
            with nogil:
                for i in range(n_texts):
                    code = self.count_text(<const uint8_t*>starts[i], lengths[i], False)
                    if code < 0:
                        break
            check(code, "counting pretokens")
        finally:
            PyMem_Free(starts)
            PyMem_Free(lengths)

    def flush(self):
        """Hand over what is still in this thread's own table."""
        cdef int code
        with nogil:
            code = self.shared.take_all(&self.table, self.first_shard)
        check(code, "pretoken counts")


def line_cut(
    const uint8_t[::1] text, Py_ssize_t from_, Py_ssize_t block, bint at_pretokens, bint at_end
):
    """First place at or behind `from_` > 0 where a stretch of `text` may be cut.

    That is where a line starts, or with `at_pretokens` where a pretoken surely does. The text is
    looked at in blocks of `block` bytes from `from_` on, and in each the start of a line is
    preferred; so neighbours that start from the same blocks agree on every cut. Returns -1 if
    `text` ends too early to tell; with `at_end` there is no more to come, and its end is a cut.
    """
    cdef Py_ssize_t n = text.shape[0]
    cdef Py_ssize_t at = from_
    cdef Py_ssize_t cut
    cdef const uint8_t* found
    while True:
        if not at_end and at + block + 8 > n:
            return -1
        if at - 1 >= n:
            return n
        found = <const uint8_t*>memchr(&text[at - 1], c"\n", min(block, n - at + 1))
        if found != NULL:
            return found - &text[0] + 1
        if at >= n:
            return n
        if at_pretokens:
            cut = find_safe_cut(&text[0], at, n, block)
            if cut < n:
                return cut
        at += block

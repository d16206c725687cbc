"""Byte-pair encoding of one pretoken over immutable tables.

A vocabulary given by ranks alone (tiktoken, SentencePiece) says which byte strings are tokens, not
which pairs make them. Only one pair ever can: while a stretch of text that spells token T is
merged, nothing outside it can matter until something merges across its border, so it passes through
the states that T alone passes through, and T alone has one last state of two symbols. Running the
merges on each token when the tables are built finds that pair, and from then on encoding looks
pairs of symbols up, never byte strings.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from rustllm._core.dispatch cimport simd_level
from rustllm._core.status cimport BAD_ARGUMENT, NO_MEMORY, OK, OUT_OF_RANGE
from rustllm._core.unicode cimport decode_utf8
from rustllm._core.vocab cimport MAX_VOCAB, NO_ID, vocab_find, vocab_free

# A longer token that its own merges do not make would cost quadratic time to resolve.
cdef enum:
    MAX_RESOLVED = 2048


cdef Py_ssize_t first_symbols(
    const Bpe* bpe, const uint8_t* text, Py_ssize_t n, uint32_t* symbol
) noexcept nogil:
    # Symbols that merging starts from; at most n.
    cdef Py_ssize_t at = 0, count = 0, i
    cdef uint32_t id, code_point
    cdef int width
    cdef bint complete, last_unknown = False
    if not bpe.by_char:
        for i in range(n):
            id = bpe.byte_id[text[i]]
            if id == NO_ID:
                if bpe.unknown == NO_ID:
                    return OUT_OF_RANGE
                if last_unknown and bpe.fuse_unknown:
                    continue
                last_unknown = True
                id = bpe.unknown
            else:
                last_unknown = False
            symbol[count] = id
            count += 1
        return count
    while at < n:
        width = decode_utf8(text + at, n - at, &code_point)
        id = bpe.byte_id[text[at]] if width == 1 else vocab_find(&bpe.vocab, text + at, width)
        if id != NO_ID:
            symbol[count] = id
            count += 1
            last_unknown = False
        else:
            complete = True
            for i in range(width):
                if bpe.fallback[text[at + i]] == NO_ID:
                    complete = False
            if complete:
                for i in range(width):
                    symbol[count] = bpe.fallback[text[at + i]]
                    count += 1
                last_unknown = False
            elif bpe.unknown == NO_ID:
                return OUT_OF_RANGE
            elif not (last_unknown and bpe.fuse_unknown):
                symbol[count] = bpe.unknown
                count += 1
                last_unknown = True
        at += width
    return count


cdef inline Py_ssize_t merge_linear(
    const Bpe* bpe, uint32_t* symbol, Py_ssize_t n, const uint8_t* text
) noexcept nogil:
    # At most MAX_LINEAR symbols. `text`, when given, says that they are its bytes.
    return rl_merge_linear(
        simd_level(), bpe.pair, bpe.pair_mask, bpe.pair_shift, bpe.made, symbol, <int>n,
        bpe.byte_pair, text,
    )


cdef int space_reserve(MergeSpace* space, Py_ssize_t n) noexcept nogil:
    if space.room >= n:
        return OK
    space_free(space)
    # Every merge takes one entry off the heap and puts at most two on.
    space.heap = <uint64_t*>malloc(<size_t>n * 2 * sizeof(uint64_t))
    space.symbol = <uint32_t*>malloc(<size_t>n * sizeof(uint32_t))
    space.priority = <uint32_t*>malloc(<size_t>n * sizeof(uint32_t))
    space.before = <uint32_t*>malloc(<size_t>n * sizeof(uint32_t))
    space.after = <uint32_t*>malloc(<size_t>n * sizeof(uint32_t))
    if (space.heap is NULL or space.symbol is NULL or space.priority is NULL
            or space.before is NULL or space.after is NULL):
        space_free(space)
        return NO_MEMORY
    space.room = n
    return OK


cdef void space_free(MergeSpace* space) noexcept nogil:
    free(space.heap)
    free(space.symbol)
    free(space.priority)
    free(space.before)
    free(space.after)
    memset(space, 0, sizeof(MergeSpace))


cdef inline void sift_down(uint64_t* heap, Py_ssize_t n, Py_ssize_t at) noexcept nogil:
    cdef uint64_t value = heap[at]
    cdef Py_ssize_t child = 2 * at + 1
    while child < n:
        if child + 1 < n and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at] = heap[child]
        at = child
        child = 2 * at + 1
    heap[at] = value


cdef inline void sift_up(uint64_t* heap, Py_ssize_t at) noexcept nogil:
    cdef uint64_t value = heap[at]
    cdef Py_ssize_t parent
    while at > 0:
        parent = (at - 1) >> 1
        if heap[parent] <= value:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = value


cdef Py_ssize_t merge_heap(const Bpe* bpe, MergeSpace* space, Py_ssize_t n) noexcept nogil:
    # Any number of symbols in space.symbol, O(n log n). A heap entry is priority << 40 | position,
    # so that the least is the leftmost of the lowest; it is stale when the position has another
    # priority by now.
    cdef uint64_t* heap = space.heap
    cdef uint32_t* symbol = space.symbol
    cdef uint32_t* priority = space.priority
    cdef uint32_t* before = space.before
    cdef uint32_t* after = space.after
    cdef Py_ssize_t i, size = 0, count = 0
    cdef uint64_t entry
    cdef uint32_t at, right, left, p
    for i in range(n):
        before[i] = <uint32_t>(i - 1)
        after[i] = <uint32_t>(i + 1)
        p = find_pair(bpe, symbol[i], symbol[i + 1]) if i + 1 < n else NO_PRIORITY
        priority[i] = p
        if p != NO_PRIORITY:
            heap[size] = <uint64_t>p << 40 | <uint64_t>i
            size += 1
    for i in range(size // 2 - 1, -1, -1):
        sift_down(heap, size, i)
    while size:
        entry = heap[0]
        size -= 1
        heap[0] = heap[size]
        if size:
            sift_down(heap, size, 0)
        at = <uint32_t>entry
        p = <uint32_t>(entry >> 40)
        if priority[at] != p:
            continue
        right = after[at]
        symbol[at] = bpe.made[p]
        priority[right] = NO_PRIORITY
        after[at] = after[right]
        p = NO_PRIORITY
        if after[at] < n:
            before[after[at]] = at
            p = find_pair(bpe, symbol[at], symbol[after[at]])
        priority[at] = p
        if p != NO_PRIORITY:
            heap[size] = <uint64_t>p << 40 | at
            sift_up(heap, size)
            size += 1
        if at:
            left = before[at]
            p = find_pair(bpe, symbol[left], symbol[at])
            priority[left] = p
            if p != NO_PRIORITY:
                heap[size] = <uint64_t>p << 40 | left
                sift_up(heap, size)
                size += 1
    i = 0
    while i < n:
        symbol[count] = symbol[i]
        count += 1
        i = after[i]
    return count


cdef Py_ssize_t bpe_encode(
    const Bpe* bpe, MergeSpace* space, const uint8_t* text, Py_ssize_t n, uint32_t* out
) noexcept nogil:
    cdef uint32_t id
    if bpe.whole:
        id = vocab_find(&bpe.vocab, text, n)
        if id != NO_ID:
            out[0] = id
            return 1
    return bpe_merge(bpe, space, text, n, out)


cdef Py_ssize_t bpe_merge(
    const Bpe* bpe, MergeSpace* space, const uint8_t* text, Py_ssize_t n, uint32_t* out
) noexcept nogil:
    cdef Py_ssize_t count, i
    if n <= MAX_LINEAR:
        count = first_symbols(bpe, text, n, out)
        if count < 2:
            return count
        if bpe.by_char or count < n:
            return merge_linear(bpe, out, count, NULL)
        return merge_linear(bpe, out, count, text)
    if space_reserve(space, n) < 0:
        return NO_MEMORY
    count = first_symbols(bpe, text, n, space.symbol)
    if count > 1:
        count = merge_heap(bpe, space, count)
    for i in range(count):
        out[i] = space.symbol[i]
    return count


cdef Py_ssize_t bpe_encode_ref(
    const Bpe* bpe, MergeSpace* space, const uint8_t* text, Py_ssize_t n, uint32_t* out
) noexcept nogil:
    cdef Py_ssize_t count, i, at
    cdef uint32_t id, best, p
    if bpe.whole:
        id = vocab_find(&bpe.vocab, text, n)
        if id != NO_ID:
            out[0] = id
            return 1
    count = first_symbols(bpe, text, n, out)
    while count > 1:
        best = NO_PRIORITY
        at = 0
        for i in range(count - 1):
            p = find_pair(bpe, out[i], out[i + 1])
            if p < best:
                best = p
                at = i
        if best == NO_PRIORITY:
            break
        out[at] = bpe.made[best]
        count -= 1
        for i in range(at + 1, count):
            out[i] = out[i + 1]
    return count


cdef int reserve_merges(Bpe* bpe, uint32_t n) noexcept nogil:
    cdef uint64_t size = 16
    bpe.pair_shift = 60
    while size < <uint64_t>n * 2:
        size *= 2
        bpe.pair_shift -= 1
    bpe.pair_mask = size - 1
    bpe.pair = <uint64_t*>malloc(size * sizeof(uint64_t))
    bpe.made = <uint32_t*>calloc(<size_t>n + 1, sizeof(uint32_t))
    bpe.byte_pair = <uint32_t*>malloc(65536 * sizeof(uint32_t))
    bpe.adjacent = <uint8_t*>calloc(8192, 1)
    if bpe.pair is NULL or bpe.made is NULL or bpe.byte_pair is NULL or bpe.adjacent is NULL:
        return NO_MEMORY
    memset(bpe.pair, 0xFF, size * sizeof(uint64_t))
    bpe.n_made = n
    for i in range(65536):
        bpe.byte_pair[i] = NO_PRIORITY
    return OK


cdef void add_merge(Bpe* bpe, uint32_t left, uint32_t right, uint32_t priority) noexcept nogil:
    # The first of two merges of one pair stands.
    cdef uint64_t key = <uint64_t>left << 21 | right
    cdef uint64_t at = (key * <uint64_t>0x9E3779B97F4A7C15ULL) >> bpe.pair_shift
    cdef uint32_t x, y
    while bpe.pair[at] != ~<uint64_t>0:
        if bpe.pair[at] >> 21 == key:
            return
        at = (at + 1) & bpe.pair_mask
    bpe.pair[at] = key << 21 | priority
    x = bpe.vocab.offset[left]
    y = bpe.vocab.offset[right]
    if bpe.vocab.offset[left + 1] - x == 1 and bpe.vocab.offset[right + 1] - y == 1:
        x = bpe.vocab.blob[x]
        y = bpe.vocab.blob[y]
        if bpe.byte_id[x] == left and bpe.byte_id[y] == right:
            bpe.byte_pair[x << 8 | y] = priority


cdef void note_adjacent(Bpe* bpe, uint32_t id) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t x, y
    for i in range(bpe.vocab.offset[id] + 1, bpe.vocab.offset[id + 1]):
        x = bpe.vocab.blob[i - 1]
        y = bpe.vocab.blob[i]
        bpe.adjacent[x << 5 | y >> 3] |= <uint8_t>(1 << (y & 7))


cdef int bpe_learn_merges(Bpe* bpe, const uint32_t* triples, uint32_t n) noexcept nogil:
    cdef uint32_t i
    if n >= NO_PRIORITY or bpe.vocab.n > MAX_VOCAB:
        return BAD_ARGUMENT
    if reserve_merges(bpe, n) < 0:
        return NO_MEMORY
    for i in range(n):
        if (triples[3 * i] >= bpe.vocab.n or triples[3 * i + 1] >= bpe.vocab.n
                or triples[3 * i + 2] >= bpe.vocab.n):
            return BAD_ARGUMENT
        bpe.made[i] = triples[3 * i + 2]
        add_merge(bpe, triples[3 * i], triples[3 * i + 1], i)
        note_adjacent(bpe, bpe.made[i])
    return OK


cdef int bpe_learn_order(Bpe* bpe, const uint32_t* order, uint32_t n) noexcept nogil:
    cdef MergeSpace space
    cdef uint32_t* place
    cdef uint32_t symbol[MAX_LINEAR]
    cdef uint32_t* symbols
    cdef uint32_t i, id, start
    cdef Py_ssize_t count, length
    cdef int status = OK
    memset(&space, 0, sizeof(MergeSpace))
    if n >= NO_PRIORITY or bpe.vocab.n > MAX_VOCAB:
        return BAD_ARGUMENT
    if reserve_merges(bpe, n) < 0:
        return NO_MEMORY
    place = <uint32_t*>malloc((<size_t>bpe.vocab.n + 1) * sizeof(uint32_t))
    if place is NULL:
        return NO_MEMORY
    for i in range(bpe.vocab.n):
        place[i] = NO_PRIORITY
    for i in range(n):
        if order[i] >= bpe.vocab.n:
            free(place)
            return BAD_ARGUMENT
        place[order[i]] = i
        bpe.made[i] = order[i]
    for i in range(n):
        id = order[i]
        start = bpe.vocab.offset[id]
        length = bpe.vocab.offset[id + 1] - start
        note_adjacent(bpe, id)
        if length < 2:
            continue
        # Merge by what is known so far, which is all that comes before this token ...
        if length <= MAX_LINEAR:
            symbols = symbol
            count = first_symbols(bpe, bpe.vocab.blob + start, length, symbols)
            if count > 1 and not bpe.by_char and count == length:
                count = merge_linear(bpe, symbols, count, bpe.vocab.blob + start)
            elif count > 1:
                count = merge_linear(bpe, symbols, count, NULL)
        else:
            status = space_reserve(&space, length)
            if status < 0:
                break
            symbols = space.symbol
            count = first_symbols(bpe, bpe.vocab.blob + start, length, symbols)
            if count > 1:
                count = merge_heap(bpe, &space, count)
        # ... and, if that does not suffice, by the bytes, against the whole vocabulary.
        if count > 2 and count <= MAX_RESOLVED:
            count = merge_by_bytes(bpe, place, symbols, count)
        if count == 2:
            add_merge(bpe, symbols[0], symbols[1], i)
    space_free(&space)
    free(place)
    return status


cdef Py_ssize_t merge_by_bytes(
    const Bpe* bpe, const uint32_t* place, uint32_t* symbol, Py_ssize_t n
) noexcept nogil:
    # Merge down to two symbols, looking the bytes of each pair up.
    cdef uint8_t joined[1024]
    cdef uint32_t best, id, best_id
    cdef uint32_t a, b, left_bytes, right_bytes
    cdef Py_ssize_t i, j, at
    while n > 2:
        best = NO_PRIORITY
        best_id = 0
        at = 0
        for i in range(n - 1):
            a = bpe.vocab.offset[symbol[i]]
            b = bpe.vocab.offset[symbol[i + 1]]
            left_bytes = bpe.vocab.offset[symbol[i] + 1] - a
            right_bytes = bpe.vocab.offset[symbol[i + 1] + 1] - b
            if left_bytes + right_bytes > sizeof(joined):
                continue
            for j in range(left_bytes):
                joined[j] = bpe.vocab.blob[a + j]
            for j in range(right_bytes):
                joined[left_bytes + j] = bpe.vocab.blob[b + j]
            id = vocab_find(&bpe.vocab, joined, left_bytes + right_bytes)
            if id != NO_ID and place[id] < best:
                best = place[id]
                best_id = id
                at = i
        if best == NO_PRIORITY:
            break
        symbol[at] = best_id
        n -= 1
        for i in range(at + 1, n):
            symbol[i] = symbol[i + 1]
    return n


cdef void bpe_free(Bpe* bpe) noexcept nogil:
    vocab_free(&bpe.vocab)
    free(bpe.pair)
    free(bpe.made)
    free(bpe.byte_pair)
    free(bpe.adjacent)
    bpe.pair = NULL
    bpe.made = NULL
    bpe.byte_pair = NULL
    bpe.adjacent = NULL

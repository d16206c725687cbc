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

from rustllm._core.borders cimport borders_new
from rustllm._core.dispatch cimport simd_level
from rustllm._core.status cimport BAD_ARGUMENT, NO_MEMORY, OK, OUT_OF_RANGE
from rustllm._core.threads cimport run_team, team_barrier
from rustllm._core.unicode cimport decode_utf8
from rustllm._core.vocab cimport MAX_VOCAB, NO_ID, vocab_find, vocab_free, vocab_prefetch

cdef extern from "atomics.h" nogil:
    int rl_load(const int*) noexcept
    void rl_store(int*, int) noexcept
    int rl_fetch_add(int*, int) noexcept

cdef extern from "pages.h" nogil:
    void* rl_pages_new(size_t n_bytes) noexcept
    void rl_pages_free(void* start, size_t n_bytes) noexcept

# A longer token that its own merges do not make would cost quadratic time to resolve.
cdef enum:
    MAX_RESOLVED = 2048
    MAX_SPLIT = 64          # bytes of a token up to which its pair is looked for by its splits
    LEARNT_AT_ONCE = 64     # tokens that a thread takes at a time
    AHEAD = 8               # tokens whose look-ups are under way before they are learnt
    WORTH_A_TEAM = 512      # tokens of one length that are learnt by several threads


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
    const Bpe* bpe, uint32_t* symbol, Py_ssize_t n, const uint8_t* text, uint32_t limit
) noexcept nogil:
    # At most MAX_LINEAR symbols. `text`, when given, says that they are its bytes.
    return rl_merge_linear(
        simd_level(), bpe.pair, bpe.pair_mask, bpe.pair_shift,
        NULL if bpe.in_order else bpe.made, symbol, <int>n,
        bpe.byte_pair, text, limit,
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


cdef Py_ssize_t merge_heap(
    const Bpe* bpe, MergeSpace* space, Py_ssize_t n, uint32_t limit
) noexcept nogil:
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
        if entry >> 40 >= limit:
            break
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
            return merge_linear(bpe, out, count, NULL, NO_PRIORITY)
        return merge_linear(bpe, out, count, text, NO_PRIORITY)
    if space_reserve(space, n) < 0:
        return NO_MEMORY
    count = first_symbols(bpe, text, n, space.symbol)
    if count > 1:
        count = merge_heap(bpe, space, count, NO_PRIORITY)
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
    bpe.pair_shift = 62
    while size < <uint64_t>n * 2:
        size *= 2
        bpe.pair_shift -= 1
    bpe.pair_mask = size - 1
    # Read at random: large pages save most of the misses of address translation.
    bpe.pair = <uint64_t*>rl_pages_new(size * sizeof(uint64_t))
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
    cdef uint64_t at = (key * <uint64_t>0x9E3779B97F4A7C15ULL) >> bpe.pair_shift << 2
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


cdef int note_crossed(Bpe* bpe) noexcept nogil:
    # When all that can be made is known. What stands for unknown text may be merged with anything.
    cdef uint32_t i
    bpe.in_order = True
    for i in range(bpe.n_made):
        if bpe.made[i] != i:
            bpe.in_order = False
    if not bpe.by_char and bpe.unknown == NO_ID:
        bpe.crossed = borders_new(&bpe.vocab, bpe.made, bpe.n_made)
        if bpe.crossed is NULL:
            return NO_MEMORY
    return OK


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
    return note_crossed(bpe)


# Tokens of an order by length, so that what a token is merged of is known before it.
cdef struct Learning:
    Bpe* bpe
    const uint32_t* order
    uint32_t* place         # of each id in the order
    uint32_t* by_length     # places in the order, shortest tokens first, by place among equals
    uint32_t* pair          # [n, 2] the two symbols of each place, or NO_ID
    uint8_t* regular        # of each id: 1 if every merge in it comes after those it needs
    uint32_t n
    uint32_t first          # of by_length: those of the length at hand ...
    uint32_t last
    int next                # ... and the one to take next, atomically
    int status


cdef inline uint32_t rank_of(const Learning* job, uint32_t id) noexcept nogil:
    # When a token is made: after all of a lower rank; 0 for a byte, which is there from the start.
    if job.bpe.vocab.offset[id + 1] - job.bpe.vocab.offset[id] == 1:
        return 0
    return job.place[id] + 1


cdef bint stays_apart(
    const Learning* job, uint32_t left, uint32_t right, uint32_t limit
) noexcept nogil:
    # Whether merging the bytes of both by what comes before `limit` ends with these two tokens.
    # What was merged last is taken apart, again and again: were there a merge across the border
    # that comes before that one, it would have been made. Halves are made before the whole, since
    # tokens are regular.
    cdef const Bpe* bpe = job.bpe
    cdef uint32_t a = rank_of(job, left), b = rank_of(job, right), p
    while a or b:
        # Of two equal tokens the right one is made last.
        if a > b:
            limit = a
            left = job.pair[2 * (a - 1) + 1]
            a = rank_of(job, left)
        else:
            limit = b + 1
            right = job.pair[2 * (b - 1)]
            b = rank_of(job, right)
        p = find_pair(bpe, left, right)
        if p != NO_PRIORITY and p + 1 < limit:
            return False
    return True


cdef bint learn_by_splits(Learning* job, uint32_t place) noexcept nogil:
    # Find the pair among the ways to write the token as two regular ones that come before it: two
    # on average, where merging takes a step a byte. False if there is none.
    cdef const Bpe* bpe = job.bpe
    cdef uint32_t id = job.order[place], left, right
    cdef const uint8_t* p = bpe.vocab.blob + bpe.vocab.offset[id]
    cdef Py_ssize_t length = bpe.vocab.offset[id + 1] - bpe.vocab.offset[id], i
    if bpe.vocab.twins:
        return False    # which of them is made must be seen
    for i in range(length - 1, 0, -1):
        left = bpe.byte_id[p[0]] if i == 1 else vocab_find(&bpe.vocab, p, i)
        if left == NO_ID or not job.regular[left] or rank_of(job, left) > place:
            continue
        right = bpe.byte_id[p[i]] if i == length - 1 else vocab_find(&bpe.vocab, p + i, length - i)
        if right == NO_ID or not job.regular[right] or rank_of(job, right) > place:
            continue
        if stays_apart(job, left, right, place + 1):
            job.pair[2 * place] = left
            job.pair[2 * place + 1] = right
            job.regular[id] = 1
            return True
    return False


cdef inline void prefetch_splits(const Learning* job, uint32_t place) noexcept nogil:
    # Ask for what `learn_by_splits` reads first: nearly all of its time is waiting for the table.
    cdef const Bpe* bpe = job.bpe
    cdef uint32_t id = job.order[place]
    cdef const uint8_t* p = bpe.vocab.blob + bpe.vocab.offset[id]
    cdef Py_ssize_t length = bpe.vocab.offset[id + 1] - bpe.vocab.offset[id]
    if 2 < length <= MAX_SPLIT:
        vocab_prefetch(&bpe.vocab, p, length - 1)
        vocab_prefetch(&bpe.vocab, p, length - 2)
        vocab_prefetch(&bpe.vocab, p + length - 2, 2)


cdef int learn_token(
    Learning* job, MergeSpace* space, uint32_t place
) noexcept nogil:
    # Find the pair that makes the token at `place`, by the merges that come before it.
    cdef const Bpe* bpe = job.bpe
    cdef uint32_t symbol[MAX_LINEAR]
    cdef uint32_t* symbols = symbol
    cdef uint32_t id = job.order[place], start = bpe.vocab.offset[id]
    cdef Py_ssize_t count, length = bpe.vocab.offset[id + 1] - start
    if job.regular is not NULL and length <= MAX_SPLIT and learn_by_splits(job, place):
        return OK
    if length <= MAX_LINEAR:
        count = first_symbols(bpe, bpe.vocab.blob + start, length, symbols)
        if count > 1 and not bpe.by_char and count == length:
            count = merge_linear(bpe, symbols, count, bpe.vocab.blob + start, place)
        elif count > 1:
            count = merge_linear(bpe, symbols, count, NULL, place)
    else:
        if space_reserve(space, length) < 0:
            return NO_MEMORY
        symbols = space.symbol
        count = first_symbols(bpe, bpe.vocab.blob + start, length, symbols)
        if count > 1:
            count = merge_heap(bpe, space, count, place)
    # If that does not suffice, by the bytes, against the whole vocabulary.
    if count > 2 and count <= MAX_RESOLVED:
        count = merge_by_bytes(bpe, job.place, symbols, count)
    job.pair[2 * place] = symbols[0] if count == 2 else <uint32_t>NO_ID
    job.pair[2 * place + 1] = symbols[1] if count == 2 else <uint32_t>NO_ID
    return OK


cdef inline Py_ssize_t length_at(const Learning* job, uint32_t place) noexcept nogil:
    cdef uint32_t id = job.order[place]
    return job.bpe.vocab.offset[id + 1] - job.bpe.vocab.offset[id]


cdef inline void add_learnt(Learning* job, uint32_t place) noexcept nogil:
    if job.pair[2 * place] != NO_ID:
        add_merge(job.bpe, job.pair[2 * place], job.pair[2 * place + 1], place)


cdef void learn_few(Learning* job, MergeSpace* space) noexcept nogil:
    # Go on to the next length with enough tokens for several threads; learn those before it.
    cdef uint32_t i, first = job.last
    cdef Py_ssize_t length
    while first < job.n and job.status == OK:
        length = length_at(job, job.by_length[first])
        job.last = first + 1
        while job.last < job.n and length_at(job, job.by_length[job.last]) == length:
            job.last += 1
        if length > 1 and job.last - first >= WORTH_A_TEAM:
            break
        for i in range(first, job.last if length > 1 else first):
            if learn_token(job, space, job.by_length[i]) < 0:
                job.status = NO_MEMORY
                break
            add_learnt(job, job.by_length[i])
        first = job.last
    job.first = first
    job.next = <int>first


cdef void learn_lengths(void* context, int thread, int n_threads) noexcept nogil:
    # One length after another: its tokens on all threads, then their merges on the first.
    cdef Learning* job = <Learning*>context
    cdef MergeSpace space
    cdef uint32_t i, end
    cdef int at
    memset(&space, 0, sizeof(MergeSpace))
    while True:
        if thread == 0:
            for i in range(job.first, job.last):
                add_learnt(job, job.by_length[i])
            learn_few(job, &space)
        team_barrier(n_threads)
        if job.first == job.n or rl_load(&job.status) < 0:
            break
        while True:
            at = rl_fetch_add(&job.next, LEARNT_AT_ONCE)
            if at >= <int>job.last:
                break
            end = min(<uint32_t>at + LEARNT_AT_ONCE, job.last)
            for i in range(at, min(<uint32_t>at + AHEAD, end)):
                prefetch_splits(job, job.by_length[i])
            for i in range(at, end):
                if i + AHEAD < end:
                    prefetch_splits(job, job.by_length[i + AHEAD])
                if learn_token(job, &space, job.by_length[i]) < 0:
                    rl_store(&job.status, NO_MEMORY)
                    break
        team_barrier(n_threads)
    space_free(&space)


cdef int bpe_learn_order(
    Bpe* bpe, const uint32_t* order, uint32_t n, int n_threads
) noexcept nogil:
    cdef Learning job
    cdef uint32_t* count
    cdef uint32_t i, longest = 0
    if n >= NO_PRIORITY or bpe.vocab.n > MAX_VOCAB:
        return BAD_ARGUMENT
    if reserve_merges(bpe, n) < 0:
        return NO_MEMORY
    memset(&job, 0, sizeof(Learning))
    for i in range(n):
        if order[i] >= bpe.vocab.n:
            return BAD_ARGUMENT
    job.bpe = bpe
    job.order = order
    job.n = n
    job.status = OK
    for i in range(n):
        longest = max(longest, <uint32_t>length_at(&job, i))
    # `place`, `by_length` and `pair` are one block; the counts of each length are another.
    job.place = <uint32_t*>malloc((<size_t>bpe.vocab.n + 3 * <size_t>n + 1) * sizeof(uint32_t))
    count = <uint32_t*>calloc(<size_t>longest + 2, sizeof(uint32_t))
    if job.place is NULL or count is NULL:
        free(job.place)
        free(count)
        return NO_MEMORY
    # What stands for unknown characters may be merged as well, whose length says nothing.
    if not bpe.by_char and bpe.unknown == NO_ID:
        job.regular = <uint8_t*>calloc(<size_t>bpe.vocab.n + 1, 1)
        if job.regular is NULL:
            free(job.place)
            free(count)
            return NO_MEMORY
        for i in range(256):
            if bpe.byte_id[i] != NO_ID:
                job.regular[bpe.byte_id[i]] = 1
    job.by_length = job.place + bpe.vocab.n
    job.pair = job.by_length + n
    for i in range(bpe.vocab.n):
        job.place[i] = NO_PRIORITY
    for i in range(n):
        job.place[order[i]] = i
        bpe.made[i] = order[i]
        note_adjacent(bpe, order[i])
        count[length_at(&job, i) + 1] += 1
    for i in range(longest + 1):
        count[i + 1] += count[i]
    for i in range(n):
        job.by_length[count[length_at(&job, i)]] = i
        count[length_at(&job, i)] += 1
    free(count)
    if note_crossed(bpe) < 0:
        job.status = NO_MEMORY
    elif job.regular is NULL:
        learn_in_order(&job)
    else:
        run_team(learn_lengths, &job, n_threads if n >= WORTH_A_TEAM else 1)
    free(job.place)
    free(job.regular)
    return job.status


cdef void learn_in_order(Learning* job) noexcept nogil:
    cdef MergeSpace space
    cdef uint32_t i
    memset(&space, 0, sizeof(MergeSpace))
    for i in range(job.n):
        if length_at(job, i) > 1:
            job.status = learn_token(job, &space, i)
            if job.status < 0:
                break
            add_learnt(job, i)
    space_free(&space)


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
    rl_pages_free(bpe.pair, (bpe.pair_mask + 1) * sizeof(uint64_t))
    free(bpe.made)
    free(bpe.byte_pair)
    free(bpe.adjacent)
    free(bpe.crossed)
    bpe.pair = NULL
    bpe.made = NULL
    bpe.byte_pair = NULL
    bpe.adjacent = NULL
    bpe.crossed = NULL

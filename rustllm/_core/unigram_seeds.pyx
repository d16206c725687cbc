"""Where Unigram training starts: the substrings that occur more than once, from a suffix array.

All distinct words lie end to end, with a 0 behind each. Only as much of a suffix is sorted as the
longest piece can cover, by multikey quicksort, so that time is near linear whatever the text
repeats. Suffixes with a common beginning then lie side by side; a stack finds the longest common
beginning of each such stretch, which is a node of the suffix tree.

Sources of the algorithms: Bentley and Sedgewick 1997, "Fast algorithms for sorting and searching
strings"; Abouelhoda, Kurtz and Ohlebusch 2004, "Replacing suffix trees with enhanced suffix
arrays"; Kudo 2018, "Subword regularization", for their use.
"""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

import numpy as np

from rustllm._core.status cimport LIMIT_REACHED, NO_MEMORY, OK, check

cdef enum:
    MOST_DEPTH = 255
    FEW = 12                  # suffixes that insertion sorts


cdef struct Stretch:
    uint32_t begin
    uint32_t end
    uint32_t depth


cdef struct Stretches:
    Stretch* items
    uint64_t n
    uint64_t room


cdef struct Node:
    uint32_t begin
    uint32_t depth


cdef int push(Stretches* todo, uint32_t begin, uint32_t end, uint32_t depth) noexcept nogil:
    cdef void* moved
    if end - begin < 2:
        return OK
    if todo.n == todo.room:
        moved = realloc(todo.items, (2 * todo.room + 64) * sizeof(Stretch))
        if moved == NULL:
            return NO_MEMORY
        todo.items = <Stretch*>moved
        todo.room = 2 * todo.room + 64
    todo.items[todo.n].begin = begin
    todo.items[todo.n].end = end
    todo.items[todo.n].depth = depth
    todo.n += 1
    return OK


cdef bint is_before(
    const uint32_t* text, uint32_t a, uint32_t b, uint32_t depth, uint32_t deepest
) noexcept nogil:
    """Whether suffix `a` sorts before `b`; both agree up to `depth`."""
    while depth < deepest:
        if text[a + depth] != text[b + depth]:
            return text[a + depth] < text[b + depth]
        if text[a + depth] == 0:
            return False
        depth += 1
    return False


cdef int sort_suffixes(
    const uint32_t* text, uint32_t* suffixes, uint32_t n, uint32_t deepest
) noexcept nogil:
    """Sort by the first `deepest` characters, up to the first 0."""
    cdef Stretches todo
    cdef Stretch now
    cdef uint32_t i, j, low, high, key, pivot, item
    cdef uint64_t random = <uint64_t>0x9E3779B97F4A7C15
    cdef int code
    todo.items = NULL
    todo.n = 0
    todo.room = 0
    code = push(&todo, 0, n, 0)
    while code == OK and todo.n > 0:
        todo.n -= 1
        now = todo.items[todo.n]
        if now.end - now.begin <= FEW:
            for i in range(now.begin + 1, now.end):
                item = suffixes[i]
                j = i
                while j > now.begin and is_before(text, item, suffixes[j - 1], now.depth, deepest):
                    suffixes[j] = suffixes[j - 1]
                    j -= 1
                suffixes[j] = item
            continue
        # a drawn pivot: no order of the input makes this quadratic
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        pivot = text[suffixes[now.begin + random % (now.end - now.begin)] + now.depth]
        low = i = now.begin
        high = now.end
        while i < high:
            item = suffixes[i]
            key = text[item + now.depth]
            if key < pivot:
                suffixes[i] = suffixes[low]
                suffixes[low] = item
                low += 1
                i += 1
            elif key > pivot:
                high -= 1
                suffixes[i] = suffixes[high]
                suffixes[high] = item
            else:
                i += 1
        code = push(&todo, now.begin, low, now.depth)
        if code == OK:
            code = push(&todo, high, now.end, now.depth)
        if code == OK and pivot != 0 and now.depth + 1 < deepest:
            code = push(&todo, low, high, now.depth + 1)
    free(todo.items)
    return code


cdef uint32_t common(
    const uint32_t* text, uint32_t a, uint32_t b, uint32_t deepest
) noexcept nogil:
    """Characters that two suffixes share; `deepest` if they end together or share as many."""
    cdef uint32_t n = 0
    while n < deepest:
        if text[a + n] != text[b + n]:
            return n
        if text[a + n] == 0:
            return deepest
        n += 1
    return n


cdef class Substrings:
    """The repeated substrings of words, as stretches of their sorted suffixes.

    Parameters
    ----------
    text : uint32 [n_characters]
        Code points of the words, a 0 behind each; a 0 inside a word ends substrings as well.
    longest : int
        Most characters of a substring, at most 255.

    Attributes
    ----------
    suffixes : uint32 [n]
        Places in `text`, sorted by the first `longest` + 1 characters from there on.
    begins, ends : uint32 [n_nodes]
        Stretch of `suffixes` that starts with a substring of two characters or more, for every
        substring that at least two different characters (or ends of words) follow.
    depths : uint8 [n_nodes]
        Their characters.

    Notes
    -----
    Time O(n log n + n * longest) expected, memory 8 bytes a character and 9 a node. Runs without
    the GIL; the result depends on nothing but the text.
    """

    cdef readonly object suffixes, begins, ends, depths

    def __init__(self, const uint32_t[::1] text, uint32_t longest):
        cdef uint64_t n_text = text.shape[0]
        cdef uint32_t[::1] suffixes
        cdef uint32_t* begins = NULL
        cdef uint32_t* ends = NULL
        cdef uint8_t* depths = NULL
        cdef uint64_t n_nodes = 0, at
        cdef uint32_t n = 0
        cdef int code = OK
        if not 1 <= longest < MOST_DEPTH:
            raise ValueError(f"a longest substring of {longest} characters")
        if n_text >= UINT32_MAX - MOST_DEPTH:
            check(LIMIT_REACHED, "more than 2**32 characters in distinct words")
        if n_text and text[n_text - 1] != 0:
            raise ValueError("the last word has no 0 behind it")
        with nogil:
            for at in range(n_text):
                n += text[at] != 0
        self.suffixes = np.empty(n, np.uint32)
        if n == 0:
            self.begins = self.ends = np.empty(0, np.uint32)
            self.depths = np.empty(0, np.uint8)
            return
        suffixes = self.suffixes
        try:
            with nogil:
                n = 0
                for at in range(n_text):
                    if text[at] != 0:
                        suffixes[n] = <uint32_t>at
                        n += 1
                code = sort_suffixes(&text[0], &suffixes[0], n, longest + 1)
                if code == OK:
                    code = find_nodes(
                        &text[0], &suffixes[0], n, longest, &begins, &ends, &depths, &n_nodes
                    )
            check(code, "substrings")
            self.begins = as_array(begins, n_nodes, sizeof(uint32_t), np.uint32)
            self.ends = as_array(ends, n_nodes, sizeof(uint32_t), np.uint32)
            self.depths = as_array(depths, n_nodes, sizeof(uint8_t), np.uint8)
        finally:
            free(begins)
            free(ends)
            free(depths)


cdef object as_array(const void* data, uint64_t n, uint64_t item, kind):
    cdef object array = np.empty(n, kind)
    cdef uint8_t[::1] target
    if n:
        target = array.view(np.uint8)
        memcpy(&target[0], data, n * item)
    return array


cdef int find_nodes(
    const uint32_t* text, const uint32_t* suffixes, uint32_t n, uint32_t longest,
    uint32_t** begins, uint32_t** ends, uint8_t** depths, uint64_t* n_nodes,
) noexcept nogil:
    cdef Node[MOST_DEPTH + 2] stack
    cdef uint32_t top = 0, i, begin, shared
    cdef uint64_t room = 0
    cdef void* moved
    stack[0].begin = 0
    stack[0].depth = 0
    for i in range(1, n + 1):
        shared = common(text, suffixes[i - 1], suffixes[i], longest + 1) if i < n else 0
        begin = i - 1
        while stack[top].depth > shared:
            begin = stack[top].begin
            if 2 <= stack[top].depth <= longest:
                if n_nodes[0] == room:
                    room = room + (room >> 1) + 1024
                    moved = realloc(begins[0], room * sizeof(uint32_t))
                    if moved == NULL:
                        return NO_MEMORY
                    begins[0] = <uint32_t*>moved
                    moved = realloc(ends[0], room * sizeof(uint32_t))
                    if moved == NULL:
                        return NO_MEMORY
                    ends[0] = <uint32_t*>moved
                    moved = realloc(depths[0], room)
                    if moved == NULL:
                        return NO_MEMORY
                    depths[0] = <uint8_t*>moved
                begins[0][n_nodes[0]] = begin
                ends[0][n_nodes[0]] = i
                depths[0][n_nodes[0]] = <uint8_t>stack[top].depth
                n_nodes[0] += 1
            top -= 1
        if stack[top].depth < shared:
            top += 1
            stack[top].begin = begin
            stack[top].depth = shared
    return OK

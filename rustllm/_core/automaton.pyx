"""Automata that follow a text byte by byte, and the tokens that may come next.

An :class:`Automaton` makes a network with calls deterministic as texts go along: a state is a set
of places, each with the calls it has to return from, so nested forms need no bound but `max_depth`.
States, their moves and their token masks are kept and found again; past a limit all are forgotten
at once. A :class:`TokenTrie` holds a vocabulary's tokens by their bytes, so that one walk finds
every token that fits a state, each shared beginning looked at once.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc

cdef extern from "<math.h>" nogil:
    const float INFINITY

cdef enum:
    DEAD = -1
    BOTTOM = 0                  # the stack of a place that returns nowhere
    NODES_A_LOOK = 1 << 22      # nodes walked between two looks for a signal


cdef class TokenTrie:
    """The tokens of a vocabulary by their bytes.

    Parameters
    ----------
    tokens : sequence of (bytes or None)
        For each id its bytes; None or nothing for an id that stands for no text.

    Attributes
    ----------
    n_vocab, n_nodes : int
    single : frozenset of int
        Bytes that are tokens of their own.

    Notes
    -----
    Immutable. O(bytes), after sorting.
    """

    cdef readonly int n_vocab
    cdef readonly int n_nodes
    cdef readonly object single
    cdef int longest
    # Of each node, in the order of a depth-first walk.
    cdef uint8_t* byte
    cdef int32_t* depth
    cdef int32_t* skip          # the first node after those below
    cdef int32_t* first         # its tokens are ids[first[node]] .. ids[first[node + 1] - 1]
    cdef int32_t* ids

    def __cinit__(self, tokens):
        cdef list pairs = sorted([(t, i) for i, t in enumerate(tokens) if t])
        cdef Py_ssize_t total = sum([len(t) for t, _ in pairs])
        if total > 1 << 30 or len(tokens) > 1 << 30:
            raise ValueError("the vocabulary is too large")
        self.n_vocab = <int>len(tokens)
        self.byte = <uint8_t*>malloc(total + 1)
        self.depth = <int32_t*>malloc((total + 1) * sizeof(int32_t))
        self.skip = <int32_t*>malloc((total + 1) * sizeof(int32_t))
        self.first = <int32_t*>calloc(total + 2, sizeof(int32_t))
        self.ids = <int32_t*>malloc((len(pairs) + 1) * sizeof(int32_t))
        if not (self.byte and self.depth and self.skip and self.first and self.ids):
            raise MemoryError("no memory for the vocabulary's trie")
        self._fill(pairs)
        self.single = frozenset([t[0] for t, _ in pairs if len(t) == 1])

    cdef int _fill(self, list pairs) except -1:
        cdef list path = []
        cdef bytes data, before = b""
        cdef Py_ssize_t shared, longest
        cdef int node = 0, at = 0, i
        cdef int32_t total = 0, here
        for data, id in pairs:
            longest = min(len(data), len(before))
            shared = 0
            while shared < longest and data[shared] == before[shared]:
                shared += 1
            while len(path) > shared:
                self.skip[<int>path.pop()] = node
            for i in range(<int>shared, <int>len(data)):
                self.byte[node] = data[i]
                self.depth[node] = i + 1
                path.append(node)
                node += 1
            # Sorted tokens come in the order of the walk, so counting them is enough.
            self.first[<int>path[len(path) - 1]] += 1
            self.ids[at] = id
            at += 1
            self.longest = max(self.longest, <int>len(data))
            before = data
        while path:
            self.skip[<int>path.pop()] = node
        self.n_nodes = node
        for i in range(node + 1):
            here = self.first[i]
            self.first[i] = total
            total += here
        return 0

    def __dealloc__(self):
        free(self.byte)
        free(self.depth)
        free(self.skip)
        free(self.first)
        free(self.ids)


cdef class Automaton:
    """A network made deterministic, and the masks of one vocabulary.

    Parameters
    ----------
    edges, empty, calls, ends, need, start
        The network; see ``rustllm.constrain.grammar.Network``.
    trie : TokenTrie
    max_depth : int
        Calls inside calls; a place from which the text cannot be finished within that is left out.
    limit : int
        Bytes of states and masks that are kept.

    Notes
    -----
    States are small numbers that are good until `epoch` changes, which only `trim` does. Not
    locked: calls on one automaton must not overlap.
    """

    cdef readonly TokenTrie trie
    cdef readonly int epoch
    cdef readonly int n_states
    cdef list edges, empty, calls, ends, need
    cdef int first_place, max_depth
    cdef Py_ssize_t limit, used
    cdef int capacity
    cdef int32_t* moves         # [state][256]
    cdef uint8_t* known         # whether a state's moves are
    cdef uint8_t* accepting
    cdef uint64_t** masks
    cdef int32_t* path          # states along the trie's path
    cdef list keys              # of each state: the sorted places
    cdef dict numbers           # and back
    cdef list stacks            # (place to return to, number of the stack below, depth)
    cdef dict stack_numbers
    cdef dict closures

    def __cinit__(self, list edges, list empty, list calls, list ends, list need, int start,
                  TokenTrie trie, int max_depth=64, Py_ssize_t limit=64 << 20):
        self.edges, self.empty, self.calls, self.ends, self.need = edges, empty, calls, ends, need
        self.first_place, self.max_depth, self.limit = start, max_depth, limit
        self.trie = trie
        self.path = <int32_t*>malloc((trie.longest + 2) * sizeof(int32_t))
        if self.path is NULL:
            raise MemoryError("no memory for an automaton")
        self._forget()

    def __dealloc__(self):
        self._free_states()
        free(self.path)

    cdef void _free_states(self):
        cdef int state
        if self.masks is not NULL:
            for state in range(self.n_states):
                free(self.masks[state])
        free(self.moves)
        free(self.known)
        free(self.accepting)
        free(self.masks)
        self.moves, self.known, self.accepting, self.masks = NULL, NULL, NULL, NULL
        self.n_states = self.capacity = 0

    cdef int _forget(self) except -1:
        self._free_states()
        self.keys, self.numbers, self.closures = [], {}, {}
        self.stacks, self.stack_numbers = [(-1, -1, 0)], {}
        self.used = 0
        self.epoch += 1
        return 0

    cdef int _grow(self) except -1:
        cdef int n = max(64, self.capacity * 2)
        cdef void* room
        room = realloc(self.moves, <size_t>n * 256 * sizeof(int32_t))
        if room is NULL:
            raise MemoryError("no memory for an automaton's states")
        self.moves = <int32_t*>room
        room = realloc(self.known, n)
        if room is NULL:
            raise MemoryError("no memory for an automaton's states")
        self.known = <uint8_t*>room
        room = realloc(self.accepting, n)
        if room is NULL:
            raise MemoryError("no memory for an automaton's states")
        self.accepting = <uint8_t*>room
        room = realloc(self.masks, n * sizeof(uint64_t*))
        if room is NULL:
            raise MemoryError("no memory for an automaton's states")
        self.masks = <uint64_t**>room
        self.capacity = n
        return 0

    # ---- states --------------------------------------------------------------------------------

    cdef int _stack(self, int back, int below):
        # The number of the stack that has `back` on top of `below`.
        cdef tuple key = (back, below)
        found = self.stack_numbers.get(key)
        if found is None:
            found = len(self.stacks)
            self.stacks.append((back, below, <int>self.stacks[below][2] + 1))
            self.stack_numbers[key] = found
            self.used += 200
        return <int>found

    cdef tuple _closure(self, int place, int stack):
        # The places with moves, or where the text may end, that are reached without a byte.
        cdef tuple here = (place, stack)
        found = self.closures.get(here)
        if found is not None:
            return <tuple>found
        cdef set seen = {here}
        cdef list todo = [here]
        cdef list kept = []
        cdef int p, s, depth, need, rule, back
        cdef tuple item, top
        while todo:
            item = <tuple>todo.pop()
            p, s = item
            top = <tuple>self.stacks[s]
            depth = top[2]
            need = self.need[p]
            if need < 0 or depth + need > self.max_depth:
                continue
            if self.ends[p]:
                if s == BOTTOM:
                    kept.append(item)
                else:
                    item = (top[0], top[1])
                    if item not in seen:
                        seen.add(item)
                        todo.append(item)
                continue
            if self.edges[p]:
                kept.append(item)
            for after in <list>self.empty[p]:
                item = (after, s)
                if item not in seen:
                    seen.add(item)
                    todo.append(item)
            for rule, back in <list>self.calls[p]:
                # Where the way back cannot be finished the call is not made.
                need = self.need[back]
                if need < 0 or depth + need > self.max_depth or depth >= self.max_depth:
                    continue
                item = (rule, self._stack(back, s))
                if item not in seen:
                    seen.add(item)
                    todo.append(item)
        result = tuple(kept)
        self.closures[here] = result
        self.used += 100 + 80 * len(result)
        return result

    cdef int _number(self, set places) except -2:
        # The state of these places; DEAD for none.
        if not places:
            return DEAD
        cdef tuple key = tuple(sorted(places))
        found = self.numbers.get(key)
        if found is not None:
            return <int>found
        if self.n_states == self.capacity:
            self._grow()
        cdef int state = self.n_states
        cdef bint accepting = False
        for place, _ in key:
            if self.ends[place]:
                accepting = True
        self.known[state] = False
        self.accepting[state] = accepting
        self.masks[state] = NULL
        self.keys.append(key)
        self.numbers[key] = state
        self.n_states += 1
        self.used += 1100 + 100 * len(key)
        return state

    cdef int _learn(self, int state) except -1:
        # Fill in the moves of a state.
        cdef tuple key = <tuple>self.keys[state]
        cdef list moves = []
        cdef set cuts = set()
        cdef set places
        cdef int low, high, place, stack, next_place, begin, end, byte, target
        cdef int i
        for place, stack in key:
            for low, high, next_place in <list>self.edges[place]:
                moves.append((low, high, next_place, stack))
                cuts.add(low)
                cuts.add(high + 1)
        for byte in range(256):
            self.moves[<Py_ssize_t>state * 256 + byte] = DEAD
        cdef list bounds = sorted(cuts)
        cdef dict same = {}
        for i in range(len(bounds) - 1):
            begin, end = bounds[i], bounds[i + 1]
            targets = tuple([(n, s) for low, high, n, s in moves if low <= begin <= high])
            if not targets:
                continue
            number = same.get(targets)
            if number is None:
                places = set()
                for next_place, stack in targets:
                    places.update(self._closure(next_place, stack))
                number = self._number(places)
                same[targets] = number
            target = number
            for byte in range(begin, end):
                self.moves[<Py_ssize_t>state * 256 + byte] = target
        self.known[state] = True
        return 0

    def start(self):
        """The state before any byte; -1 when no text fits at all."""
        return self._number(set(self._closure(self.first_place, BOTTOM)))

    def advance(self, int state, bytes data):
        """The state after `data`; -1 when that does not fit."""
        cdef uint8_t byte       # unsigned, whatever the compiler's char is
        self._check(state)
        for byte in data:
            if not self.known[state]:
                self._learn(state)
            state = self.moves[<Py_ssize_t>state * 256 + byte]
            if state == DEAD:
                break
        return state

    cdef int _check(self, int state) except -1:
        if not 0 <= state < self.n_states:
            raise IndexError(f"there is no state {state}")
        return 0

    def may_end(self, int state):
        """Whether the text may end here."""
        self._check(state)
        return self.accepting[state] != 0

    def may_go_on(self, int state):
        """Whether any byte may follow."""
        cdef int byte
        self._check(state)
        if not self.known[state]:
            self._learn(state)
        for byte in range(256):
            if self.moves[<Py_ssize_t>state * 256 + byte] != DEAD:
                return True
        return False

    def trim(self):
        """Forget all states if they take too much room; whether that was done."""
        if self.used <= self.limit:
            return False
        self._forget()
        return True

    # ---- masks ---------------------------------------------------------------------------------

    cdef int _walk(self, int state, uint64_t* mask) except -1:
        cdef TokenTrie trie = self.trie
        cdef int node = 0, next_state, i, until
        cdef int32_t* path = self.path
        path[0] = state
        with nogil:
            while node < trie.n_nodes:
                until = min(trie.n_nodes, node + NODES_A_LOOK)
                while node < until:
                    state = path[trie.depth[node] - 1]
                    if not self.known[state]:
                        with gil:
                            self._learn(state)
                    next_state = self.moves[<Py_ssize_t>state * 256 + trie.byte[node]]
                    if next_state == DEAD:
                        node = trie.skip[node]
                        continue
                    for i in range(trie.first[node], trie.first[node + 1]):
                        mask[trie.ids[i] >> 6] |= <uint64_t>1 << (trie.ids[i] & 63)
                    path[trie.depth[node]] = next_state
                    node += 1
                with gil:
                    PyErr_CheckSignals()
        return 0

    cdef uint64_t* _mask(self, int state) except NULL:
        cdef uint64_t* mask = self.masks[state]
        cdef Py_ssize_t words = self.trie.n_vocab // 64 + 1
        if mask is NULL:
            mask = <uint64_t*>calloc(words, sizeof(uint64_t))
            if mask is NULL:
                raise MemoryError("no memory for a mask of tokens")
            try:
                self._walk(state, mask)
            except BaseException:
                free(mask)
                raise
            self.masks[state] = mask
            self.used += words * 8
        return mask

    def forbid(self, int state, float[::1] scores):
        """Set the scores of tokens that do not fit `state` to minus infinity.

        Parameters
        ----------
        state : int
        scores : float32 [at least n_vocab]
        """
        self._check(state)
        cdef uint64_t* mask = self._mask(state)
        cdef Py_ssize_t n = scores.shape[0], i, last
        cdef Py_ssize_t vocab = self.trie.n_vocab
        cdef uint64_t word
        if n < vocab:
            raise ValueError(f"{n} scores for {vocab} tokens")
        cdef float* score = &scores[0]
        with nogil:
            for i in range(vocab // 64 + 1):
                word = mask[i]
                if word == ~<uint64_t>0:
                    continue
                last = min(n, 64 * i + 64)
                _forbid_word(score + 64 * i, last - 64 * i, word)
            for i in range((vocab // 64 + 1) * 64, n):
                score[i] = -INFINITY

    def allowed(self, int state):
        """The ids of the tokens that fit `state`, in order."""
        self._check(state)
        cdef uint64_t* mask = self._mask(state)
        return [i for i in range(self.trie.n_vocab) if mask[i >> 6] >> (i & 63) & 1]


cdef inline void _forbid_word(float* score, Py_ssize_t n, uint64_t word) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if not word >> i & 1:
            score[i] = -INFINITY

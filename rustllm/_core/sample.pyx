"""Draw a token from a row of scores, in time linear in the vocabulary.

Cuts need the likeliest few, not a sort of everything: candidates are collected in one pass, and a
cut or a draw finds its place among them by partitioning, the way quickselect finds a median, with
masses instead of counts. Nothing is allocated for a token.
"""

import numpy as np

from libc.math cimport INFINITY, fabs, isfinite, log
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from rustllm._core.dispatch cimport simd_level
from rustllm._core.threads cimport run_team

cdef extern from "atomics.h" nogil:
    int rl_fetch_add(int*, int) noexcept

cdef extern from "softmax.h" nogil:
    ctypedef float (*rl_softmax_fn)(const float*, float, float, Py_ssize_t, float*) noexcept nogil
    ctypedef float (*rl_max_fn)(const float*, Py_ssize_t) noexcept nogil
    rl_softmax_fn rl_softmax_kernel(int) noexcept
    rl_max_fn rl_max_kernel(int) noexcept

cdef enum:
    BLOCK = 512                 # weights summed at a time where nothing is cut
    SKIP = 64                   # weights passed over at a time where all are light
    DRAWN = 0
    NOT_FINITE = 1
    NONE_ALLOWED = 2

cdef struct Candidate:
    float key                   # ascending: minus the weight, or the distance from the typical
    float weight
    int32_t id

# One row to draw from, settings and scratch memory with it: what a thread needs without the GIL.
cdef struct Draw:
    Py_ssize_t n_vocab
    float temperature
    Py_ssize_t top_k
    double top_p
    double min_p
    double typical_p
    float* weights              # [n_vocab]
    double* sums                # [n_vocab / BLOCK + 1]
    Candidate* candidates       # [n_vocab]
    const float* raw            # the model's scores
    const float* scores         # those that count: `raw`, or a changed copy
    double uniform
    int32_t id
    double logprob
    int status


cdef void _draw(Draw* d, int level) noexcept nogil:
    cdef float top = rl_max_kernel(level)(d.raw, d.n_vocab)
    cdef float best = top
    cdef double total, log_sum
    if not isfinite(top):
        d.status = NOT_FINITE
        return
    total = rl_softmax_kernel(level)(d.raw, top, 1.0, d.n_vocab, d.weights)
    if not isfinite(total):
        d.status = NOT_FINITE
        return
    log_sum = log(total)
    if d.scores != d.raw:
        best = rl_max_kernel(level)(d.scores, d.n_vocab)
        if not isfinite(best):
            d.status = NONE_ALLOWED if best == -INFINITY else NOT_FINITE
            return
    if d.temperature == 0:
        d.id = _first(d.scores, best, d.n_vocab)
    else:
        if d.scores != d.raw or d.temperature != 1.0:
            total = rl_softmax_kernel(level)(d.scores, best, <float>(1.0 / d.temperature),
                                             d.n_vocab, d.weights)
            if not isfinite(total):
                d.status = NOT_FINITE
                return
        if d.top_k == 0 and d.top_p >= 1.0 and d.typical_p >= 1.0 and d.min_p <= 0.0:
            d.id = _draw_uncut(d)
        else:
            d.id = _draw_cut(d, best, total)
    d.logprob = <double>d.raw[d.id] - <double>top - log_sum
    d.status = DRAWN


cdef int32_t _first(const float* scores, float wanted, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if scores[i] == wanted:
            return <int32_t>i
    return 0


cdef int32_t _draw_uncut(Draw* d) noexcept nogil:
    """All tokens stay: walk them in the order of ids, whole blocks first."""
    cdef Py_ssize_t i, j, b, stop, n_blocks = (d.n_vocab + BLOCK - 1) // BLOCK
    cdef Py_ssize_t last = 0
    cdef double lanes[8]
    cdef double total = 0.0, left
    for b in range(n_blocks):
        memset(lanes, 0, sizeof(lanes))
        stop = min(d.n_vocab, (b + 1) * BLOCK)
        i = b * BLOCK
        while i + 8 <= stop:
            for j in range(8):
                lanes[j] += d.weights[i + j]
            i += 8
        while i < stop:
            lanes[0] += d.weights[i]
            i += 1
        d.sums[b] = (((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]))
                     + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7])))
        total += d.sums[b]
    left = d.uniform * total
    b = 0
    while b + 1 < n_blocks and left >= d.sums[b]:
        left -= d.sums[b]
        b += 1
    # Rounding may carry a draw past the end of its block: the next token with a weight then.
    for i in range(b * BLOCK, d.n_vocab):
        if d.weights[i] > 0:
            last = i
            left -= d.weights[i]
            if left < 0:
                return <int32_t>i
    if d.weights[last] > 0:
        return <int32_t>last
    for i in range(d.n_vocab - 1, -1, -1):
        if d.weights[i] > 0:
            return <int32_t>i
    return 0


cdef int32_t _draw_cut(Draw* d, float best, double total) noexcept nogil:
    cdef Candidate* c = d.candidates
    cdef Py_ssize_t n = _collect(d, total), i
    cdef double mass
    if d.top_k or d.min_p > 0:
        total = _mass(c, n)
    if d.typical_p < 1.0:
        total = _mass(c, n)
        _measure_typical(d, best, total, n)
        n = _prefix(c, n, d.typical_p * total)
        for i in range(n):
            c[i].key = -c[i].weight
        total = _mass(c, n)
    if d.top_p < 1.0:
        n = _prefix(c, n, d.top_p * total)
    mass = _mass(c, n)
    return c[_prefix(c, n, d.uniform * mass) - 1].id


cdef double _mass(const Candidate* c, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef double total = 0.0
    for i in range(n):
        total += c[i].weight
    return total


cdef Py_ssize_t _collect(Draw* d, double total) noexcept nogil:
    """What `min_p` lets stay and later cuts may keep."""
    cdef Candidate* c = d.candidates
    cdef Py_ssize_t i, n = 0, block, start, stop
    cdef float floor = d.min_p
    if d.top_k:
        return _collect_top(d)
    if d.min_p <= 0.0 and d.typical_p >= 1.0:
        # All that is lighter than this is together less than what top_p leaves out.
        floor = (1.0 - d.top_p) * total / d.n_vocab * 0.999
    for block in range((d.n_vocab + SKIP - 1) // SKIP):
        start = block * SKIP
        stop = min(d.n_vocab, start + SKIP)
        if not _any_from(d.weights, start, stop, floor):
            continue
        for i in range(start, stop):
            if d.weights[i] >= floor and d.weights[i] > 0:
                _put(&c[n], d.weights[i], i)
                n += 1
    return n


cdef inline bint _any_from(const float* weights, Py_ssize_t start, Py_ssize_t stop,
                           float floor) noexcept nogil:
    """Whether a stretch has a weight worth a look; most have none, and this loop is vectors."""
    cdef Py_ssize_t i
    cdef int found = 0
    for i in range(start, stop):
        found |= weights[i] >= floor
    return found != 0


cdef Py_ssize_t _collect_top(Draw* d) noexcept nogil:
    """The `top_k` heaviest of those that `min_p` lets stay: a buffer, thinned when it is full."""
    cdef Candidate* c = d.candidates
    cdef Py_ssize_t block, start, stop
    cdef Py_ssize_t i, j, n = 0, k = d.top_k, room = min(d.n_vocab, max(4 * k, 256))
    cdef float floor = d.min_p, lightest = 0.0
    for block in range((d.n_vocab + SKIP - 1) // SKIP):
        start = block * SKIP
        stop = min(d.n_vocab, start + SKIP)
        if not _any_from(d.weights, start, stop, max(lightest, floor)):
            continue
        for i in range(start, stop):
            if d.weights[i] > lightest and d.weights[i] >= floor:
                if n == room:
                    _select(c, n, k)
                    n = k
                    # From here on a token must be heavier than one of these: equals went by id.
                    lightest = c[0].weight
                    for j in range(1, n):
                        lightest = min(lightest, c[j].weight)
                    if d.weights[i] <= lightest:
                        continue
                _put(&c[n], d.weights[i], i)
                n += 1
    if n > k:
        _select(c, n, k)
        n = k
    return n


cdef inline void _put(Candidate* c, float weight, Py_ssize_t id) noexcept nogil:
    c.key = -weight
    c.weight = weight
    c.id = <int32_t>id


cdef void _measure_typical(Draw* d, float best, double total, Py_ssize_t n) noexcept nogil:
    """Keys become the distance of a token's information from the mean (Meister et al. 2022)."""
    cdef Candidate* c = d.candidates
    cdef double scale = 1.0 / d.temperature, log_total = log(total), mean = 0.0, information
    cdef Py_ssize_t i
    for i in range(n):
        information = log_total - (<double>d.scores[c[i].id] - best) * scale
        mean += c[i].weight / total * information
    for i in range(n):
        information = log_total - (<double>d.scores[c[i].id] - best) * scale
        c[i].key = <float>fabs(information - mean)


cdef inline bint _before(const Candidate* a, const Candidate* b) noexcept nogil:
    """By key; among equals the smaller id first, on every machine."""
    return a.key < b.key or (a.key == b.key and a.id < b.id)


cdef Py_ssize_t _partition(Candidate* c, Py_ssize_t low, Py_ssize_t high, uint32_t* state,
                           double* mass) noexcept nogil:
    """Part `low..high-1` about one of them; its place, and the mass before it.

    The pivot is drawn, so that no order of scores makes this slow; always the same way, so that the
    sums, and with them the tokens, repeat.
    """
    cdef Candidate swapped
    cdef Py_ssize_t i, middle = low, pivot
    cdef double sum_ = 0.0
    state[0] = state[0] * 1664525 + 1013904223
    pivot = low + (state[0] >> 8) % (high - low)
    swapped = c[pivot]
    c[pivot] = c[high - 1]
    c[high - 1] = swapped
    for i in range(low, high - 1):
        if _before(&c[i], &c[high - 1]):
            sum_ += c[i].weight
            swapped = c[i]
            c[i] = c[middle]
            c[middle] = swapped
            middle += 1
    swapped = c[high - 1]
    c[high - 1] = c[middle]
    c[middle] = swapped
    mass[0] = sum_
    return middle


cdef Py_ssize_t _prefix(Candidate* c, Py_ssize_t n, double target) noexcept nogil:
    """How many candidates, taken by key, first reach a mass; moves those to the front.

    The one that reaches it is the last of them.
    """
    cdef Py_ssize_t low = 0, high = n, middle
    cdef double before = 0.0, mass
    cdef uint32_t state = 1
    while high - low > 1:
        middle = _partition(c, low, high, &state, &mass)
        if middle > low and before + mass >= target:
            high = middle
        elif before + mass + c[middle].weight >= target:
            return middle + 1
        else:
            before += mass + c[middle].weight
            low = middle + 1
    return min(low + 1, n)


cdef void _select(Candidate* c, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Move the `k` first by key to the front."""
    cdef Py_ssize_t low = 0, high = n, middle
    cdef double mass
    cdef uint32_t state = 1
    while high - low > 1:
        middle = _partition(c, low, high, &state, &mass)
        if middle == k or middle + 1 == k:
            return
        if middle > k:
            high = middle
        else:
            low = middle + 1


cdef class Sampler:
    """Draws ids from rows of scores.

    Parameters
    ----------
    n_vocab : int
        Length of a row.
    temperature : float
        Divides the scores; 0 takes the best each time.
    top_k, top_p, min_p, typical_p : int, float, float, float
        Cuts, in this order: the `top_k` best (0: all); of those the ones at least `min_p` times as
        likely as the best; of those the ones whose information lies nearest to the mean and that
        together reach `typical_p` of the probability; of those the fewest likeliest that together
        reach `top_p`.
    repeat_penalty : float
        Divides the positive and multiplies the negative scores of tokens in the window (Keskar et
        al. 2019).
    frequency_penalty, presence_penalty : float
        Taken off a token's score for each time, and once if, it stands in the window.
    repeat_last_n : int
        Tokens in the window: the last of prompt and text; -1 takes all, 0 none.
    logit_bias : mapping of int to float, optional
        Added to scores.
    seed : int, optional
        Makes the draws repeatable.

    Notes
    -----
    Holds a random generator, the window and scratch memory: one thread at a time. Bounds of the
    parameters are the caller's business. A draw takes O(n_vocab).
    """

    cdef Draw draw
    cdef object random
    cdef list ahead             # random numbers looked at before their turn
    cdef object arrays
    cdef readonly Py_ssize_t n_vocab
    cdef float repeat_penalty
    cdef float frequency_penalty
    cdef float presence_penalty
    cdef Py_ssize_t window      # 0: no penalties
    cdef list history
    cdef int32_t[::1] counts    # times in the window, by id
    cdef Py_ssize_t first       # where the window begins in `history`
    cdef float[::1] changed
    cdef object changed_array
    cdef int32_t[::1] bias_ids
    cdef float[::1] bias_values

    def __init__(self, Py_ssize_t n_vocab, *, double temperature=0.8, Py_ssize_t top_k=0,
                 double top_p=1.0, double min_p=0.0, double typical_p=1.0,
                 double repeat_penalty=1.0, double frequency_penalty=0.0,
                 double presence_penalty=0.0, Py_ssize_t repeat_last_n=64, logit_bias=None,
                 seed=None):
        cdef float[::1] weights = np.empty(n_vocab, np.float32)
        cdef double[::1] sums = np.empty(n_vocab // BLOCK + 1, np.float64)
        cdef uint8_t[::1] candidates = np.empty(n_vocab * sizeof(Candidate), np.uint8)
        self.arrays = weights, sums, candidates
        self.n_vocab = n_vocab
        self.draw.n_vocab = n_vocab
        self.draw.temperature = temperature
        self.draw.top_k = top_k if top_k < n_vocab else 0
        self.draw.top_p = top_p
        self.draw.min_p = min_p
        self.draw.typical_p = typical_p
        self.draw.weights = &weights[0]
        self.draw.sums = &sums[0]
        self.draw.candidates = <Candidate*>&candidates[0]
        self.random = np.random.default_rng(seed).random
        self.ahead = []
        self.repeat_penalty = repeat_penalty
        self.frequency_penalty = frequency_penalty
        self.presence_penalty = presence_penalty
        self.history = []
        self.first = 0
        self.window = 0
        if repeat_penalty != 1.0 or frequency_penalty != 0.0 or presence_penalty != 0.0:
            self.window = repeat_last_n if repeat_last_n >= 0 else (<Py_ssize_t>1 << 62)
            self.counts = np.zeros(n_vocab, np.int32)
        bias = logit_bias or {}
        self.bias_ids = np.fromiter(bias.keys(), np.int32, len(bias))
        self.bias_values = np.fromiter(bias.values(), np.float32, len(bias))

    def extend(self, ids):
        """Take ids that the text holds already into the window of the penalties."""
        if self.window:
            for id in ids:
                self._remember(id)

    cdef int _remember(self, Py_ssize_t id) except -1:
        if not 0 <= id < self.n_vocab:
            raise ValueError(f"token id {id}: the vocabulary has {self.n_vocab}")
        self.history.append(id)
        self.counts[id] += 1
        if len(self.history) - self.first > self.window:
            self.counts[<Py_ssize_t>self.history[self.first]] -= 1
            self.first += 1
            if self.first > 1024 and 2 * self.first > len(self.history):
                del self.history[:self.first]
                self.first = 0
        return 0

    def uniform(self, Py_ssize_t index=0):
        """The number that decides the draw after the next `index` ones."""
        while len(self.ahead) <= index:
            self.ahead.append(self.random())
        return self.ahead[index]

    def adjust(self, const float[::1] scores):
        """A copy of `scores` with bias and penalties, to change further and hand to the draw.

        The copy is the sampler's own and lives until the next call.
        """
        self._check(scores)
        if self.changed_array is None:
            self.changed_array = np.empty(self.n_vocab, np.float32)
            self.changed = self.changed_array
        memcpy(&self.changed[0], &scores[0], self.n_vocab * sizeof(float))
        self._penalise()
        return self.changed_array

    cdef int _check(self, const float[::1] scores) except -1:
        if scores.shape[0] != self.n_vocab:
            raise ValueError(f"{scores.shape[0]} scores, expected {self.n_vocab}")
        return 0

    cdef int _penalise(self) except -1:
        cdef Py_ssize_t i
        cdef int32_t id, count
        cdef float score
        for i in range(self.bias_ids.shape[0]):
            self.changed[self.bias_ids[i]] += self.bias_values[i]
        if self.window == 0:
            return 0
        for i in range(self.first, len(self.history)):
            id = self.history[i]
            count = self.counts[id]
            if count <= 0:
                continue        # negative: seen before in this walk
            self.counts[id] = -count
            score = self.changed[id]
            score = score / self.repeat_penalty if score > 0 else score * self.repeat_penalty
            self.changed[id] = score - (count * self.frequency_penalty + self.presence_penalty)
        for i in range(self.first, len(self.history)):
            id = self.history[i]
            if self.counts[id] < 0:
                self.counts[id] = -self.counts[id]
        return 0

    cdef int _begin(self, const float[::1] scores, const float[::1] changed, uniform) except -1:
        self._check(scores)
        self.draw.raw = &scores[0]
        if changed is not None:
            self._check(changed)
        elif self.window or self.bias_ids.shape[0]:
            self.adjust(scores)
            changed = self.changed
        self.draw.scores = self.draw.raw if changed is None else &changed[0]
        self.draw.uniform = 0.0
        if uniform is not None:
            self.draw.uniform = uniform
        elif self.draw.temperature > 0:
            self.draw.uniform = self.ahead.pop(0) if self.ahead else self.random()
        return 0

    cdef _error(self):
        """Why nothing was drawn, or None."""
        if self.draw.status == NOT_FINITE:
            return FloatingPointError("a score is not a finite number")
        if self.draw.status == NONE_ALLOWED:
            return ArithmeticError("every token is forbidden")
        return None

    cdef _end(self, bint remember):
        if self.draw.status != DRAWN:
            raise self._error()
        if remember and self.window:
            self._remember(self.draw.id)
        return self.draw.id, self.draw.logprob

    def __call__(self, const float[::1] scores, const float[::1] changed=None):
        """Draw an id.

        Parameters
        ----------
        scores : float32 `[n_vocab]`
            The model's; minus infinity forbids a token.
        changed : float32 `[n_vocab]`, optional
            What to draw from instead: what :meth:`adjust` gave, changed further.

        Returns
        -------
        (int, float)
            The id, and its log-probability under `scores`, before temperature and cuts.

        Raises
        ------
        FloatingPointError
            A score is NaN or infinity.
        ArithmeticError
            Every score is minus infinity.
        """
        self._begin(scores, changed, None)
        with nogil:
            _draw(&self.draw, simd_level())
        return self._end(True)

    def guess(self, const float[::1] scores, double uniform):
        """What a draw that `uniform` decides would give; nothing is remembered."""
        self._begin(scores, None, uniform)
        with nogil:
            _draw(&self.draw, simd_level())
        return self._end(False)[0]


cdef struct Rows:
    Draw** draws
    const float* scores
    const int32_t* ids
    double* logprobs
    float* scratch
    Py_ssize_t n_vocab
    int n
    int next
    int level


cdef void _draw_rows(void* context, int thread, int n_threads) noexcept nogil:
    cdef Rows* rows = <Rows*>context
    cdef int i = rl_fetch_add(&rows.next, 1)
    while i < rows.n:
        _draw(rows.draws[i], rows.level)
        i = rl_fetch_add(&rows.next, 1)


def draw_rows(samplers, rows, changed, int threads=1):
    """Draw from several rows at once, each with its own sampler, on several threads.

    Parameters
    ----------
    samplers : list of Sampler
        Each appears once.
    rows, changed : list of float32 `[n_vocab]`
        As a sampler takes them; `changed` may be None in places.
    threads : int

    Returns
    -------
    list of (int, float) or ArithmeticError
        What each sampler alone would have given, or raised.
    """
    cdef Py_ssize_t n = len(samplers), i
    cdef Sampler sampler
    cdef Rows work
    if not n == len(rows) == len(changed) == len(set(map(id, samplers))):
        raise ValueError("one row, and one sampler of its own, for each draw")
    if n == 0:
        return []
    cdef uint8_t[::1] memory = np.empty(n * sizeof(void*), np.uint8)
    memset(&work, 0, sizeof(work))
    work.draws = <Draw**>&memory[0]
    for i in range(n):
        sampler = samplers[i]
        sampler._begin(rows[i], changed[i], None)
        work.draws[i] = &sampler.draw
    work.n = <int>n
    work.level = simd_level()
    with nogil:
        run_team(_draw_rows, &work, <int>min(n, threads))
    results = []
    for i in range(n):
        sampler = samplers[i]
        results.append(sampler._end(True) if sampler.draw.status == DRAWN else sampler._error())
    return results


cdef void _score_rows(void* context, int thread, int n_threads) noexcept nogil:
    cdef Rows* rows = <Rows*>context
    cdef const float* row
    cdef float* scratch = rows.scratch + thread * rows.n_vocab
    cdef float top
    cdef int i = rl_fetch_add(&rows.next, 1)
    while i < rows.n:
        row = rows.scores + i * rows.n_vocab
        top = rl_max_kernel(rows.level)(row, rows.n_vocab)
        rows.logprobs[i] = <double>row[rows.ids[i]] - <double>top - log(
            rl_softmax_kernel(rows.level)(row, top, 1.0, rows.n_vocab, scratch))
        i = rl_fetch_add(&rows.next, 1)


def log_probabilities(const float[:, ::1] scores, const int32_t[::1] ids, int threads=1):
    """The log-probability of one id in each row.

    Parameters
    ----------
    scores : float32 `[n, n_vocab]`
        Finite.
    ids : int32 `[n]`
    threads : int

    Returns
    -------
    numpy.ndarray
        float64 `[n]`.
    """
    cdef Py_ssize_t n = scores.shape[0], i
    cdef Rows work
    if ids.shape[0] != n:
        raise ValueError(f"{n} rows and {ids.shape[0]} ids")
    for i in range(n):
        if not 0 <= ids[i] < scores.shape[1]:
            raise ValueError(f"token id {ids[i]}: the vocabulary has {scores.shape[1]}")
    result = np.empty(n, np.float64)
    if n == 0:
        return result
    threads = max(1, min(threads, 256, <int>n))
    cdef double[::1] logprobs = result
    cdef float[::1] scratch = np.empty(threads * scores.shape[1], np.float32)
    memset(&work, 0, sizeof(work))
    work.scores = &scores[0, 0]
    work.ids = &ids[0]
    work.logprobs = &logprobs[0]
    work.scratch = &scratch[0]
    work.n_vocab = scores.shape[1]
    work.n = <int>n
    work.level = simd_level()
    with nogil:
        run_team(_score_rows, &work, threads)
    return result


def likeliest(const float[::1] scores, Py_ssize_t n):
    """The `n` likeliest tokens of a row and their log-probabilities, best first.

    Returns
    -------
    list of (int, float)
    """
    cdef Draw d
    cdef Py_ssize_t n_vocab = scores.shape[0], i
    cdef float top
    cdef double log_sum
    n = min(n, n_vocab)
    if n < 1:
        return []
    cdef float[::1] weights = np.empty(n_vocab, np.float32)
    cdef uint8_t[::1] candidates = np.empty(n_vocab * sizeof(Candidate), np.uint8)
    memset(&d, 0, sizeof(d))
    d.n_vocab = n_vocab
    d.top_k = n
    d.weights = &weights[0]
    d.candidates = <Candidate*>&candidates[0]
    with nogil:
        top = rl_max_kernel(simd_level())(&scores[0], n_vocab)
        log_sum = log(rl_softmax_kernel(simd_level())(&scores[0], top, 1.0, n_vocab, d.weights))
        n = _collect_top(&d)
    found = sorted((-scores[d.candidates[i].id], d.candidates[i].id) for i in range(n))
    return [(id, -negative - <double>top - log_sum) for negative, id in found]

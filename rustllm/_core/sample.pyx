"""Draw a token from a row of scores, in time linear in the vocabulary.

The usual cuts need the likeliest few in order, not a sort of everything: scores are counted into
bins by their distance from the best one, a bin boundary that surely holds enough is found, and only
what lies above it is sorted.
"""

import numpy as np

from libc.math cimport log
from libc.stdint cimport int32_t
from libc.stdlib cimport qsort
from libc.string cimport memset

from rustllm._core.dispatch cimport simd_level

cdef extern from "softmax.h" nogil:
    ctypedef float (*rl_softmax_fn)(const float*, float, float, Py_ssize_t, float*) noexcept nogil
    rl_softmax_fn rl_softmax_kernel(int) noexcept

cdef enum:
    N_BINS = 1024

# Bins of equal ratio: weights from 1 down to exp(-32), the last bin takes what is smaller.
cdef double BINS_PER_NAT = 32.0

cdef struct Candidate:
    float weight
    int32_t id


cdef int _by_weight(const void* a, const void* b) noexcept nogil:
    """Heavier first; among equals the smaller id, on every machine."""
    cdef const Candidate* x = <const Candidate*>a
    cdef const Candidate* y = <const Candidate*>b
    if x.weight != y.weight:
        return -1 if x.weight > y.weight else 1
    return -1 if x.id < y.id else 1


cdef class Sampler:
    """Draws ids from rows of scores.

    Parameters
    ----------
    n_vocab : int
        Length of a row.
    temperature : float
        Divides the scores; 0 takes the best each time.
    top_k, top_p, min_p : int, float, float
        Keep the `top_k` best (0: all); of those the ones at least `min_p` times as likely as the
        best; of those the fewest that together reach `top_p` of their probability.
    seed : int, optional
        Makes the draws repeatable.

    Notes
    -----
    Holds a random generator and scratch memory: one thread at a time. Bounds of the parameters are
    the caller's business.
    """

    cdef float temperature
    cdef Py_ssize_t top_k
    cdef double top_p
    cdef double min_p
    cdef object random
    cdef object memory
    cdef float[::1] weights
    cdef Candidate* candidates
    cdef readonly Py_ssize_t n_vocab

    def __init__(self, Py_ssize_t n_vocab, *, double temperature=0.8, Py_ssize_t top_k=0,
                 double top_p=1.0, double min_p=0.0, seed=None):
        cdef char[::1] view
        self.n_vocab = n_vocab
        self.temperature = temperature
        self.top_k = top_k if top_k < n_vocab else 0
        self.top_p = top_p
        self.min_p = min_p
        self.random = np.random.default_rng(seed).random
        self.weights = np.empty(n_vocab, np.float32)
        self.memory = np.empty(n_vocab * sizeof(Candidate), np.int8)
        view = self.memory
        self.candidates = <Candidate*>&view[0]

    def __call__(self, const float[::1] scores):
        """Draw an id.

        Parameters
        ----------
        scores : float32 `[n_vocab]`
            Finite.

        Returns
        -------
        (int, float)
            The id, and its log-probability before temperature and cuts.
        """
        cdef Py_ssize_t best, id
        cdef double logprob
        cdef double draw = 0.0
        if scores.shape[0] != self.n_vocab:
            raise ValueError(f"{scores.shape[0]} scores, expected {self.n_vocab}")
        if self.temperature > 0:
            draw = self.random()
        with nogil:
            best = self._best(scores)
            logprob = self._log_sum(scores, scores[best])
            id = best if self.temperature == 0 else self._draw(scores, scores[best], draw)
            logprob = <double>scores[id] - <double>scores[best] - logprob
        return id, logprob

    cdef Py_ssize_t _best(self, const float[::1] scores) noexcept nogil:
        # The maximum first, which vectorises; then its first place.
        cdef Py_ssize_t i
        cdef float top = scores[0]
        for i in range(self.n_vocab):
            top = scores[i] if scores[i] > top else top
        for i in range(self.n_vocab):
            if scores[i] == top:
                return i
        return 0

    cdef double _log_sum(self, const float[::1] scores, float top) noexcept nogil:
        return log(rl_softmax_kernel(simd_level())(&scores[0], top, 1.0, self.n_vocab,
                                                   &self.weights[0]))

    cdef Py_ssize_t _draw(self, const float[::1] scores, float top, double draw) noexcept nogil:
        cdef float scale = 1.0 / self.temperature
        cdef Py_ssize_t n, i, last
        cdef double total, sum_
        # Weights after temperature; the best has exactly 1.
        rl_softmax_kernel(simd_level())(&scores[0], top, scale, self.n_vocab, &self.weights[0])
        if self.top_k == 0 and self.top_p >= 1.0:
            return self._draw_uncut(draw)
        n = self._candidates()
        qsort(self.candidates, n, sizeof(Candidate), _by_weight)
        if self.top_k and n > self.top_k:
            n = self.top_k
        if self.min_p > 0:
            while n > 1 and self.candidates[n - 1].weight < self.min_p:
                n -= 1
        if self.top_p < 1.0:
            total = 0.0
            if self.top_k:
                for i in range(n):
                    total += self.candidates[i].weight
            else:
                for i in range(self.n_vocab):
                    if self.weights[i] >= self.min_p:
                        total += self.weights[i]
            sum_ = 0.0
            for i in range(n):
                sum_ += self.candidates[i].weight
                if sum_ >= self.top_p * total:
                    n = i + 1
                    break
        total = 0.0
        for i in range(n):
            total += self.candidates[i].weight
        draw *= total
        last = 0
        for i in range(n):
            last = i
            draw -= self.candidates[i].weight
            if draw < 0:
                break
        return self.candidates[last].id

    cdef Py_ssize_t _draw_uncut(self, double draw) noexcept nogil:
        """All tokens stay, or those above min_p: walk them in the order of ids."""
        cdef Py_ssize_t i, last = 0
        cdef double total = 0.0
        for i in range(self.n_vocab):
            if self.weights[i] >= self.min_p:
                total += self.weights[i]
        draw *= total
        for i in range(self.n_vocab):
            if self.weights[i] >= self.min_p and self.weights[i] > 0:
                last = i
                draw -= self.weights[i]
                if draw < 0:
                    break
        return last

    cdef Py_ssize_t _candidates(self) noexcept nogil:
        """Collect at least all tokens that the cuts can keep, unsorted."""
        cdef Py_ssize_t counts[N_BINS]
        cdef double masses[N_BINS]
        cdef Py_ssize_t i, n = 0, wanted = self.top_k, seen = 0
        cdef int b, cut = N_BINS - 1
        cdef double mass = 0.0, total = 0.0
        memset(counts, 0, sizeof(counts))
        memset(masses, 0, sizeof(masses))
        for i in range(self.n_vocab):
            if self.weights[i] >= self.min_p:
                b = _bin(self.weights[i])
                counts[b] += 1
                masses[b] += self.weights[i]
                total += self.weights[i]
        for b in range(N_BINS):
            seen += counts[b]
            mass += masses[b]
            # With top_k the mass that top_p looks at is not known yet, so the count alone decides.
            # A hair more than top_p, because sums in another order differ in the last bits.
            if (seen >= wanted if wanted else mass >= self.top_p * total * (1 + 1e-9) and seen > 0):
                cut = b
                break
        for i in range(self.n_vocab):
            if self.weights[i] >= self.min_p and _bin(self.weights[i]) <= cut:
                self.candidates[n].weight = self.weights[i]
                self.candidates[n].id = <int32_t>i
                n += 1
        return n


cdef inline int _bin(float weight) noexcept nogil:
    cdef double distance
    if weight < 1e-13:
        return N_BINS - 1
    distance = -log(weight) * BINS_PER_NAT
    return <int>distance if distance < N_BINS - 1 else N_BINS - 1

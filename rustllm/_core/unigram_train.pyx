"""Expectation, maximisation and pruning of a Unigram vocabulary over counted words.

The pieces that match at each place of the words are looked up once. From then on the words are
lists of edges: an edge names a piece and its length, a word's edges are its lattice, and a piece
that is dropped takes its edges out of the lists. So no iteration searches for anything.

Sums over paths are products of probabilities, not of their logarithms: where the sum up to a place
becomes too small for a double, everything that edges can reach from there is scaled up, and the way
back undoes it.

Work is cut into parts by the words alone. Each part adds up its own expected counts, and the parts
are added in order, so that the number of threads changes no bit.

Source of the algorithm: Kudo 2018, "Subword regularization"; pruning and the sparse prior follow
SentencePiece, with the details of ``tokenizers``.
"""

cimport cython
from libc.math cimport exp, log
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

import numpy as np

from rustllm._core.status cimport NO_MEMORY, OK, check

cdef enum:
    LENGTH_BITS = 8
    MOST_PIECES = 1 << 24     # an edge is a piece and its length in 32 bits
    MOST_LENGTH = 255

cdef double SMALL = 2.0 ** -256
cdef double LARGE = 2.0 ** 256
cdef double LOG_LARGE = 256 * log(2.0)
cdef double UNKNOWN_PENALTY = 10.0
cdef double LEAST_EXPECTED = 0.5


cdef double digamma(double x) noexcept nogil:
    """Derivative of the logarithm of the gamma function, by its asymptotic series."""
    cdef double result = 0.0
    cdef double inverse, square, fourth
    while x < 7.0:
        result -= 1.0 / x
        x += 1.0
    x -= 1.0 / 2.0
    inverse = 1.0 / x
    square = inverse * inverse
    fourth = square * square
    return (
        result + log(x) + (1.0 / 24.0) * square - 7.0 / 960.0 * fourth
        + (31.0 / 8064.0) * fourth * square - (127.0 / 30720.0) * fourth * fourth
    )


@cython.final
cdef class UnigramLoop:
    """A Unigram vocabulary in training. Piece 0 stands for what is in no piece.

    Parameters
    ----------
    text : uint32 [n_characters]
        Code points of the words, a 0 behind each.
    starts : uint32 [n_words + 1]
        Where each word starts in `text`, and the end.
    counts : int64 [n_words]
    places, lengths, scores : uint32, uint8, float64 [n_pieces]
        Where each piece stands in `text`, its characters and the logarithm of its probability; the
        first entry is not looked at. Single characters come before longer pieces.
    first, last : uint32 [n_pieces]
        Stretch of `suffixes` that starts with the piece.
    suffixes : uint32 [n]
        Places in `text`.

    Notes
    -----
    `expect` and `segment` may be called by several threads at once, for different parts; everything
    else is for one thread. Memory: 8 bytes a character and 4 an edge.
    """

    cdef readonly object text, places, lengths, scores
    cdef const uint32_t[::1] starts
    cdef const int64_t[::1] counts
    cdef uint64_t* edge_of          # first edge of each place, and the end
    cdef uint32_t* edges
    cdef uint64_t n_text, n_words
    cdef uint32_t n_pieces, longest, longest_word
    cdef double* odds               # probability of each piece
    cdef double* logs
    cdef double unknown_odds, unknown_log

    def __cinit__(
        self, text, const uint32_t[::1] starts, const int64_t[::1] counts, places, lengths, scores,
        const uint32_t[::1] first, const uint32_t[::1] last, const uint32_t[::1] suffixes,
    ):
        cdef const uint32_t[::1] place_of = places
        cdef const uint8_t[::1] length_of = lengths
        cdef const uint32_t[::1] order = np.argsort(lengths, kind="stable").astype(np.uint32)
        cdef uint8_t[::1] cursors
        cdef uint64_t i, total = 0
        cdef uint32_t piece, k, at
        self.text = text
        self.starts = starts
        self.counts = counts
        self.n_text = len(text)
        self.n_words = counts.shape[0]
        self.n_pieces = <uint32_t>len(scores)
        if not 1 <= self.n_pieces < MOST_PIECES:
            raise ValueError("too many pieces")
        if not (place_of.shape[0] == length_of.shape[0] == first.shape[0] == last.shape[0]
                == self.n_pieces):
            raise ValueError("pieces of different numbers")
        if starts.shape[0] != self.n_words + 1:
            raise ValueError("words of different numbers")
        for i in range(self.n_words):
            if not starts[i] < starts[i + 1] <= self.n_text:
                raise ValueError("words that are not in order")
            self.longest_word = max(self.longest_word, starts[i + 1] - starts[i])
        for i in range(suffixes.shape[0]):
            if suffixes[i] >= self.n_text:
                raise ValueError("a suffix outside the text")
        for piece in range(1, self.n_pieces):
            if not (first[piece] <= last[piece] <= suffixes.shape[0]) or length_of[piece] == 0:
                raise ValueError("a piece outside the suffixes")
            if place_of[piece] + <uint64_t>length_of[piece] > self.n_text:
                raise ValueError("a piece outside the text")
            self.longest = max(self.longest, length_of[piece])
            total += last[piece] - first[piece]
        self.edge_of = <uint64_t*>calloc(self.n_text + 2, sizeof(uint64_t))
        self.edges = <uint32_t*>malloc((total + 1) * sizeof(uint32_t))
        if self.edge_of == NULL or self.edges == NULL:
            raise MemoryError("edges")
        cursors = np.zeros(self.n_text + 1, np.uint8)
        with nogil:
            for piece in range(1, self.n_pieces):
                for k in range(first[piece], last[piece]):
                    self.edge_of[suffixes[k] + 1] += 1
            for i in range(self.n_text):
                self.edge_of[i + 1] += self.edge_of[i]
            # shorter pieces first: no place has more than one of a length
            for i in range(self.n_pieces):
                piece = order[i]
                if piece == 0:
                    continue
                for k in range(first[piece], last[piece]):
                    at = suffixes[k]
                    if self.edge_of[at] + cursors[at] < self.edge_of[at + 1]:
                        self.edges[self.edge_of[at] + cursors[at]] = (
                            piece << LENGTH_BITS | length_of[piece]
                        )
                        cursors[at] += 1
        self._take(places, lengths, np.asarray(scores, np.float64))

    def __dealloc__(self):
        free(self.edge_of)
        free(self.edges)
        free(self.odds)
        free(self.logs)

    def _take(self, places, lengths, scores):
        """Make these the pieces; their edges are there already."""
        cdef const double[::1] score_of = scores
        cdef double least = np.inf
        cdef uint32_t i
        self.places = places
        self.lengths = lengths
        self.scores = scores
        self.n_pieces = <uint32_t>len(scores)
        free(self.odds)
        free(self.logs)
        self.odds = <double*>malloc(self.n_pieces * sizeof(double))
        self.logs = <double*>malloc(self.n_pieces * sizeof(double))
        if self.odds == NULL or self.logs == NULL:
            raise MemoryError("pieces")
        with nogil:
            for i in range(1, self.n_pieces):
                least = min(least, score_of[i])
                self.logs[i] = score_of[i]
                self.odds[i] = exp(score_of[i])
        self.unknown_log = least - UNKNOWN_PENALTY
        self.unknown_odds = exp(self.unknown_log)

    def __len__(self):
        return self.n_pieces

    # ---- one part of the words ------------------------------------------------------------------

    cdef double _add_word(
        self, uint64_t start, uint64_t n, double count, double* up_to, double* from_,
        uint8_t* scaled, double* expected,
    ) noexcept nogil:
        """Add what is expected in one word; the logarithm of the word's probability."""
        cdef uint64_t i, k, stop, n_scaled = 0
        cdef uint32_t edge
        cdef double here, there, weight
        memset(up_to, 0, (n + 1) * sizeof(double))
        memset(scaled, 0, n + 1)
        up_to[0] = 1.0
        for i in range(n):
            if up_to[i] < SMALL:
                stop = min(n, i + self.longest)
                for k in range(i, stop + 1):
                    up_to[k] *= LARGE
                scaled[i] = 1
                n_scaled += 1
            here = up_to[i]
            k = self.edge_of[start + i]
            stop = self.edge_of[start + i + 1]
            # edges are in the order of their lengths
            if k == stop or self.edges[k] & MOST_LENGTH != 1:
                up_to[i + 1] += here * self.unknown_odds
            while k < stop:
                edge = self.edges[k]
                up_to[i + (edge & MOST_LENGTH)] += here * self.odds[edge >> LENGTH_BITS]
                k += 1
        from_[n] = 1.0 / up_to[n]
        i = n
        while i > 0:
            if scaled[i]:
                stop = min(n, i - 1 + self.longest)
                for k in range(i, stop + 1):
                    from_[k] *= LARGE
            i -= 1
            here = up_to[i] * count
            k = self.edge_of[start + i]
            stop = self.edge_of[start + i + 1]
            there = 0.0
            if k == stop or self.edges[k] & MOST_LENGTH != 1:
                weight = self.unknown_odds * from_[i + 1]
                expected[0] += here * weight
                there = weight
            while k < stop:
                edge = self.edges[k]
                weight = self.odds[edge >> LENGTH_BITS] * from_[i + (edge & MOST_LENGTH)]
                expected[edge >> LENGTH_BITS] += here * weight
                there += weight
                k += 1
            from_[i] = there
        return log(up_to[n]) - <double>n_scaled * LOG_LARGE

    def expect(self, uint64_t begin, uint64_t end, double[::1] expected):
        """Add to `expected` how often each piece is expected in the words from `begin` to `end`.

        Returns the sum of the logarithms of the words' probabilities, times their counts.
        """
        cdef double* up_to
        cdef double* from_
        cdef uint8_t* scaled
        cdef double total = 0.0
        cdef uint64_t word, room = <uint64_t>self.longest_word + 1
        cdef int code = OK
        if not begin <= end <= self.n_words or expected.shape[0] != self.n_pieces:
            raise ValueError("a part outside the words")
        with nogil:
            up_to = <double*>malloc(room * sizeof(double))
            from_ = <double*>malloc(room * sizeof(double))
            scaled = <uint8_t*>malloc(room)
            if up_to == NULL or from_ == NULL or scaled == NULL:
                code = NO_MEMORY
            else:
                for word in range(begin, end):
                    # the last character of a word is the 0 behind it
                    total += self.counts[word] * self._add_word(
                        self.starts[word], self.starts[word + 1] - self.starts[word] - 1,
                        <double>self.counts[word], up_to, from_, scaled, &expected[0],
                    )
            free(up_to)
            free(from_)
            free(scaled)
        check(code, "expected counts")
        return total

    cdef double _best_path(
        self, uint64_t start, uint64_t n, uint64_t longest, double* best, uint32_t* edge_to
    ) noexcept nogil:
        """Most probable path over `n` characters with pieces of at most `longest`; its logarithm.

        `edge_to` gets the last edge of the best path to each place.
        """
        cdef uint64_t i, k, stop, target
        cdef uint32_t edge
        cdef double here, score
        for i in range(n + 1):
            edge_to[i] = UINT32_MAX
        best[0] = 0.0
        for i in range(n):
            here = best[i]
            k = self.edge_of[start + i]
            stop = self.edge_of[start + i + 1]
            if k == stop or self.edges[k] & MOST_LENGTH != 1:
                score = here + self.unknown_log
                if edge_to[i + 1] == UINT32_MAX or score > best[i + 1]:
                    best[i + 1] = score
                    edge_to[i + 1] = 1
            while k < stop:
                edge = self.edges[k]
                target = i + (edge & MOST_LENGTH)
                if target > n or (edge & MOST_LENGTH) > longest:
                    break
                score = here + self.logs[edge >> LENGTH_BITS]
                if edge_to[target] == UINT32_MAX or score > best[target]:
                    best[target] = score
                    edge_to[target] = edge
                k += 1
        return best[n]

    def segment(self, uint64_t begin, uint64_t end, double[::1] found):
        """Add to `found` how often each piece is in the best segmentations of words.

        Returns the number of pieces in them, times the words' counts.
        """
        cdef double* best
        cdef uint32_t* edge_to
        cdef uint64_t word, at, room = <uint64_t>self.longest_word + 1
        cdef int64_t total = 0
        cdef int code = OK
        if not begin <= end <= self.n_words or found.shape[0] != self.n_pieces:
            raise ValueError("a part outside the words")
        with nogil:
            best = <double*>malloc(room * sizeof(double))
            edge_to = <uint32_t*>malloc(room * sizeof(uint32_t))
            if best == NULL or edge_to == NULL:
                code = NO_MEMORY
            else:
                for word in range(begin, end):
                    at = self.starts[word + 1] - self.starts[word] - 1
                    self._best_path(self.starts[word], at, MOST_LENGTH, best, edge_to)
                    while at > 0:
                        found[edge_to[at] >> LENGTH_BITS] += <double>self.counts[word]
                        at -= edge_to[at] & MOST_LENGTH
                        total += self.counts[word]
            free(best)
            free(edge_to)
        check(code, "segmentation")
        return total

    # ---- between iterations ---------------------------------------------------------------------

    def maximise(self, const double[::1] expected):
        """Set the scores from expected counts; pieces expected less than half a time go."""
        cdef double total = 0.0, log_total
        cdef uint32_t i
        if expected.shape[0] != self.n_pieces:
            raise ValueError("expected counts of other pieces")
        counts = np.asarray(expected)
        kept = ~(counts < LEAST_EXPECTED)
        kept[0] = True
        cdef const uint8_t[::1] keeps = kept.view(np.uint8)
        scores = np.full(self.n_pieces, np.nan)
        cdef double[::1] score_of = scores
        with nogil:
            for i in range(1, self.n_pieces):
                if keeps[i]:
                    total += expected[i]
            log_total = digamma(total)
            for i in range(1, self.n_pieces):
                if keeps[i]:
                    score_of[i] = digamma(expected[i]) - log_total
        if kept.all():
            self._take(self.places, self.lengths, scores)
        else:
            self._keep(np.flatnonzero(kept), scores)

    def _keep(self, ids, scores):
        """Keep the pieces `ids`, in this order, and drop the edges of all others."""
        cdef const int64_t[::1] id_of = ids
        cdef uint64_t i, k, n = 0, begin, stop
        cdef uint32_t edge
        becomes = np.full(self.n_pieces, UINT32_MAX, np.uint32)
        cdef uint32_t[::1] new = becomes
        for i in range(id_of.shape[0]):
            new[id_of[i]] = <uint32_t>i
        with nogil:
            begin = 0
            for i in range(self.n_text):
                stop = self.edge_of[i + 1]
                for k in range(begin, stop):
                    edge = self.edges[k]
                    if new[edge >> LENGTH_BITS] != UINT32_MAX:
                        self.edges[n] = (
                            new[edge >> LENGTH_BITS] << LENGTH_BITS | (edge & MOST_LENGTH)
                        )
                        n += 1
                begin = stop
                self.edge_of[i + 1] = n
        self._take(self.places[ids], self.lengths[ids], scores[ids])

    def prune(self, const double[::1] found, int64_t goal):
        """Drop the pieces whose loss costs least, down to `goal`.

        Parameters
        ----------
        found : float64 [n_pieces]
            How often each is in the best segmentations.
        goal : int
            Pieces to keep; those that nothing else can spell stay in any case.

        Notes
        -----
        The loss is estimated as if every place of a piece were written as the piece itself would be
        without it.
        """
        cdef const uint32_t[::1] place_of = self.places
        cdef const uint8_t[::1] length_of = self.lengths
        cdef double[MOST_LENGTH + 1] best
        cdef uint32_t[MOST_LENGTH + 1] edge_to
        cdef double total = 0.0, log_total, log_new, alternative, words = 0.0
        cdef uint64_t at, n_alternatives
        cdef uint32_t i
        if found.shape[0] != self.n_pieces:
            raise ValueError("counts of other pieces")
        # 0: drop, 1: keep, 2: a candidate with a loss
        fates = np.zeros(self.n_pieces, np.uint8)
        losses = np.zeros(self.n_pieces, np.float64)
        cdef uint8_t[::1] fate = fates
        cdef double[::1] loss = losses
        fate[0] = 1
        with nogil:
            for at in range(self.n_words):
                words += <double>self.counts[at]
            for i in range(self.n_pieces):
                total += found[i]
            log_total = log(total)
            for i in range(1, self.n_pieces):
                if length_of[i] == 1:
                    fate[i] = 1
                    continue
                alternative = self._best_path(
                    place_of[i], length_of[i], length_of[i] - 1, best, edge_to
                )
                if alternative >= self.logs[i]:
                    # its own best segmentation is another one
                    fate[i] = found[i] != 0.0
                    continue
                if found[i] == 0.0:
                    continue
                n_alternatives = 0
                at = length_of[i]
                while at > 0:
                    n_alternatives += 1
                    at -= edge_to[at] & MOST_LENGTH
                log_new = log(total + found[i] * <double>(n_alternatives - 1))
                alternative = 0.0
                at = length_of[i]
                while at > 0:
                    alternative += log(found[edge_to[at] >> LENGTH_BITS] + found[i]) - log_new
                    at -= edge_to[at] & MOST_LENGTH
                fate[i] = 2
                loss[i] = found[i] / words * (log(found[i]) - log_total - alternative)
        kept = np.flatnonzero(fates == 1)
        candidates = np.flatnonzero(fates == 2)
        candidates = candidates[np.argsort(-losses[candidates], kind="stable")]
        self._keep(np.concatenate([kept, candidates[:max(0, goal - len(kept))]]), self.scores)

    def pieces(self):
        """All pieces but the first with their scores, in their order."""
        cdef Py_ssize_t i
        data = np.asarray(self.text).astype("<u4").tobytes()
        out = []
        for i in range(1, self.n_pieces):
            start = int(self.places[i])
            stop = start + int(self.lengths[i])
            out.append((data[4 * start:4 * stop].decode("utf-32-le"), float(self.scores[i])))
        return out

"""From counted words to Unigram pieces: seeds, expectation and maximisation, pruning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from rustllm._core.unigram_seeds import Substrings
from rustllm._core.unigram_train import UnigramLoop

__all__ = ["learn_pieces", "seed_loop"]

_PARTS = (8, 64)  # fewest and most parts that the words are cut into, whatever the threads
_PART_SUMS = 1 << 22  # sums that all parts keep together


def seed_loop(words: dict[str, int], max_piece_length: int, seed_size: int) -> UnigramLoop | None:
    """The loop over `words` with the seeds for its pieces; None if there is no character.

    Seeds are all characters, by falling counts, and the substrings that occur more than once in the
    distinct words, by the characters that they cover, falling.
    """
    joined = "".join([f"{word}\0" for word in words])
    if not joined.strip("\0"):
        return None
    text = np.frombuffer(joined.encode("utf-32-le"), "<u4").astype(np.uint32, copy=False)
    starts = starts_of(words)
    sizes = np.diff(starts)
    counts = np.fromiter(words.values(), np.int64, len(words))
    found = Substrings(text, max_piece_length)
    # characters: stretches of suffixes with the same first one
    first = text[found.suffixes]
    begins = np.flatnonzero(np.concatenate([[True], first[1:] != first[:-1]]))
    ends = np.append(begins[1:], len(first))
    totals = np.bincount(text, np.repeat(counts, sizes))[first[begins]]
    order = np.lexsort((-first[begins].astype(np.int64), -totals))
    begins, ends, totals = begins[order], ends[order], totals[order]
    # longer ones
    covered = (found.ends - found.begins).astype(np.int64) * found.depths
    order = np.lexsort((-found.depths.astype(np.int64), -found.begins.astype(np.int64), -covered))
    order = order[: max(1, seed_size - len(begins))]
    # entry 0 is no piece
    firsts = np.concatenate([[0], begins, found.begins[order]]).astype(np.uint32)
    lasts = np.concatenate([[0], ends, found.ends[order]]).astype(np.uint32)
    lengths = np.concatenate([[0], np.ones(len(totals)), found.depths[order]]).astype(np.uint8)
    weights = np.concatenate([totals, covered[order].astype(np.float64)])
    scores = np.log(weights) - np.log(weights.sum())
    scores = np.concatenate([[np.nan], scores])
    places = found.suffixes[firsts]
    return UnigramLoop(
        text,
        starts.astype(np.uint32),
        counts,
        places,
        lengths,
        scores,
        firsts,
        lasts,
        found.suffixes,
    )


class _Parts:
    """The words in parts of about as many characters, and the threads that work on them."""

    def __init__(self, starts: np.ndarray[Any, Any], n_threads: int) -> None:
        self._starts = starts
        self._n_threads = n_threads

    def add_up(
        self, n_pieces: int, work: Callable[[int, int, Any], float]
    ) -> tuple[np.ndarray[Any, Any], float]:
        """Sums of what `work` adds for each part, added in the order of the parts."""
        n_words = len(self._starts) - 1
        n_parts = min(max(_PART_SUMS // n_pieces, _PARTS[0]), _PARTS[1], n_words)
        places = np.linspace(0, int(self._starts[-1]), n_parts + 1)
        cuts = np.searchsorted(self._starts, places)
        cuts[0], cuts[-1] = 0, n_words
        sums = np.zeros((n_parts, n_pieces))
        results = [0.0] * n_parts
        todo = iter(range(n_parts))
        take = threading.Lock()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                while not failures:
                    with take:
                        part = next(todo, None)
                    if part is None:
                        return
                    results[part] = work(int(cuts[part]), int(cuts[part + 1]), sums[part])
            except BaseException as error:
                failures.append(error)

        others = [
            threading.Thread(target=run, daemon=True)
            for _ in range(min(self._n_threads, n_parts) - 1)
        ]
        for other in others:
            other.start()
        run()
        for other in others:
            other.join()
        if failures:
            raise failures[0]
        total = sums[0]
        for part in range(1, n_parts):
            total += sums[part]
        return total, sum(results)


def learn_pieces(
    words: dict[str, int],
    vocab_size: int,
    *,
    max_piece_length: int = 16,
    shrinking_factor: float = 0.75,
    n_sub_iterations: int = 2,
    seed_size: int = 1_000_000,
    n_threads: int = 1,
    report: Callable[[int], object] | None = None,
) -> list[tuple[str, float]]:
    """Pieces with their scores, about a tenth more than `vocab_size`, by falling use.

    Parameters
    ----------
    words : dict of str to int
        Words and their counts; the order decides only about bits of the last place.
    report : callable, optional
        Called with the number of pieces after each iteration.

    Notes
    -----
    Time O(n log n) for `n` characters of distinct words, and for each iteration that of the edges
    left: the occurrences of pieces in distinct words.
    """
    loop = seed_loop(words, max_piece_length, seed_size)
    if loop is None:
        return []
    parts = _Parts(starts_of(words), n_threads)
    goal = vocab_size * 11 // 10
    while True:
        for _ in range(n_sub_iterations):
            expected, _total = parts.add_up(len(loop), loop.expect)
            loop.maximise(expected)
            if report is not None:
                report(len(loop))
        if len(loop) <= goal:
            break
        before = len(loop)
        found, _total = parts.add_up(len(loop), loop.segment)
        loop.prune(found, max(goal, int(before * shrinking_factor)))
        if len(loop) == before:
            break  # nothing is left that may go
    pieces: list[tuple[str, float]] = loop.pieces()
    return pieces


def starts_of(words: Iterable[str]) -> np.ndarray[Any, Any]:
    """Where each word starts if all lie end to end with one character behind each."""
    sizes = [len(word) + 1 for word in words]
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

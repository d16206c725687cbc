"""Merges of marked pieces in plain Python: what the compiled loop is held against."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

__all__ = ["merge_words"]


def merge_words(
    words: list[tuple[list[int], int]],
    vocab: dict[str, int],
    vocab_size: int,
    min_frequency: int = 0,
    prefix: str = "",
) -> list[tuple[int, int, int]]:
    """Merge the most frequent pair until `vocab` has `vocab_size` tokens.

    Parameters
    ----------
    words : list of (list of int, int)
        Symbols of each distinct word, which this changes, and its count.
    vocab : dict of str to int
        Gets the new tokens; one that is there already keeps its id.
    prefix : str
        What the right half of a merge loses.

    Returns
    -------
    list of (int, int, int)
        Left, right, made.

    Notes
    -----
    Ties go to the smaller pair of ids. The heap is lazy: counts that fell are corrected when they
    come up (Zouhar et al. 2023).
    """
    texts = {id: text for text, id in vocab.items()}
    counts: dict[tuple[int, int], int] = {}
    places: dict[tuple[int, int], set[int]] = {}
    for at, (symbols, count) in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            counts[pair] = counts.get(pair, 0) + count
            places.setdefault(pair, set()).add(at)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapify(heap)
    merges: list[tuple[int, int, int]] = []
    while heap and len(vocab) < vocab_size:
        count, pair = heappop(heap)
        now = counts.get(pair, 0)
        if now != -count:
            if now > 0:
                heappush(heap, (-now, pair))
            continue
        if now < 1 or now < min_frequency:
            break
        text = texts[pair[0]] + texts[pair[1]].removeprefix(prefix)
        made = vocab.setdefault(text, len(vocab))
        texts[made] = text
        merges.append((*pair, made))
        changed: set[tuple[int, int]] = set()
        for at in places.pop(pair):
            symbols, weight = words[at]
            for old in zip(symbols, symbols[1:]):
                counts[old] -= weight
            _join(symbols, pair, made)
            for new in zip(symbols, symbols[1:]):
                counts[new] = counts.get(new, 0) + weight
                if made in new:
                    places.setdefault(new, set()).add(at)
                    changed.add(new)
        counts.pop(pair, None)
        for new in changed:
            heappush(heap, (-counts[new], new))
    return merges


def _join(symbols: list[int], pair: tuple[int, int], made: int) -> None:
    """Put `made` in place of each `pair`, from left to right."""
    left, right = pair
    out = 0
    at = 0
    n = len(symbols)
    while at < n:
        if symbols[at] == left and at + 1 < n and symbols[at + 1] == right:
            symbols[out] = made
            at += 2
        else:
            symbols[out] = symbols[at]
            at += 1
        out += 1
    del symbols[out:]

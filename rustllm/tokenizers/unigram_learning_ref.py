"""Unigram training by the book, in plain Python: what `unigram_learning` is held against."""

from __future__ import annotations

import math
from collections import Counter

__all__ = ["learn_pieces_ref", "seeds_ref"]

Scores = dict[str, float]
_UNKNOWN = ""


def seeds_ref(words: dict[str, int], longest: int, seed_size: int) -> list[tuple[str, float]]:
    """Characters by count, then repeated substrings by the characters they cover."""
    letters: Counter[str] = Counter()
    followers: dict[str, set[str]] = {}
    occurrences: Counter[str] = Counter()
    for word, count in words.items():
        for char in word.replace("\0", ""):
            letters[char] += count
        for part in word.split("\0"):
            for start in range(len(part)):
                for end in range(start + 2, min(start + longest, len(part)) + 1):
                    piece = part[start:end]
                    occurrences[piece] += 1
                    followers.setdefault(piece, set()).add(part[end : end + 1])
    pieces = sorted(((count, char) for char, count in letters.items()), reverse=True)
    repeated = [
        (count * len(piece), piece)
        for piece, count in occurrences.items()
        if len(followers[piece]) > 1
    ]
    repeated.sort(reverse=True)
    pieces += repeated[: max(1, seed_size - len(pieces))]
    total = math.log(sum(weight for weight, _ in pieces))
    return [(piece, math.log(weight) - total) for weight, piece in pieces]


def learn_pieces_ref(
    words: dict[str, int],
    vocab_size: int,
    *,
    max_piece_length: int = 16,
    shrinking_factor: float = 0.75,
    n_sub_iterations: int = 2,
    seed_size: int = 1_000_000,
) -> list[tuple[str, float]]:
    """Arguments and result as those of `unigram_learning.learn_pieces`."""
    scores = dict(seeds_ref(words, max_piece_length, seed_size))
    goal = vocab_size * 11 // 10
    while scores:
        for _ in range(n_sub_iterations):
            scores = _maximised(scores, _expected(words, scores))
        if len(scores) + 1 <= goal:
            break
        before = len(scores)
        scores = _pruned(words, scores, max(goal, int((before + 1) * shrinking_factor)))
        if len(scores) == before:
            break
    return list(scores.items())


def _edges(text: str, scores: Scores, longest: int) -> list[tuple[int, int, str, float]]:
    """Start, end, piece and score of everything that a path over `text` may take."""
    least = min(scores.values()) - 10.0
    edges = []
    for start in range(len(text)):
        for end in range(start + 1, min(start + longest, len(text)) + 1):
            piece = text[start:end]
            if piece in scores:
                edges.append((start, end, piece, scores[piece]))
            elif end == start + 1:
                edges.append((start, end, _UNKNOWN, least))
    return edges


def _add(a: float, b: float) -> float:
    """Logarithm of the sum of two numbers that are given by theirs."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def _expected(words: dict[str, int], scores: Scores) -> dict[str, float]:
    found = dict.fromkeys(scores, 0.0)
    longest = max(map(len, scores))
    for word, count in words.items():
        edges = _edges(word, scores, longest)
        up_to = [0.0] + [-math.inf] * len(word)
        for start, end, _, score in edges:
            up_to[end] = _add(up_to[end], up_to[start] + score)
        after = [-math.inf] * len(word) + [0.0]
        for start, end, piece, score in reversed(edges):
            after[start] = _add(after[start], after[end] + score)
            if piece:
                share = up_to[start] + score + after[end] - up_to[-1]
                found[piece] += count * math.exp(share)
    return found


def _digamma(x: float) -> float:
    result = 0.0
    while x < 7.0:
        result -= 1.0 / x
        x += 1.0
    x -= 0.5
    y = 1.0 / (x * x)
    return result + math.log(x) + y / 24 - 7 / 960 * y**2 + 31 / 8064 * y**3 - 127 / 30720 * y**4


def _maximised(scores: Scores, found: dict[str, float]) -> Scores:
    kept = {piece: count for piece, count in found.items() if count >= 0.5}
    total = _digamma(sum(kept.values())) if kept else 0.0
    return {piece: _digamma(count) - total for piece, count in kept.items()}


def _best(text: str, scores: Scores, longest: int) -> tuple[list[str], float]:
    best = [0.0] + [-math.inf] * len(text)
    last: list[tuple[int, str]] = [(0, "")] * (len(text) + 1)
    for start, end, piece, score in _edges(text, scores, longest):
        if best[start] + score > best[end]:
            best[end] = best[start] + score
            last[end] = (start, piece)
    path = []
    end = len(text)
    while end:
        end, piece = last[end]
        path.append(piece)
    return path, best[-1]


def _pruned(words: dict[str, int], scores: Scores, goal: int) -> Scores:
    found: Counter[str] = Counter()
    longest = max(map(len, scores))
    for word, count in words.items():
        for piece in _best(word, scores, longest)[0]:
            found[piece] += count
    total = sum(found.values())
    n_words = sum(words.values())
    kept = []
    candidates: list[tuple[float, int, str]] = []
    for piece, score in scores.items():
        if len(piece) == 1:
            kept.append(piece)
            continue
        others, alternative = _best(piece, scores, len(piece) - 1)
        count = found[piece]
        if alternative >= score:
            if count:
                kept.append(piece)
        elif count:
            without = math.log(total + count * (len(others) - 1))
            loss = math.log(count) - math.log(total)
            loss -= sum(math.log(found[other] + count) - without for other in others)
            candidates.append((-count / n_words * loss, len(candidates), piece))
    kept += [piece for _, _, piece in sorted(candidates)[: max(0, goal - 1 - len(kept))]]
    return {piece: scores[piece] for piece in kept}

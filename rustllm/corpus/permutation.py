"""A shuffled order without a list of it: which item stands at a place, in constant memory.

A Feistel network over the two halves of the number is a permutation of a power of four, whatever
its round function; a number that falls outside the range is sent through again until it falls
inside (Black and Rogaway 2002, cycle walking), which takes four rounds on average at most.
"""

from __future__ import annotations

from rustllm.errors import ArgumentError, OutOfRangeError

__all__ = ["Permutation"]

_ROUNDS = 6
_MASK = (1 << 64) - 1


class Permutation:
    """A permutation of ``range(n)`` that a seed decides.

    Parameters
    ----------
    n : int
    seed : int

    Notes
    -----
    Immutable. An access costs a few microseconds, whatever `n` is.

    Examples
    --------
    >>> from rustllm.corpus.permutation import Permutation
    >>> order = Permutation(10, seed=1)
    >>> sorted(order[i] for i in range(10)) == list(range(10))
    True
    """

    def __init__(self, n: int, seed: int) -> None:
        if n < 0:
            raise ArgumentError(f"a permutation of {n} items")
        self._n = n
        self._half = max(1, ((max(n, 2) - 1).bit_length() + 1) // 2)
        self._keys = tuple(_mix(_mix(seed & _MASK) + i) for i in range(_ROUNDS))

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < self._n:
            raise OutOfRangeError(f"place {place} of {self._n}", index=place)
        half = self._half
        mask = (1 << half) - 1
        value = place
        while True:
            left, right = value >> half, value & mask
            for key in self._keys:
                left, right = right, left ^ (_mix(right + key) & mask)
            value = left << half | right
            if value < self._n:
                return value


def _mix(x: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31

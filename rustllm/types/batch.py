"""Many token sequences in two arrays: one of ids, one of borders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, overload

import numpy as np

from rustllm.errors import ArgumentError, OutOfRangeError
from rustllm.types.aliases import OffsetArray, TokenArray

__all__ = ["TokenBatch"]


class TokenBatch:
    """Token ids of many texts, end to end, with the borders beside them.

    Sequence ``i`` is ``ids[offsets[i]:offsets[i + 1]]``; reading it copies nothing. This is the
    shape in which corpora are stored and in which an encoder is fastest: two allocations for any
    number of texts.

    Parameters
    ----------
    ids : ndarray of uint32, shape [n_tokens]
    offsets : ndarray of int64, shape [n_sequences + 1]
        Starts with 0, never falls, ends with ``n_tokens``.

    Raises
    ------
    ArgumentError
        The arrays have the wrong type or shape, or the offsets break the rule above.

    Notes
    -----
    Immutable: the arrays are made read-only views, so any number of threads may read one.

    Examples
    --------
    >>> from rustllm.types import TokenBatch
    >>> batch = TokenBatch.from_sequences([[1, 2, 3], [], [4]])
    >>> len(batch), batch.n_tokens, batch[0].tolist(), batch.tolist()
    (3, 4, [1, 2, 3], [[1, 2, 3], [], [4]])
    """

    __slots__ = ("ids", "offsets")

    ids: TokenArray
    offsets: OffsetArray

    def __init__(self, ids: TokenArray, offsets: OffsetArray) -> None:
        if ids.dtype != np.uint32 or ids.ndim != 1:
            raise ArgumentError(
                f"ids must be uint32 of one dimension, got {ids.dtype} of {ids.ndim}", key="ids"
            )
        if offsets.dtype != np.int64 or offsets.ndim != 1 or len(offsets) == 0:
            raise ArgumentError(
                "offsets must be int64 of one dimension with at least one entry", key="offsets"
            )
        if offsets[0] != 0 or offsets[-1] != len(ids) or bool((offsets[1:] < offsets[:-1]).any()):
            raise ArgumentError(
                "offsets must start with 0, never fall, and end with the number of ids",
                key="offsets",
            )
        self.ids = ids.view()
        self.ids.flags.writeable = False
        self.offsets = offsets.view()
        self.offsets.flags.writeable = False

    @classmethod
    def from_sequences(cls, sequences: Iterable[Iterable[int] | TokenArray]) -> TokenBatch:
        """Join `sequences` of ids into one batch; O(n_tokens)."""
        parts = [as_token_array(sequence) for sequence in sequences]
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        ids = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint32)
        return cls(ids, offsets)

    @property
    def n_tokens(self) -> int:
        """Number of ids in all sequences."""
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes that both arrays take."""
        return int(self.ids.nbytes + self.offsets.nbytes)

    def lengths(self) -> OffsetArray:
        """Number of ids of each sequence, ``int64 [n_sequences]``."""
        return np.diff(self.offsets)

    def tolist(self) -> list[list[int]]:
        """All sequences as lists of Python integers."""
        return [sequence.tolist() for sequence in self]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[TokenArray]:
        ids = self.ids
        borders = self.offsets.tolist()
        start = 0
        for end in borders[1:]:
            yield ids[start:end]
            start = end

    @overload
    def __getitem__(self, index: int) -> TokenArray: ...
    @overload
    def __getitem__(self, index: slice) -> TokenBatch: ...
    def __getitem__(self, index: int | slice) -> TokenArray | TokenBatch:
        n = len(self)
        if isinstance(index, slice):
            start, stop, step = index.indices(n)
            if step != 1:
                return TokenBatch.from_sequences(self[i] for i in range(start, stop, step))
            offsets = self.offsets[start : max(start, stop) + 1]
            return TokenBatch(self.ids[offsets[0] : offsets[-1]], offsets - offsets[0])
        if not -n <= index < n:
            raise OutOfRangeError(f"sequence {index} of a batch of {n}", index=index)
        index %= n
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenBatch):
            return NotImplemented
        return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.ids, other.ids)

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenBatch, (np.asarray(self.ids), np.asarray(self.offsets))

    def __repr__(self) -> str:
        return f"TokenBatch({len(self)} sequences, {self.n_tokens} tokens)"


def as_token_array(ids: Iterable[int] | TokenArray) -> TokenArray:
    """Return `ids` as ``uint32 [n]``, without a copy when they are that already.

    Raises
    ------
    ArgumentError
        An id is negative, does not fit 32 bits, or is no integer; or the array is not flat.

    Examples
    --------
    >>> from rustllm.types import as_token_array
    >>> as_token_array(range(3))
    array([0, 1, 2], dtype=uint32)
    """
    if isinstance(ids, np.ndarray):
        array = ids
    else:
        array = np.asarray(ids if isinstance(ids, list | tuple | range) else list(ids))
        if array.size == 0 and array.ndim == 1:
            return np.empty(0, dtype=np.uint32)
    if array.ndim != 1:
        raise ArgumentError(f"token ids must have one dimension, got {array.ndim}")
    if array.dtype == np.uint32:
        return array
    if array.dtype.kind not in "iu":
        raise ArgumentError(
            f"token ids must be integers, got {array.dtype}", hint="ids lie in 0 .. 2**32 - 1"
        )
    if array.size and (int(array.min()) < 0 or int(array.max()) > 0xFFFFFFFF):
        raise ArgumentError("a token id lies outside 0 .. 2**32 - 1")
    return array.astype(np.uint32)

"""Training samples: windows of a corpus in an order that a seed decides, resumable exactly."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from rustllm.corpus.permutation import Permutation
from rustllm.corpus.reader import Corpus
from rustllm.errors import ArgumentError, OutOfRangeError, StateError

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["Samples"]

Array = np.ndarray[Any, Any]


class Samples(Sequence[Array]):
    """Windows of equal length over all ids of a corpus.

    Parameters
    ----------
    corpus : Corpus or path
    length : int
        Ids of a window. For next-token training take one more than the model reads: inputs are
        ``window[:-1]``, targets ``window[1:]``.
    stride : int, optional
        From one window's start to the next one's; `length` by default.
    seed : int, optional
        Shuffles the windows; without it they come in their order.
    epoch : int
        Each has an order of its own.
    rank, world : int
        This is the `rank`-th of `world` processes that share the windows out: every `world`-th in
        the order, the same number for each.

    Notes
    -----
    A window is a view of the mapped file: nothing is copied or read before it is used. The order is
    computed, not stored, so an epoch of any size starts at once. Immutable; threads, forked and
    spawned processes may share one.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from rustllm import corpus
    >>> from rustllm.testing import ByteTokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source = pathlib.Path(folder, "in.txt")
    ...     _ = source.write_text("abcdefgh")
    ...     made = corpus.tokenize([source], pathlib.Path(folder, "out"), ByteTokenizer())
    ...     samples = corpus.Samples(made, 3)
    ...     len(samples), samples[1].tolist()
    (2, [100, 101, 102])
    """

    def __init__(
        self,
        corpus: Corpus | PathLikeStr,
        length: int,
        *,
        stride: int | None = None,
        seed: int | None = None,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        stride = length if stride is None else stride
        if length < 1 or stride < 1:
            raise ArgumentError(f"windows of {length} ids, {stride} apart")
        if not 0 <= rank < world:
            raise ArgumentError(f"rank {rank} of {world}")
        self.corpus = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
        self.length, self.stride = length, stride
        self.seed, self.epoch, self.rank, self.world = seed, epoch, rank, world
        n_ids = len(self.corpus.ids)
        self._n_windows = (n_ids - length) // stride + 1 if n_ids >= length else 0
        self._n = self._n_windows // world
        # Two seeds far apart for neighbouring epochs.
        self._order = (
            None if seed is None else Permutation(self._n_windows, seed * 0x10001 + epoch * 0x3001F)
        )

    def __len__(self) -> int:
        return self._n

    def window_of(self, index: int) -> int:
        """Return which window of the corpus the sample is."""
        place = index * self.world + self.rank
        return place if self._order is None else self._order[place]

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> list[Array]: ...
    def __getitem__(self, index: int | slice) -> Array | list[Array]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._n))]
        index = operator.index(index)
        if not -self._n <= index < self._n:
            raise OutOfRangeError(f"sample {index} of {self._n}", index=index)
        start = self.window_of(index % self._n) * self.stride
        window: Array = self.corpus.ids[start : start + self.length]
        return window

    def batch(self, start: int, size: int, dtype: Any = None) -> Array:
        """Return samples `start` to ``start + size`` as one array, a copy.

        Parameters
        ----------
        start, size : int
        dtype : dtype, optional
            That of the corpus by default.

        Returns
        -------
        ndarray
            ``[size, length]``.
        """
        if not 0 <= start <= start + size <= self._n:
            raise OutOfRangeError(f"samples {start} to {start + size} of {self._n}", index=start)
        out = np.empty((size, self.length), self.corpus.ids.dtype if dtype is None else dtype)
        for row in range(size):
            out[row] = self[start + row]
        return out

    def batches(self, size: int, *, start: int = 0, dtype: Any = None) -> Iterator[Array]:
        """Yield whole batches from the `start`-th on; a last one that is too short is left out."""
        if size < 1 or start < 0:
            raise ArgumentError(f"batches of {size}, from {start} on")
        for number in range(start, self._n // size):
            yield self.batch(number * size, size, dtype)

    def state(self, index: int) -> dict[str, Any]:
        """Return plain values from which `resume` goes on at sample `index`."""
        return {
            "plan": self.corpus.manifest["plan"], "length": self.length, "stride": self.stride,
            "seed": self.seed, "epoch": self.epoch, "rank": self.rank, "world": self.world,
            "index": index,
        }  # fmt: skip

    @classmethod
    def resume(cls, corpus: Corpus | PathLikeStr, state: dict[str, Any]) -> tuple[Samples, int]:
        """Return the samples that `state` was of, and the index to go on at.

        Raises
        ------
        StateError
            The corpus is another one.
        """
        rest = dict(state)
        plan, index = rest.pop("plan"), rest.pop("index")
        samples = cls(corpus, **rest)
        if samples.corpus.manifest["plan"] != plan:
            raise StateError(
                "the corpus is not the one that was being read", path=samples.corpus.folder
            )
        return samples, int(index)

    def __reduce__(self) -> tuple[Any, ...]:
        options = (self.length, self.stride, self.seed, self.epoch, self.rank, self.world)
        return _rebuild, (self.corpus, *options)

    def __repr__(self) -> str:
        return f"<Samples: {self._n} windows of {self.length} ids>"


def _rebuild(
    corpus: Corpus, length: int, stride: int, seed: int | None, epoch: int, rank: int, world: int
) -> Samples:
    return Samples(corpus, length, stride=stride, seed=seed, epoch=epoch, rank=rank, world=world)

"""PyTorch data sets over a corpus: random access, or a stream of batches resumable exactly.

from torch.utils.data import DataLoader
from rustllm.integrations.torch import BatchStream

stream = BatchStream("corpus", 1025, batch_size=16, seed=1, start=steps_done)
for batch in DataLoader(stream, batch_size=None, num_workers=2):   # int64 [16, 1025]
    inputs, targets = batch[:, :-1], batch[:, 1:]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm.corpus.samples import Samples
from rustllm.errors import ArgumentError
from rustllm.integrations import need

if TYPE_CHECKING:
    from rustllm.corpus import Corpus
    from rustllm.types import PathLikeStr

__all__ = ["BatchStream", "WindowDataset"]

torch: Any = need("torch", "torch")
need("torch.utils.data", "torch")


class WindowDataset(torch.utils.data.Dataset):  # type: ignore[misc]
    """Windows of a corpus by index, for a ``DataLoader`` with a sampler of its own.

    Parameters
    ----------
    corpus : Corpus or path
    length : int
    **options
        ``stride``, ``seed``, ``epoch``, ``rank``, ``world``, as for `rustllm.corpus.Samples`.

    Notes
    -----
    Items are int64 tensors ``[length]``. Works with any number of workers, forked or spawned: each
    maps the files for itself.
    """

    def __init__(self, corpus: Corpus | PathLikeStr, length: int, **options: Any) -> None:
        self.samples = Samples(corpus, length, **options)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return torch.from_numpy(self.samples[index].astype(np.int64))


class BatchStream(torch.utils.data.IterableDataset):  # type: ignore[misc]
    """Whole batches in an order that does not depend on the number of workers.

    Parameters
    ----------
    corpus : Corpus or path
    length : int
    batch_size : int
    start : int
        Batches to leave out at the beginning: as many as were consumed before.
    **options
        ``stride``, ``seed``, ``epoch``, ``rank``, ``world``, as for `rustllm.corpus.Samples`.

    Notes
    -----
    Give it to ``DataLoader(stream, batch_size=None)``. Worker w of W makes batches w, w + W, ...,
    and the loader takes one from each in turn, so what arrives is batch `start`, `start` + 1, ...
    whatever W is. A run that counts the batches it took resumes at the exact sample.
    """

    def __init__(
        self,
        corpus: Corpus | PathLikeStr,
        length: int,
        *,
        batch_size: int,
        start: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if batch_size < 1 or start < 0:
            raise ArgumentError(f"batches of {batch_size}, from {start} on")
        self.samples = Samples(corpus, length, **options)
        self.batch_size, self.start = batch_size, start

    def __len__(self) -> int:
        return max(0, len(self.samples) // self.batch_size - self.start)

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(self.start + first, self.start + len(self), step):
            batch = self.samples.batch(number * self.batch_size, self.batch_size, np.int64)
            yield torch.from_numpy(batch)

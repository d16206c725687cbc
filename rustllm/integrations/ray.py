"""Corpora on a Ray cluster: tasks scheduled by Ray, units committed by us; a stage for Ray Data.

from rustllm.corpus import tokenize
from rustllm.integrations.ray import scheduler

tokenize(inputs, "/shared/corpus", tokenizer, scheduler=scheduler())
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm.errors import ArgumentError
from rustllm.integrations import need

if TYPE_CHECKING:
    from rustllm.corpus.driver import Scheduler
    from rustllm.corpus.plan import Unit
    from rustllm.corpus.units import UnitRunner
    from rustllm.traits import Tokenizer

__all__ = ["TokenizeBatch", "scheduler"]


def scheduler(*, in_flight: int | None = None, **options: Any) -> Scheduler:
    """Return a scheduler that does units as Ray tasks.

    Parameters
    ----------
    in_flight : int, optional
        Tasks handed to Ray at once; by default four for each CPU of the cluster.
    **options
        For ``ray.remote``: ``num_cpus``, ``resources``, ``max_retries``... A task whose worker dies
        is done again, three times unless `max_retries` says otherwise.

    Notes
    -----
    The tokenizer travels to each worker once, through the object store. `ray.init` is the caller's
    business; without it Ray starts on this machine alone.
    """
    if in_flight is not None and in_flight < 1:
        raise ArgumentError(f"in_flight must be at least 1, got {in_flight}")
    ray = need("ray", "ray")

    def schedule(runner: UnitRunner, units: list[Unit]) -> Iterator[dict[str, Any]]:
        if not ray.is_initialized():
            ray.init()
        limit = in_flight or 4 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        remote = ray.remote(**options)(_run) if options else ray.remote(_run)
        shared = ray.put(runner)
        waiting = iter(units)
        running = [remote.remote(shared, unit) for _, unit in zip(range(limit), waiting)]
        try:
            while running:
                done, running = ray.wait(running, num_returns=1)
                running += [remote.remote(shared, unit) for _, unit in zip(done, waiting)]
                yield from ray.get(done)
        finally:
            for task in running:
                ray.cancel(task, force=True)

    return schedule


def _run(runner: UnitRunner, unit: Unit) -> dict[str, Any]:
    return runner(unit)


class TokenizeBatch:
    """A stage for ``ray.data.Dataset.map_batches``: adds a column of ids to batches of text.

    Parameters
    ----------
    tokenizer : Tokenizer, or callable
        A callable is called once in each worker, and returns the tokenizer.
    text, ids : str
        Names of the columns read and written.
    end_id : int, optional
        Put after the ids of every text.

    Examples
    --------
    >>> from rustllm.integrations.ray import TokenizeBatch
    >>> from rustllm.testing import ByteTokenizer
    >>> stage = TokenizeBatch(ByteTokenizer())
    >>> [ids.tolist() for ids in stage({"text": ["ab", "c"]})["ids"]]
    [[97, 98], [99]]
    """

    def __init__(
        self,
        tokenizer: Tokenizer[Any] | Callable[[], Tokenizer[Any]],
        *,
        text: str = "text",
        ids: str = "ids",
        end_id: int | None = None,
    ) -> None:
        made = tokenizer if hasattr(tokenizer, "encode_batch_flat") else tokenizer()
        self._tokenizer: Any = made
        self._text, self._ids, self._end = text, ids, end_id

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with the new column."""
        if self._text not in batch:
            raise ArgumentError(f"the batch has no column {self._text!r}", key=self._text)
        texts = [str(text) for text in batch[self._text]]
        rows = list(self._tokenizer.encode_batch_flat(texts, 1, disallowed_special=()))
        if self._end is not None:
            rows = [np.append(row, np.uint32(self._end)) for row in rows]
        column = np.empty(len(rows), object)
        column[:] = rows
        return {**batch, self._ids: column}

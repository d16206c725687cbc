"""Corpora through Hugging Face's ``datasets``: units as the rows of a data set that is mapped.

from rustllm.corpus import tokenize
from rustllm.integrations.hf import scheduler

tokenize(inputs, "corpus", tokenizer, scheduler=scheduler(num_proc=8))
"""

from __future__ import annotations

import json
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

__all__ = ["mapper", "scheduler"]


def scheduler(num_proc: int | None = None) -> Scheduler:
    """Return a scheduler that does units in ``datasets.Dataset.map``.

    Parameters
    ----------
    num_proc : int, optional
        Processes; one, this one, by default.

    Notes
    -----
    ``map`` returns when all is done, so progress comes at the end. A process that dies ends the
    call; the next call goes on with what is committed.
    """
    datasets = need("datasets", "hf")

    def schedule(runner: UnitRunner, units: list[Unit]) -> Iterator[dict[str, Any]]:
        if not units:
            return
        rows = datasets.Dataset.from_dict({"unit": list(range(len(units)))})
        done = rows.map(
            _Run(runner, units),
            num_proc=None if num_proc is None else min(num_proc, len(units)),
            new_fingerprint=runner.fingerprint[:16],
            load_from_cache_file=False,
            keep_in_memory=True,
            desc="units",
        )
        for row in done:
            yield json.loads(row["entry"])

    return schedule


class _Run:
    def __init__(self, runner: UnitRunner, units: list[Unit]) -> None:
        self._runner, self._units = runner, units

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        return {"entry": json.dumps(self._runner(self._units[row["unit"]]))}


def mapper(
    tokenizer: Tokenizer[Any], *, text: str = "text", ids: str = "input_ids", threads: int = 1
) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    """Return a function for ``Dataset.map(..., batched=True)`` that adds a column of ids.

    Parameters
    ----------
    tokenizer : Tokenizer
    text, ids : str
        Names of the columns read and written.
    threads : int
        Threads of each call; with `num_proc` one is best.

    Examples
    --------
    >>> from rustllm.integrations.hf import mapper
    >>> from rustllm.testing import ByteTokenizer
    >>> [ids.tolist() for ids in mapper(ByteTokenizer())({"text": ["ab"]})["input_ids"]]
    [[97, 98]]
    """

    def add_ids(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if text not in batch:
            raise ArgumentError(f"the batch has no column {text!r}", key=text)
        encoded = tokenizer.encode_batch_flat(batch[text], threads, disallowed_special=())
        return {ids: [np.asarray(row) for row in encoded]}

    return add_ids

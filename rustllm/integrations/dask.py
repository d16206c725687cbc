"""Corpora on a Dask cluster: a future for each unit.

from dask.distributed import Client
from rustllm.corpus import tokenize
from rustllm.integrations.dask import scheduler

tokenize(inputs, "/shared/corpus", tokenizer, scheduler=scheduler(Client("scheduler:8786")))
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rustllm.errors import ArgumentError
from rustllm.integrations import need

if TYPE_CHECKING:
    from rustllm.corpus.driver import Scheduler
    from rustllm.corpus.plan import Unit
    from rustllm.corpus.units import UnitRunner

__all__ = ["scheduler"]


def scheduler(client: Any = None, *, in_flight: int | None = None, retries: int = 3) -> Scheduler:
    """Return a scheduler that does units as futures of a Dask cluster.

    Parameters
    ----------
    client : dask.distributed.Client, optional
        By default the current one.
    in_flight : int, optional
        Futures at once; by default four for each thread of the cluster.
    retries : int
        How often a unit is tried again where it raises. One whose worker dies is done elsewhere
        in any case.
    """
    if in_flight is not None and in_flight < 1:
        raise ArgumentError(f"in_flight must be at least 1, got {in_flight}")
    distributed = need("distributed", "dask")

    def schedule(runner: UnitRunner, units: list[Unit]) -> Iterator[dict[str, Any]]:
        chosen = client if client is not None else distributed.get_client()
        limit = in_flight or 4 * max(1, sum(chosen.nthreads().values()))
        # The tokenizer travels to each worker once.
        shared = chosen.scatter(runner, broadcast=True, hash=False)
        waiting = iter(units)

        def submit(n: int) -> list[Any]:
            return [
                chosen.submit(_run, shared, unit, pure=False, retries=retries)
                for _, unit in zip(range(n), waiting)
            ]

        futures = distributed.as_completed(submit(limit))
        try:
            for future in futures:
                entry = future.result()
                futures.update(submit(1))
                yield entry
        finally:
            chosen.cancel([future for future in futures.futures if not future.done()])

    return schedule


def _run(runner: UnitRunner, unit: Unit) -> dict[str, Any]:
    return runner(unit)

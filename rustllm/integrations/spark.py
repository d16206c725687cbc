"""Corpora on Spark: a row for each unit, done by ``mapInArrow``.

from rustllm.corpus import tokenize
from rustllm.integrations.spark import scheduler

tokenize(inputs, "/shared/corpus", tokenizer, scheduler=scheduler(spark))
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rustllm.errors import ArgumentError
from rustllm.integrations import need

if TYPE_CHECKING:
    from rustllm.corpus.driver import Scheduler
    from rustllm.corpus.plan import Unit
    from rustllm.corpus.units import UnitRunner

__all__ = ["scheduler"]


def scheduler(spark: Any = None, *, partitions: int | None = None) -> Scheduler:
    """Return a scheduler that does units as rows of a Spark data frame.

    Parameters
    ----------
    spark : SparkSession, optional
        By default the active one.
    partitions : int, optional
        Parts that the units are dealt out in; by default four for each core of the cluster.

    Notes
    -----
    Entries come back partition by partition. A task that fails is tried again as often as
    ``spark.task.maxFailures`` says. The executors need rustllm and pyarrow.
    """
    if partitions is not None and partitions < 1:
        raise ArgumentError(f"partitions must be at least 1, got {partitions}")
    sql = need("pyspark.sql", "spark")

    def schedule(runner: UnitRunner, units: list[Unit]) -> Iterator[dict[str, Any]]:
        if not units:
            return
        session = spark if spark is not None else sql.SparkSession.getActiveSession()
        if session is None:
            session = sql.SparkSession.builder.getOrCreate()
        context = session.sparkContext
        parts = min(len(units), partitions or 4 * context.defaultParallelism)
        shared = context.broadcast(pickle.dumps((runner, units)))
        rows = session.createDataFrame([(i,) for i in range(len(units))], "unit long")
        # Rows of one unit each, so that a partition is no more than its share.
        done = rows.repartition(parts).mapInArrow(_arrow_stage(shared), "entry string")
        try:
            for row in done.toLocalIterator(prefetchPartitions=True):
                yield json.loads(row["entry"])
        finally:
            shared.unpersist()

    return schedule


def _arrow_stage(shared: Any) -> Callable[[Iterator[Any]], Iterator[Any]]:
    def stage(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow

        runner, units = pickle.loads(shared.value)
        for batch in batches:
            for index in batch.column(0).to_pylist():
                entry = json.dumps(runner(units[index]))
                yield pyarrow.RecordBatch.from_pydict({"entry": [entry]})

    return stage

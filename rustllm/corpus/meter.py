"""How far a run is, how fast it goes, and what it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rustllm.corpus.journal import Journal
from rustllm.corpus.plan import Plan

__all__ = ["Meter", "Progress"]

Progress = Callable[[dict[str, Any]], object]

# Seconds after which a long unit is told of before it is done.
_EVERY = 0.5


class Meter:
    """Counts a run's work and tells of it.

    Parameters
    ----------
    plan : Plan
    journal : Journal
        Of the units that are done, earlier ones included.
    progress : callable, optional
        Is told, as `rustllm.corpus.tokenize` says.
    """

    def __init__(self, plan: Plan, journal: Journal, progress: Progress | None) -> None:
        self._plan = plan
        self._progress = progress
        self._started = time.perf_counter()
        self._seconds = {"read": 0.0, "encode": 0.0, "commit": 0.0, "join": 0.0}
        self._units = 0
        self._sums = {"bytes": 0, "documents": 0, "tokens": 0, "failures": 0}
        self._total = sum(unit.end - unit.start for unit in plan.units)
        for entry in journal.entries.values():
            self._count(entry)
        self._before = self._sums["bytes"]
        self._partial: dict[int, int] = {}
        self._lock = threading.RLock()  # units tick in their own threads
        self._told = self._started

    def _count(self, entry: dict[str, Any]) -> None:
        unit = self._plan.units[entry["unit"]]
        self._sums["bytes"] += unit.end - unit.start
        for name in ("documents", "tokens", "failures"):
            self._sums[name] += entry[name]
        self._units += 1

    def tick(self, index: int, n_bytes: int) -> None:
        """Note how far a unit is; tells of it, but not often. From any thread."""
        unit = self._plan.units[index]
        with self._lock:
            self._partial[index] = min(n_bytes, unit.end - unit.start)
            if time.perf_counter() - self._told > _EVERY:
                self.tell()

    def add(self, entry: dict[str, Any], seconds: dict[str, float]) -> None:
        """Add a unit that is done, and what it took."""
        with self._lock:
            self._partial.pop(entry["unit"], None)
            self._count(entry)
            for name, value in seconds.items():
                self._seconds[name] += value

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block for a stage."""
        started = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - started

    def tell(self) -> None:
        """Call `progress` with where the run is now."""
        if self._progress is None:
            return
        with self._lock:
            self._told = time.perf_counter()
            self._progress(self._event(self._told - self._started))

    def _event(self, elapsed: float) -> dict[str, Any]:
        n_bytes = self._sums["bytes"] + sum(self._partial.values())
        rate = (n_bytes - self._before) / elapsed if elapsed > 0 else 0.0
        spent = sum(self._seconds.values())
        return {
            "units": self._units,
            "units_total": len(self._plan.units),
            **self._sums,
            "bytes": n_bytes,
            "bytes_total": self._total,
            "seconds": round(elapsed, 3),
            "bytes_per_second": round(rate),
            "seconds_left": round((self._total - n_bytes) / rate, 1) if rate else None,
            "stages": {
                name: round(value / spent, 3) if spent else 0.0
                for name, value in self._seconds.items()
            },
            "busiest": max(self._seconds, key=lambda name: self._seconds[name]),
        }

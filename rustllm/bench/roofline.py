"""Kernels beside the limits of the machine: the roofline model of Williams, Waterman, Patterson.

A kernel that does `I` operations for each byte that it must move can do no more than the smaller of
what the cores compute and `I` times what memory delivers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rustllm.bench.peaks import Peaks
from rustllm.errors import ArgumentError

__all__ = ["KernelSpeed", "Roofline"]


@dataclass(frozen=True)
class KernelSpeed:
    """What one kernel did in how long.

    Attributes
    ----------
    name : str
        What it works on: a block type, or the kind of attention.
    group : str
        Kernels of one kind: ``"matrix-vector"``, ``"matrix-matrix"``, ``"attention decode"``,
        ``"attention prefill"``.
    kind : str
        What it computes with, a key of :attr:`Peaks.operations_per_second`.
    threads : int
    seconds : float
        Of one pass, the least disturbed one.
    operations, n_bytes : float
        Of one pass: arithmetic, a multiplication and an addition being two; and bytes that must be
        moved, each operand and result counted once.
    read_bytes_per_second, peak_operations_per_second : float
        The limits as they were while it ran: measured in turn with it, because a machine that
        others use has another speed from one second to the next.

    Examples
    --------
    >>> from rustllm.bench import KernelSpeed
    >>> it = KernelSpeed("Q8_0", "matrix-vector", "int8", 1, 1e-3, 5e7, 2.5e7, 40e9, 400e9)
    >>> it.intensity, it.operations_per_second, it.bytes_per_second
    (2.0, 50000000000.0, 25000000000.0)
    >>> it.limit, it.bound, it.share
    ('memory', 80000000000.0, 0.625)
    """

    name: str
    group: str
    kind: str
    threads: int
    seconds: float
    operations: float
    n_bytes: float
    read_bytes_per_second: float
    peak_operations_per_second: float

    def __post_init__(self) -> None:
        amounts = (
            self.seconds,
            self.operations,
            self.n_bytes,
            self.read_bytes_per_second,
            self.peak_operations_per_second,
        )
        if not all(amount > 0 for amount in amounts):
            raise ArgumentError("a kernel takes time, computes and moves something")

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.operations / self.n_bytes

    @property
    def operations_per_second(self) -> float:
        """Arithmetic a second."""
        return self.operations / self.seconds

    @property
    def bytes_per_second(self) -> float:
        """Bytes a second."""
        return self.n_bytes / self.seconds

    @property
    def bound(self) -> float:
        """Operations a second that were to be had while it ran."""
        return min(self.peak_operations_per_second, self.intensity * self.read_bytes_per_second)

    @property
    def share(self) -> float:
        """Share of the bound that it reached."""
        return self.operations_per_second / self.bound

    @property
    def limit(self) -> str:
        """What it waits for: ``"memory"`` or ``"compute"``."""
        ridge = self.peak_operations_per_second / self.read_bytes_per_second
        return "memory" if self.intensity < ridge else "compute"


@dataclass(frozen=True)
class Roofline:
    """Limits of a machine and what kernels reach of them.

    Parameters
    ----------
    peaks : sequence of Peaks
        One for each number of threads. Where a limit was higher while a kernel ran, that counts.
    kernels : sequence of KernelSpeed
    facts : dict
        The machine and the versions.
    """

    peaks: Sequence[Peaks]
    kernels: Sequence[KernelSpeed]
    facts: dict[str, Any]

    def __post_init__(self) -> None:
        raised = [_raised(peaks, self.kernels) for peaks in self.peaks]
        object.__setattr__(self, "peaks", raised)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, and what follows from it, as plain values."""
        return {
            "facts": self.facts,
            "peaks": [peaks.to_dict() for peaks in self.peaks],
            "kernels": [
                {
                    "name": k.name,
                    "group": k.group,
                    "kind": k.kind,
                    "threads": k.threads,
                    "seconds": k.seconds,
                    "operations": k.operations,
                    "bytes": k.n_bytes,
                    "intensity": k.intensity,
                    "operations_per_second": k.operations_per_second,
                    "bytes_per_second": k.bytes_per_second,
                    "read_bytes_per_second": k.read_bytes_per_second,
                    "peak_operations_per_second": k.peak_operations_per_second,
                    "limit": k.limit,
                    "share_of_bound": k.share,
                }
                for k in self.kernels
            ],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict())

    def __str__(self) -> str:
        lines = []
        for peaks in self.peaks:
            speeds = ", ".join(
                f"{kind} {speed / 1e9:.0f}" for kind, speed in peaks.operations_per_second.items()
            )
            lines.append(
                f"{_threads(peaks.threads)}: memory {peaks.read_bytes_per_second / 1e9:.1f} GB/s, "
                f"{speeds} billion operations/s"
            )
        lines.append("")
        lines.append(
            f"{'kernel':18} {'type':8} {'threads':>7} {'op/byte':>8} {'GB/s':>7} {'Gop/s':>7}  "
            f"{'of bound':>8}  limit"
        )
        lines += [
            f"{k.group:18} {k.name:8} {k.threads:7} {k.intensity:8.2f} "
            f"{k.bytes_per_second / 1e9:7.1f} {k.operations_per_second / 1e9:7.1f}  "
            f"{k.share:8.0%}  {k.limit}"
            for k in self.kernels
        ]
        return "\n".join(lines)


def _raised(peaks: Peaks, kernels: Sequence[KernelSpeed]) -> Peaks:
    """The limits, or what was seen of them beside kernels."""
    read, speeds = peaks.read_bytes_per_second, dict(peaks.operations_per_second)
    for kernel in kernels:
        if kernel.threads == peaks.threads:
            read = max(read, kernel.read_bytes_per_second)
            at_most = max(speeds.get(kernel.kind, 0.0), kernel.peak_operations_per_second)
            speeds[kernel.kind] = at_most
    return replace(peaks, read_bytes_per_second=read, operations_per_second=speeds)


def _threads(n: int) -> str:
    return f"{n} thread" if n == 1 else f"{n} threads"

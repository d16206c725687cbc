"""The machine's own limits, measured: how fast memory is read, and how fast a core computes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rustllm.errors import ArgumentError

__all__ = ["Peaks", "cache_bytes", "compute", "measure_peaks", "stream", "uncached_bytes"]

_STEPS = 400_000  # of a compute loop: some milliseconds
_UNKNOWN_CACHE = 32 << 20
_LARGEST = 1 << 30


@dataclass(frozen=True)
class Peaks:
    """Limits of the machine on a number of threads.

    Attributes
    ----------
    threads : int
    read_bytes_per_second : float
        Reading memory that is in no cache.
    operations_per_second : dict of str to float
        For ``"float32"`` (fused multiply-adds), ``"int8"`` (dot products of bytes) and, where the
        processor has it, ``"bfloat16"``; a multiplication and an addition are two operations.
    """

    threads: int
    read_bytes_per_second: float
    operations_per_second: dict[str, float]

    def bound(self, kind: str, intensity: float) -> float:
        """Operations a second that a kernel can reach, by the roofline model.

        Parameters
        ----------
        kind : str
            What it computes with.
        intensity : float
            Operations for each byte that it must read or write.

        Examples
        --------
        >>> from rustllm.bench import Peaks
        >>> peaks = Peaks(1, 30e9, {"int8": 400e9})
        >>> peaks.bound("int8", 2.0), peaks.bound("int8", 500.0)
        (60000000000.0, 400000000000.0)
        """
        return min(self.operations_per_second[kind], intensity * self.read_bytes_per_second)

    def to_dict(self) -> dict[str, Any]:
        """Return the limits as plain values."""
        return {
            "threads": self.threads,
            "read_bytes_per_second": self.read_bytes_per_second,
            "operations_per_second": dict(self.operations_per_second),
        }


def measure_peaks(
    threads: Iterable[int] = (1,), *, repeats: int = 5, stream_bytes: int | None = None
) -> list[Peaks]:
    """Measure what the machine can do at most.

    Parameters
    ----------
    threads : iterable of int
        Numbers of threads, 1 to 256.
    repeats : int
        The best of so many is taken: nothing makes a machine faster than it is.
    stream_bytes : int, optional
        Memory that is read; by default six times the last cache.

    Returns
    -------
    list of Peaks
        One for each number of threads.

    Raises
    ------
    ArgumentError
        A number is out of range.
    OutOfMemoryError
        The memory to read cannot be had.

    Notes
    -----
    Takes about 10 ms a repeat and number of threads.

    Examples
    --------
    >>> from rustllm.bench import measure_peaks
    >>> (peaks,) = measure_peaks([1], repeats=1, stream_bytes=1 << 20)
    >>> peaks.read_bytes_per_second > 0, sorted(peaks.operations_per_second)[-1]
    (True, 'int8')
    """
    from rustllm._core import peaks

    counts = list(threads)
    if not counts or not all(1 <= n <= 256 for n in counts) or repeats < 1:
        raise ArgumentError("threads must be 1 to 256 and repeats at least 1")
    kinds = [kind for kind in peaks.KINDS if peaks.has_peak(kind)]
    read = stream(stream_bytes)

    def best(work: Callable[[int], int], n: int) -> float:
        return max(_rate(partial(work, n)) for _ in range(repeats))

    return [
        Peaks(n, best(read, n), {kind: best(partial(compute, kind), n) for kind in kinds})
        for n in counts
    ]


def stream(n_bytes: int | None = None) -> Callable[[int], int]:
    """Return a function that reads memory on a number of threads, and returns how many bytes.

    `n_bytes` is what no cache holds, if it is not given.
    """
    from rustllm._core import peaks
    from rustllm.errors import OutOfMemoryError

    size = uncached_bytes() if n_bytes is None else n_bytes
    try:
        memory = peaks.Stream(size)
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    except MemoryError as error:
        raise OutOfMemoryError(str(error)) from error

    def read(threads: int) -> int:
        memory.read(threads)
        return memory.nbytes

    return read


def compute(kind: str, threads: int) -> int:
    """Compute for some milliseconds and return how many operations were done."""
    from rustllm._core import peaks

    return peaks.compute(kind, _STEPS, threads)


def uncached_bytes() -> int:
    """Bytes of which a cache keeps next to nothing from one pass to the next; 1 GiB at most."""
    return min(6 * cache_bytes(), _LARGEST)


def cache_bytes() -> int:
    """Bytes of the largest cache of this processor; 32 MiB where the system does not tell.

    Examples
    --------
    >>> from rustllm.bench.peaks import cache_bytes
    >>> cache_bytes() >= 1 << 16
    True
    """
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            text = path.read_text().strip()
            unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[text[-1]]
            sizes.append(int(text[:-1]) * unit)
        except (OSError, ValueError, KeyError, IndexError):
            continue
    if not sizes and hasattr(os, "sysconf"):
        try:
            sizes = [os.sysconf("SC_LEVEL3_CACHE_SIZE"), os.sysconf("SC_LEVEL2_CACHE_SIZE")]
        except (OSError, ValueError):
            pass
    largest = max(sizes, default=0)
    return largest if largest >= 1 << 16 else _UNKNOWN_CACHE


def _rate(work: Callable[[], int]) -> float:
    start = time.perf_counter()
    amount = work()
    return amount / max(time.perf_counter() - start, 1e-9)

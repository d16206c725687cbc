"""Speed of the kernels as models use them: the engine run on plans that do little else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from rustllm._core import quant
from rustllm._core.engine import Engine, Rows, Workspace
from rustllm._core.kv_cache import KVCache
from rustllm._core.linear import PackedMatrix, pack
from rustllm.bench import KernelSpeed, Roofline, compare, machine_facts, measure_peaks
from rustllm.bench.peaks import compute, stream, uncached_bytes
from rustllm.errors import ArgumentError, OutOfMemoryError
from rustllm.models.plan import Plan
from rustllm.models.weights import PACKABLE

__all__ = ["measure_roofline"]

_WIDTH = 2048  # rows and columns of a matrix: as in a model of a billion weights
_PROMPT = 256  # tokens that pass through a layer together
_HEADS, _KV_HEADS, _HEAD_DIM = 8, 2, 64
_KEYS = 4096
_FLOATS = ("F32", "F16", "BF16")
_F32 = 0


def measure_roofline(
    threads: Iterable[int] = (1,),
    *,
    types: Sequence[str] = PACKABLE,
    seconds: float = 0.05,
    repeats: int = 5,
    working_set: int | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> Roofline:
    """Measure the limits of the machine, and every kernel of a forward pass beside them.

    Products of one row of activations with matrices that no cache holds, products of 256 rows, one
    token's attention to 4,096 others, and attention of 256 tokens to all before them.

    Parameters
    ----------
    threads : iterable of int
        Numbers of threads.
    types : sequence of str
        Block types of the matrices.
    seconds : float
        Time of a sample.
    repeats : int
        Samples; the best counts, as it does for the limits.
    working_set : int, optional
        Bytes of weights or keys and values that a single row or token reads; by default what no
        cache keeps.
    progress : callable, optional
        Called as ``progress(name, done, total)`` after each kernel.

    Returns
    -------
    Roofline

    Raises
    ------
    ArgumentError
        An unknown type, or a number out of range.
    OutOfMemoryError
        There is no memory for the weights.

    Notes
    -----
    Every sample of a kernel is followed by one of reading and one of computing, so that a kernel is
    held against what the machine could do at that moment.

    Examples
    --------
    >>> from rustllm.models.kernel_speed import measure_roofline
    >>> found = measure_roofline([1], types=["Q8_0"], seconds=0, repeats=1, working_set=1 << 22)
    >>> [kernel.group for kernel in found.kernels]
    ['matrix-vector', 'matrix-matrix', 'attention decode', 'attention prefill']
    """
    counts = list(threads)
    names = [name.upper() for name in types]
    unknown = [name for name in names if name not in PACKABLE]
    if unknown:
        raise ArgumentError(
            f"{unknown[0]!r} is no block type to compute with", hint=f"one of {', '.join(PACKABLE)}"
        )
    if seconds < 0 or not np.isfinite(seconds):
        raise ArgumentError(f"samples of {seconds} seconds")
    size = uncached_bytes() if working_set is None else working_set
    if size < 1:
        raise ArgumentError(f"a working set of {size} bytes")
    peaks = measure_peaks(counts, repeats=repeats)
    read = stream()
    kernels: list[KernelSpeed] = []
    total = len(counts) * (2 * len(names) + 2)

    def take(run: _Run, group: str, name: str, kind: str) -> None:
        for n in counts:
            timed = compare(
                {
                    "kernel": partial(run, n),
                    "read": partial(read, n),
                    "compute": partial(compute, kind, n),
                },
                rounds=repeats,
                min_time=seconds,
            ).measurements
            kernels.append(
                KernelSpeed(
                    name,
                    group,
                    kind,
                    n,
                    timed["kernel"].best,
                    run.operations,
                    run.n_bytes,
                    read(n) / timed["read"].best,
                    compute(kind, n) / timed["compute"].best,
                )
            )
            if progress is not None:
                progress(f"{group} {name}", len(kernels), total)

    try:
        for name in names:
            kind = "float32" if name in _FLOATS else "int8"
            take(_product(name, 1, size), "matrix-vector", name, kind)
        for name in names:
            kind = "float32" if name in _FLOATS else "int8"
            take(_product(name, _PROMPT, 0), "matrix-matrix", name, kind)
        take(_attention(1, _KEYS, size), "attention decode", "F16", "float32")
        take(_attention(_PROMPT, 0, 0), "attention prefill", "F16", "float32")
    except MemoryError as error:
        raise OutOfMemoryError(str(error) or "no memory for the weights") from error
    return Roofline(peaks, kernels, machine_facts())


class _Run:
    """A plan over one sequence, run again and again from the same state."""

    def __init__(self, plan: Plan, weights: dict[str, Any], cache: KVCache, n_tokens: int) -> None:
        self._engine = Engine(plan, weights)
        self._workspace = Workspace()
        self._cache = cache
        self._position = cache.position
        self._ids = np.zeros(n_tokens, np.int32)
        self._kept = np.array([n_tokens - 1], np.int32)
        self._scores = np.empty((1, plan.n_vocab), np.float32)
        self.operations = 0.0
        self.n_bytes = 0.0

    def __call__(self, threads: int) -> None:
        self._engine.forward(
            self._workspace, [(self._cache, self._ids)], self._kept, self._scores, threads
        )
        self._cache.truncate(self._position)


def _product(type_name: str, n_tokens: int, at_least: int) -> _Run:
    """Products of the same rows with as many matrices as make up `at_least` bytes."""
    block = quant.quantize(_noise(64 * _WIDTH), type_name)
    source = np.tile(block.reshape(-1), _WIDTH // 64)
    count = max(4, -(-at_least // source.nbytes))
    type_id = quant.block_format(type_name).type_id
    matrices = [PackedMatrix(type_id, _WIDTH, _WIDTH, source) for _ in range(count)]
    pack(matrices, threads=2)
    plan = Plan(n_vocab=_WIDTH, n_layers=1, n_kv_heads=1, head_dim=16)
    plan.embed("x", "table", width=_WIDTH)
    plan.prepare("x", "input")
    weights: dict[str, Any] = {"table": _table(_WIDTH)}
    for i, matrix in enumerate(matrices):
        plan.linear("input", {"y": f"w{i}"}, {"y": _WIDTH})
        weights[f"w{i}"] = matrix
    plan.gather("y", "logits")
    run = _Run(plan, weights, KVCache(1, 1, 16, n_tokens), n_tokens)
    run.operations = 2.0 * count * n_tokens * _WIDTH * _WIDTH
    # Of a block of 32 activations: bytes, a scale and a sum, or float32.
    record = 128 if type_name in _FLOATS else 40
    rows = n_tokens * (_WIDTH // 32 * record + 4 * _WIDTH)
    run.n_bytes = float(sum(matrix.packed_bytes for matrix in matrices) + count * rows)
    return run


def _attention(n_tokens: int, n_before: int, at_least: int) -> _Run:
    """Attention in as many layers as hold `at_least` bytes of keys and values."""
    n_keys = n_before + n_tokens
    row = 2 * _KV_HEADS * _HEAD_DIM * 2  # keys and values of a position, half precision
    n_layers = max(4, -(-at_least // (n_keys * row)))
    width = _HEADS * _HEAD_DIM
    plan = Plan(n_vocab=width, n_layers=n_layers, n_kv_heads=_KV_HEADS, head_dim=_HEAD_DIM)
    weights: dict[str, Any] = {}
    for name, n in (("q", width), ("k", _KV_HEADS * _HEAD_DIM), ("v", _KV_HEADS * _HEAD_DIM)):
        plan.embed(name, f"{name}.table", width=n)
        weights[f"{name}.table"] = _table(n)
    for layer in range(n_layers):
        plan.attention("q", "k", "v", "heads", layer=layer, n_heads=_HEADS, scale=_HEAD_DIM**-0.5)
    plan.gather("heads", "logits")
    cache = KVCache(n_layers, _KV_HEADS, _HEAD_DIM, n_keys)
    if n_before:
        cache.from_arrays(_filled(n_layers, n_before), n_before)
    run = _Run(plan, weights, cache, n_tokens)
    seen = n_tokens * n_before + n_tokens * (n_tokens + 1) / 2
    run.operations = 4.0 * n_layers * _HEADS * _HEAD_DIM * seen
    run.n_bytes = float(n_layers * (n_keys * row + 2 * 4 * n_tokens * width))
    return run


def _filled(n_layers: int, n: int) -> list[Any]:
    """Segments of 128 positions as a cache takes them, with plausible keys and values."""
    segment = np.empty((n_layers * _KV_HEADS * 2, 128 * _HEAD_DIM), np.float16)
    segment[:] = _noise(128 * _HEAD_DIM)
    raw = segment.view(np.uint8)
    return [raw[:, : 2 * _HEAD_DIM * min(128, n - start)] for start in range(0, n, 128)]


def _table(width: int) -> Rows:
    return Rows(_F32, 1, width, _noise(width).view(np.uint8))


def _noise(n: int) -> Any:
    return np.random.default_rng(1).standard_normal(n, np.float32)

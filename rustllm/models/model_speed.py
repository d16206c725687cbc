"""Speed and memory of a model: each figure from a process that has done nothing else before."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rustllm.errors import ArgumentError, ModelError

__all__ = ["measure_here", "measure_model"]

_FIELDS = (
    *("import_seconds", "load_seconds", "first_token_seconds", "prefill_tokens_per_second"),
    *("decode_tokens_per_second", "deep_decode_tokens_per_second", "peak_bytes", "cache_bytes"),
)
_WARM_UP = 16
_DEEP_STEPS = 32
_PROGRAM = """\
import json, sys, time
start = time.perf_counter()
import numpy, rustllm
spent = time.perf_counter() - start
from rustllm.models.model_speed import measure_here
print(json.dumps({"import_seconds": spent, **measure_here(sys.argv[1], **json.loads(sys.argv[2]))}))
"""


def measure_model(
    path: str | os.PathLike[str],
    threads: Iterable[int] = (1,),
    *,
    prompt: int = 512,
    tokens: int = 128,
    depth: int = 1500,
    rounds: int = 3,
    exact: bool = False,
    progress: Callable[[str, int, int], object] | None = None,
) -> list[dict[str, Any]]:
    """Measure how a model loads, reads a prompt and generates.

    Each round starts a process for each number of threads, in turn; figures are medians of the
    rounds. Ids are arbitrary, so the work depends on the model's shape alone.

    Parameters
    ----------
    path : path
        A GGUF file or a model folder.
    threads : iterable of int
        Numbers of threads.
    prompt, tokens : int
        Tokens of the prompt, and single steps after a short one.
    depth : int
        Context after which steps are timed again; 0 leaves that out. Cut to what the model takes.
    rounds : int
    exact : bool
        float32 activations.
    progress : callable, optional
        Called as ``progress(name, done, total)`` after each process.

    Returns
    -------
    list of dict
        One for each number of threads:

        - `threads`, `file_bytes`;
        - `import_seconds`: importing numpy and rustllm;
        - `load_seconds`: ``load_model``, with the imports that it needs;
        - `first_token_seconds`: from the file to the scores after one token;
        - `prefill_tokens_per_second`, `decode_tokens_per_second`;
        - `deep_decode_tokens_per_second`: None without `depth`;
        - `peak_bytes`: resident memory of the whole process, None where the system does not tell;
        - `cache_bytes`: keys and values at the end;
        - `decode_share`: the bytes of weights that were read a second for single tokens, as a share
          of the speed at which the same process read memory.

    Raises
    ------
    ArgumentError
        A number is out of range.
    ModelError
        The model cannot be run; the message is what the process said.
    """
    counts = list(threads)
    if not counts or not all(1 <= n <= 256 for n in counts):
        raise ArgumentError("threads must be 1 to 256")
    if min(prompt, tokens, rounds) < 1 or depth < 0:
        raise ArgumentError("prompt, tokens and rounds must be at least 1, depth not negative")
    file = Path(path)
    settings = {"prompt": prompt, "tokens": tokens, "depth": depth, "exact": exact}
    runs: dict[int, list[dict[str, Any]]] = {n: [] for n in counts}
    for turn in range(rounds):
        for place, n in enumerate(counts):
            runs[n].append(_in_a_process(file, {**settings, "threads": n}))
            if progress is not None:
                progress(
                    f"{file.name}, {n} threads",
                    turn * len(counts) + place + 1,
                    rounds * len(counts),
                )
    return [{"threads": n, "file_bytes": _size(file), **_medians(runs[n])} for n in counts]


def _in_a_process(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    import rustllm

    # The same rustllm, wherever it lies, and nothing out of the working directory.
    home = str(Path(rustllm.__file__).parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, str(path), json.dumps(settings)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ModelError(
            f"the process that measures ended with status {done.returncode}"
            + (f": {said[-1]}" if said else ""),
            path=str(path),
        )
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in (*_FIELDS, "decode_share"):
        values = [row[field] for row in rows if row[field] is not None]
        out[field] = statistics.median(values) if values else None
    return out


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(part.stat().st_size for part in path.glob("*.safetensors"))
    return path.stat().st_size


def measure_here(
    path: str, *, threads: int, prompt: int, tokens: int, depth: int, exact: bool
) -> dict[str, Any]:
    """Measure a model once, in this process, which should have done nothing else."""
    clock = time.perf_counter
    begun = clock()
    from rustllm.models.load import load_model

    model = load_model(path, threads=threads, exact=exact)
    loaded = clock()
    n_vocab, limit = model.config.n_vocab, model.config.n_ctx
    wanted = min(max(prompt, _WARM_UP + tokens, depth + _DEEP_STEPS), limit)
    state = model.new_state(wanted)
    ids = [(i * 7919 + 300) % n_vocab for i in range(wanted)]
    model.forward(ids[:1], state)
    first = clock()

    def rate(n: int, run: Callable[[], object]) -> float:
        start = clock()
        run()
        return n / (clock() - start)

    def steps(start: int, n: int) -> None:
        for id in ids[start : start + n]:
            model.forward([id], state)

    n_prompt = min(prompt, limit)
    prefill = 0.0
    for _ in range(2):
        state.reset()
        prefill = max(prefill, rate(n_prompt, lambda: model.forward(ids[:n_prompt], state)))
    decode = 0.0
    n_steps = min(tokens, limit - _WARM_UP)
    for _ in range(2):
        state.reset()
        model.forward(ids[:_WARM_UP], state)
        decode = max(decode, rate(n_steps, lambda: steps(_WARM_UP, n_steps)))
    deep = None
    depth = min(depth, limit - _DEEP_STEPS)
    if depth > 0:
        state.reset()
        model.forward(ids[:depth], state)
        deep = rate(_DEEP_STEPS, lambda: steps(depth, _DEEP_STEPS))
    peak = _peak_bytes()
    from rustllm.bench.peaks import stream

    read = stream()
    speed = max(rate(read(threads), lambda: read(threads)) for _ in range(5))
    weights = _bytes_a_token(model)
    return {
        "load_seconds": loaded - begun,
        "first_token_seconds": first - begun,
        "prefill_tokens_per_second": prefill,
        "decode_tokens_per_second": decode,
        "deep_decode_tokens_per_second": deep,
        "peak_bytes": peak,
        "cache_bytes": state.nbytes,
        "decode_share": decode * weights / speed,
    }


def _bytes_a_token(model: Any) -> int:
    """Bytes of packed weights that one token reads; of experts, those that are used."""
    total = 0
    config = model.config
    share = config.n_experts_used / config.n_experts if config.n_experts else 1.0
    in_linear = {name for op in model.plan if op.kind in ("linear", "gated") for name in op.weights}
    for name, weight in model._engine.weights.items():
        if not hasattr(weight, "packed_bytes"):
            continue
        if name in in_linear:
            total += weight.packed_bytes
        elif "[" in name:
            total += int(share * weight.packed_bytes)
    return total


def _peak_bytes() -> int | None:
    try:  # of this program alone: what the other call says includes the one that started it
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""Speed of a tokenizer on a text: loading, encoding new and known text, many texts, decoding."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rustllm.bench import Measurement, measure
from rustllm.errors import ArgumentError

__all__ = ["measure_tokenizer"]


def measure_tokenizer(
    load: Callable[[], Any],
    text: str,
    *,
    threads: int = 1,
    repeats: int = 5,
    seconds: float = 0.05,
) -> dict[str, Any]:
    """Measure a tokenizer on a text.

    Parameters
    ----------
    load : callable
        Makes the tokenizer anew.
    text : str
        What to encode; its lines are the texts of a batch. Special tokens in it are plain text.
    threads : int
        Of the batch.
    repeats : int
        Samples; medians count.
    seconds : float
        Time of a sample.

    Returns
    -------
    dict
        `bytes`, `tokens`, `texts`, and `measurements`: a `Measurement` each for ``load``, ``first``
        (encoding with a tokenizer that has seen nothing, loaded anew for every sample), ``again``
        (the same text once more, to an array), ``list`` (to a list), ``batch`` (all lines, to one
        array), ``count`` and ``decode``.

    Raises
    ------
    ArgumentError
        The text is empty, or a number is out of range.

    Examples
    --------
    >>> import rustllm
    >>> from rustllm.tokenizers.tokenizer_speed import measure_tokenizer
    >>> fit = lambda: rustllm.WhitespaceTokenizer.fit(["so it goes"])
    >>> facts = measure_tokenizer(fit, "it goes", repeats=1, seconds=0)
    >>> facts["tokens"], facts["measurements"]["decode"].n_bytes
    (2, 7)
    """
    if not text:
        raise ArgumentError("there is no text to measure with")
    if threads < 1 or repeats < 1 or seconds < 0:
        raise ArgumentError("threads and repeats must be at least 1, seconds not negative")
    n_bytes = len(text.encode("utf-8", "surrogatepass"))
    loads: list[float] = []
    firsts: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        tokenizer = load()
        loaded = time.perf_counter()
        ids = tokenizer.encode_to_numpy(text, disallowed_special=())
        firsts.append(time.perf_counter() - loaded)
        loads.append(loaded - start)
    texts = [line for line in text.splitlines(keepends=True) if line]
    runs: dict[str, Callable[[], object]] = {
        "again": lambda: tokenizer.encode_to_numpy(text, disallowed_special=()),
        "list": lambda: tokenizer.encode(text, disallowed_special=()),
        "batch": lambda: tokenizer.encode_batch_flat(
            texts, num_threads=threads, disallowed_special=()
        ),
        "count": lambda: tokenizer.count(text),
        "decode": lambda: tokenizer.decode(ids),
    }
    measurements = {
        "load": Measurement("load", tuple(loads)),
        "first": Measurement("first", tuple(firsts), n_items=len(ids), n_bytes=n_bytes),
    }
    for name, run in runs.items():
        measurements[name] = measure(
            run, name=name, repeats=repeats, min_time=seconds, n_items=len(ids), n_bytes=n_bytes
        )
    return {
        "bytes": n_bytes,
        "tokens": len(ids),
        "texts": len(texts),
        "measurements": measurements,
    }

"""Combinators for streams: put sources and stages together without reading more than is needed.

The names here work on iterables; :mod:`rustllm.stream.aio` has the same ones for ``async for``.
Only `prefetch` and `merge` start threads, when their first item is asked for, and closing either
joins them.

Examples
--------
>>> from rustllm import stream
>>> list(stream.interleave("abc", "12"))
['a', '1', 'b', '2', 'c']
"""

from typing import TYPE_CHECKING

from rustllm._lazy import lazy_names
from rustllm.stream.combinators import interleave, pipe, rate, zip_longest
from rustllm.stream.readahead import ReadAhead, merge, prefetch
from rustllm.stream.tees import Branch, tee

if TYPE_CHECKING:
    from rustllm.stream import aio as aio

__all__ = [
    "Branch",
    "ReadAhead",
    "aio",
    "interleave",
    "merge",
    "pipe",
    "prefetch",
    "rate",
    "tee",
    "zip_longest",
]

# asyncio takes as long to import as the rest of the package together.
__getattr__, __dir__ = lazy_names(__name__, {"aio": "rustllm.stream.aio"})

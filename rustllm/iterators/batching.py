"""Batches bounded by how many items they hold, and by how many tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

from rustllm.errors import ArgumentError, MemoryLimitError

__all__ = ["batched"]

T = TypeVar("T")


def batched(
    source: Iterable[T],
    count: int | None = None,
    *,
    tokens: int | None = None,
    length: Callable[[T], int] | None = None,
    padded: bool = False,
    oversize: str = "alone",
) -> Iterator[list[T]]:
    """Gather items into lists of at most `count` items and at most `tokens` tokens.

    Parameters
    ----------
    source : iterable
    count : int, optional
        Most items in a batch.
    tokens : int, optional
        Most tokens in a batch.
    length : callable, optional
        Number of tokens of an item; by default ``len``.
    padded : bool
        Count a batch as it will be once padded: its items times its longest.
    oversize : {"alone", "raise"}
        An item over the budget by itself gets a batch of its own, or is an error.

    Yields
    ------
    list
        Items in their order. An item is pulled from the source before it is known to fit, so the
        source is at most one item ahead.

    Raises
    ------
    ArgumentError
        Neither bound is given, or one is below 1.
    MemoryLimitError
        An item is over the budget and `oversize` is "raise"; ``index`` says which.

    Examples
    --------
    >>> from rustllm.iterators import batched
    >>> list(batched(["a", "bb", "cc", "dddd", "e"], tokens=4))
    [['a', 'bb'], ['cc'], ['dddd'], ['e']]
    >>> list(batched(["a", "bb", "cc", "dddd", "e"], count=3))
    [['a', 'bb', 'cc'], ['dddd', 'e']]
    """
    if count is None and tokens is None:
        raise ArgumentError("a batch needs a bound", hint="give count, tokens, or both")
    if count is not None and count < 1:
        raise ArgumentError(f"count must be at least 1, got {count}")
    if tokens is not None and tokens < 1:
        raise ArgumentError(f"tokens must be at least 1, got {tokens}")
    if oversize not in ("alone", "raise"):
        raise ArgumentError(f"oversize must be 'alone' or 'raise', got {oversize!r}")
    measure = cast("Callable[[T], int]", len) if length is None else length
    if tokens is None:
        return _by_count(iter(source), cast("int", count))
    return _by_tokens(source, count, tokens, measure, padded, oversize)


def _by_count(source: Iterator[T], count: int) -> Iterator[list[T]]:
    from itertools import islice

    while batch := list(islice(source, count)):
        yield batch


def _by_tokens(
    source: Iterable[T],
    count: int | None,
    tokens: int,
    length: Callable[[T], int],
    padded: bool,
    oversize: str,
) -> Iterator[list[T]]:
    batch: list[T] = []
    total = longest = 0
    for index, item in enumerate(source):
        size = length(item)
        if size < 0:
            raise ArgumentError(f"item {index} has a negative length", index=index)
        if size > tokens and oversize == "raise":
            raise MemoryLimitError(
                f"item {index} has {size} tokens and a batch holds {tokens}", index=index
            )
        cost = (len(batch) + 1) * max(longest, size) if padded else total + size
        if batch and cost > tokens:
            yield batch
            batch = []
            total = longest = 0
        batch.append(item)
        total += size
        longest = max(longest, size)
        if count is not None and len(batch) >= count:
            yield batch
            batch = []
            total = longest = 0
    if batch:
        yield batch

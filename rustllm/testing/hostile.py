"""Hostile conditions: data that was damaged, and memory that cannot be had."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rustllm.errors import RustLLMError, UnsupportedError

__all__ = ["check_parser", "each_allocation_failing", "mutations"]


def mutations(sample: bytes, n: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `n` damaged versions of `sample`, the same ones for the same seed.

    Cut short, with bits flipped, with numbers made huge or negative, with parts doubled, moved,
    removed or replaced by noise.

    Examples
    --------
    >>> from rustllm.testing import mutations
    >>> [len(m) >= 0 for m in mutations(b"GGUF....", 3)]
    [True, True, True]
    """
    draw = random.Random(seed)
    for _ in range(n):
        data = bytearray(sample)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            _damage(data, draw)
        yield bytes(data)


def _damage(data: bytearray, draw: random.Random) -> None:
    if not data:
        data += draw.randbytes(draw.randrange(1, 16))
        return
    at = draw.randrange(len(data))
    length = min(len(data) - at, 1 << draw.randrange(8))
    match draw.randrange(7):
        case 0:
            del data[at:]
        case 1:
            data[at] ^= 1 << draw.randrange(8)
        case 2:
            width = draw.choice((1, 2, 4, 8))
            value = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
            data[at : at + width] = bytes([value]) * min(width, len(data) - at)
        case 3:
            data[at:at] = data[at : at + length]
        case 4:
            del data[at : at + length]
        case 5:
            data[at : at + length] = draw.randbytes(length)
        case _:
            other = draw.randrange(len(data))
            data[at : at + length] = data[other : other + length]


def check_parser(
    parse: Callable[[bytes], Any],
    samples: Sequence[bytes],
    *,
    n: int = 200,
    seed: int = 0,
    errors: type[Exception] | tuple[type[Exception], ...] = RustLLMError,
) -> int:
    """Feed a parser damaged samples: each must be read, or be refused with one of `errors`.

    Parameters
    ----------
    parse : callable
    samples : sequence of bytes
        Each must be read as it is.
    n : int
        Damaged versions of each.
    seed : int
    errors : exception type or tuple of them
        What may be raised.

    Returns
    -------
    int
        How many damaged versions were refused.

    Raises
    ------
    AssertionError
        Something else was raised; the message holds the data, to be kept as a regression test.

    Examples
    --------
    >>> import json
    >>> from rustllm.testing import check_parser
    >>> check_parser(json.loads, [b'{"a": [1, 2]}'], n=50, errors=ValueError) > 10
    True
    """
    refused = 0
    for sample in samples:
        parse(sample)
        for data in mutations(sample, n, seed):
            try:
                parse(data)
            except errors:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{type(error).__name__}: {error} on {data!r}") from error
    return refused


def each_allocation_failing(
    call: Callable[[], Any], check: Callable[[], None] | None = None, limit: int = 10_000
) -> int:
    """Run `call` with its first allocation failing, then its second, until it succeeds.

    Every failure must surface as MemoryError. It is the interpreter's allocators that fail; memory
    that compiled code takes from the C library has failure points of its own.

    Parameters
    ----------
    call : callable
    check : callable, optional
        Called after each failure, with memory again, to see that nothing is broken.
    limit : int
        Failures after which to give up.

    Returns
    -------
    int
        Number of allocations that failed.

    Raises
    ------
    AssertionError
        Something other than MemoryError was raised, or `limit` was reached.
    UnsupportedError
        This interpreter has no ``_testcapi``.
    """
    try:
        from importlib import import_module

        _testcapi = import_module("_testcapi")
    except ImportError as error:
        raise UnsupportedError("failing allocations needs CPython's _testcapi") from error
    call()  # whatever is imported or cached on first use is no part of the test
    for n in range(limit):
        outcome: BaseException | None = None
        _testcapi.set_nomemory(n, n + 1)
        try:
            call()
        except BaseException as error:
            outcome = error
        finally:
            _testcapi.remove_mem_hooks()
        if check is not None:
            check()
        if outcome is None:
            return n
        if not isinstance(outcome, MemoryError):
            raise AssertionError(
                f"allocation {n} failing raised {type(outcome).__name__}: {outcome}"
            ) from outcome
    raise AssertionError(f"still failing after {limit} allocations")

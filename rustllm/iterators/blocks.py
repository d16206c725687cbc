"""Token ids that travel in arrays: what a `TokenIterator` over arrays, files and encoders is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from rustllm._core.grouping import Last
from rustllm.errors import (
    ArgumentError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
)
from rustllm.iterators.grouping import ArrayGroups
from rustllm.iterators.tokens import TokenIterator, _at_least

if TYPE_CHECKING:
    from rustllm.traits import SupportsEncode
    from rustllm.types import PathLikeStr, TokenArray

Block = np.ndarray[Any, Any]

# Ids turned into Python integers at a time: enough to forget the cost of the call, few enough to
# stay in the first-level cache.
_SLICE = 4096


class BlockTokens(TokenIterator[int]):
    """Ids in flat arrays, one after the other.

    Until an item is asked for, `_blocks` holds what is left; from then on `_items` does, and the
    methods fall back to those of the base class, which go item by item.
    """

    __slots__ = ("_blocks",)

    _blocks: Iterator[Block] | None

    def __new__(cls, source: Any = ()) -> Any:
        return cls.over([source])

    @classmethod
    def over(cls, blocks: Iterable[Block]) -> Self:
        self = object.__new__(cls)
        self._blocks = _checked(blocks)
        return self

    def _take_blocks(self) -> Iterator[Block] | None:
        """Give up the blocks to a successor, or return None when items have been read."""
        blocks, self._blocks = self._blocks, None
        if blocks is not None:
            self._items = iter(())
        return blocks

    def __iter__(self) -> Iterator[int]:
        if (blocks := self._take_blocks()) is not None:
            self._items = _integers(blocks)
        return self._items

    def __next__(self) -> int:
        return next(iter(self))

    def where(self, mask: Callable[[Any], Any]) -> TokenIterator[int]:
        if (blocks := self._take_blocks()) is None:
            return super().where(mask)
        return BlockTokens.over(block[mask(block)] for block in blocks)

    def take(self, n: int) -> TokenIterator[int]:
        _at_least(n, 0, "n")
        if (blocks := self._take_blocks()) is None:
            return super().take(n)
        return BlockTokens.over(_take(blocks, n))

    def skip(self, n: int) -> TokenIterator[int]:
        _at_least(n, 0, "n")
        if (blocks := self._take_blocks()) is None:
            return super().skip(n)
        return BlockTokens.over(_skip(blocks, n))

    def step_by(self, step: int) -> TokenIterator[int]:
        _at_least(step, 1, "step")
        if (blocks := self._take_blocks()) is None:
            return super().step_by(step)
        return BlockTokens.over(_step(blocks, step))

    def chain(self, *others: Iterable[int]) -> TokenIterator[int]:
        arrays = [other for other in others if isinstance(other, np.ndarray)]
        if len(arrays) < len(others) or (blocks := self._take_blocks()) is None:
            return super().chain(*others)
        return BlockTokens.over(_chain(blocks, arrays))

    def _grouped(self, size: int, stride: int, last: int, fill: Any) -> Iterator[Any]:
        if (blocks := self._take_blocks()) is None:
            return super()._grouped(size, stride, last, fill)
        return _group_blocks(blocks, size, stride, last, fill)

    def count(self) -> int:
        if (blocks := self._take_blocks()) is None:
            return super().count()
        return sum(map(len, blocks))

    def to_list(self) -> list[int]:
        if (blocks := self._take_blocks()) is None:
            return super().to_list()
        return [id for block in blocks for id in block.tolist()]

    def to_numpy(self) -> TokenArray:
        from rustllm.types import as_token_array

        if (blocks := self._take_blocks()) is None:
            return super().to_numpy()
        parts = [as_token_array(block) for block in blocks]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, np.uint32)


def _checked(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        if block.ndim != 1 or block.dtype.kind not in "iu":
            raise ArgumentError(
                f"a block of ids must be flat and of integers, got {block.dtype} of "
                f"{block.ndim} dimensions"
            )
        yield block


def _integers(blocks: Iterator[Block]) -> Iterator[int]:
    # A chain of lists, and no generator with an item a step: four times as fast.
    return chain.from_iterable(_lists(blocks))


def _lists(blocks: Iterator[Block]) -> Iterator[list[int]]:
    for block in blocks:
        for start in range(0, len(block), _SLICE):
            yield block[start : start + _SLICE].tolist()


def _take(blocks: Iterator[Block], n: int) -> Iterator[Block]:
    while n > 0 and (block := next(blocks, None)) is not None:
        yield block[:n]
        n -= len(block)


def _skip(blocks: Iterator[Block], n: int) -> Iterator[Block]:
    for block in blocks:
        if n < len(block):
            yield block[n:]
            break
        n -= len(block)
    yield from blocks


def _step(blocks: Iterator[Block], step: int) -> Iterator[Block]:
    start = 0
    for block in blocks:
        if start < len(block):
            yield block[start::step]
        start = (start - len(block)) % step if start < len(block) else start - len(block)


def _chain(blocks: Iterator[Block], others: list[Block]) -> Iterator[Block]:
    yield from blocks
    yield from others


def _group_blocks(
    blocks: Iterator[Block], size: int, stride: int, last: int, fill: Any
) -> Iterator[Block]:
    """Yield groups as views into the blocks; a block that begins inside a group is copied once."""
    parts: list[Block] = []  # ids that begin the next group
    n_held = 0  # their number
    n_skip = 0  # ids to leave out before it
    n_old = 0  # how many of the held ids have been in a group
    for block in blocks:
        if n_skip:
            block, n_skip = block[n_skip:], max(n_skip - len(block), 0)
        if not len(block):
            continue
        parts.append(block)
        n_held += len(block)
        if n_held < size:
            continue
        held = parts[0] if len(parts) == 1 else np.concatenate(parts)
        groups = ArrayGroups(held, size, stride, Last.DROP)
        yield from groups.full
        start = len(groups.full) * stride
        n_skip = max(start - n_held, 0)
        rest = held[start:]
        parts = [rest] if len(rest) else []
        n_held = len(rest)
        n_old = max(size - stride, 0)
    if n_held > n_old and last != Last.DROP:
        yield from ArrayGroups(np.concatenate(parts), size, size, last, fill)


def encode_texts(
    tokenizer: SupportsEncode, texts: Iterable[str], separator: int | None
) -> Iterator[TokenArray]:
    """Encode texts one by one, into arrays if the tokenizer can."""
    from rustllm.types import as_token_array

    encode: Callable[[str], Any] = tokenizer.encode
    for name in ("encode_ordinary_to_numpy", "encode_ordinary"):
        if (method := getattr(tokenizer, name, None)) is not None:
            encode = method
            break
    end = None if separator is None else as_token_array([separator])
    for text in texts:
        yield as_token_array(encode(text))
        if end is not None:
            yield end


def map_file(path: PathLikeStr, dtype: Any, offset: int) -> Block:
    """Map a ``.npy`` file, or one of bare integers, as a flat read-only array."""
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if dtype is None:
                return _map_npy(path, file.read(6))
            kind = np.dtype(dtype)
            if kind.kind not in "iu":
                raise ArgumentError(f"ids are integers, not {kind}", path=path)
            if not 0 <= offset <= size:
                raise ArgumentError(f"offset {offset} lies outside the file", path=path)
            if (size - offset) % kind.itemsize:
                raise FileFormatError(
                    f"{size - offset} bytes are no whole number of {kind}", path=path, offset=offset
                )
            if size == offset:
                return np.empty(0, kind)
            return cast("Block", np.memmap(file, kind, "r", offset))
    except FileNotFoundError as error:
        raise FileMissingError("no such file", path=path) from error
    except OSError as error:
        raise FileAccessError(error.strerror or str(error), path=path, errno=error.errno) from error


def _map_npy(path: PathLikeStr, magic: bytes) -> Block:
    if magic != b"\x93NUMPY":
        raise FileFormatError(
            "this is no .npy file",
            path=path,
            offset=0,
            hint="give dtype, such as 'uint16', for a file of bare integers",
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        if getattr(error, "winerror", None) != 8:  # what Windows says of a file that is too short
            raise
        raise FileFormatError("the file is shorter than its head says", path=path) from error
    except Exception as error:  # numpy parses the head as Python, which fails in many ways
        raise FileFormatError(f"this array cannot be read: {error}", path=path) from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise FileFormatError(
            f"expected a flat array of integers, found {array.dtype} {array.shape}", path=path
        )
    return cast("Block", array)

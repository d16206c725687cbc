"""Windows and chunks: views of an array, tuples of an iterator.

Both are groups of `size` consecutive items that begin `stride` apart. Over an array a group is a
view, so that a million windows cost no memory; over an iterator a group is a tuple, made when it is
asked for out of exactly the items it needs.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar, cast, overload

import numpy as np

from rustllm._core.grouping import Last, TupleGroups
from rustllm.errors import ArgumentError, OutOfRangeError

__all__ = ["ArrayGroups", "chunks", "windows"]

T = TypeVar("T")
ArrayT = TypeVar("ArrayT", bound=np.ndarray[Any, Any])
Buffer = bytes | bytearray | memoryview | array  # type: ignore[type-arg]


class ArrayGroups(Sequence[ArrayT], Generic[ArrayT]):
    """Groups of consecutive rows of an array, each a view.

    What `windows` and `chunks` return for arrays. Only a padded last group is a copy.

    Attributes
    ----------
    full : ndarray, shape [n_full, size, ...]
        All groups that are full length, as one strided view; read-only, since rows may overlap.

    Notes
    -----
    Making one is O(1), and so is reading a group. Immutable; the memory is the array's own, which
    stays alive as long as any view.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import windows
    >>> view = windows(np.arange(6), 3, stride=2)
    >>> len(view), view[1].tolist(), view.full.shape
    (2, [2, 3, 4], (2, 3))
    """

    __slots__ = ("_rest", "full")

    full: ArrayT
    _rest: ArrayT | None

    def __init__(self, source: ArrayT, size: int, stride: int, last: int, fill: Any = None) -> None:
        if source.ndim == 0:
            raise ArgumentError("an array without dimensions has no rows to group")
        n = len(source)
        n_full = 0 if n < size else (n - size) // stride + 1
        step = source.strides[0]
        # Of no group, any size is true; 0 keeps the shape small.
        shape = (n_full, size if n_full else 0, *source.shape[1:])
        # Within bounds: the last row ends at (n_full - 1) * stride + size <= n.
        self.full = cast(
            "ArrayT",
            np.lib.stride_tricks.as_strided(
                source, shape, (step * stride, step, *source.strides[1:]), writeable=False
            ),
        )
        start = n_full * stride
        self._rest = None
        has_new_rows = n > 0 and (n_full == 0 or start + max(size - stride, 0) < n)
        if not has_new_rows or last == Last.DROP:
            return
        rest = source[start:]
        if last == Last.PAD:
            padded = np.empty((size, *source.shape[1:]), dtype=source.dtype)
            padded[: len(rest)] = rest
            padded[len(rest) :] = fill
            rest = cast("ArrayT", padded)
        else:
            rest = cast("ArrayT", rest.view())
        rest.flags.writeable = False
        self._rest = rest

    def __len__(self) -> int:
        return len(self.full) + (self._rest is not None)

    def __iter__(self) -> Iterator[ArrayT]:
        if self._rest is None:
            return iter(self.full)
        return self._iterate()

    def _iterate(self) -> Iterator[ArrayT]:
        yield from self.full
        yield cast("ArrayT", self._rest)

    @overload
    def __getitem__(self, index: int) -> ArrayT: ...
    @overload
    def __getitem__(self, index: slice) -> list[ArrayT]: ...
    def __getitem__(self, index: int | slice) -> ArrayT | list[ArrayT]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        n = len(self)
        if not -n <= index < n:
            raise OutOfRangeError(f"group {index} of {n}", index=index)
        index %= n
        if index < len(self.full):
            return cast("ArrayT", self.full[index])
        return cast("ArrayT", self._rest)

    def __repr__(self) -> str:
        return f"ArrayGroups({len(self)} groups of {self.full.shape[1:]})"


@overload
def windows(  # type: ignore[overload-overlap]
    source: ArrayT,
    size: int,
    *,
    stride: int = 1,
    last: Literal["drop", "keep", "pad"] = "drop",
    fill: Any = 0,
) -> ArrayGroups[ArrayT]: ...
@overload
def windows(  # type: ignore[overload-overlap]
    source: Buffer,
    size: int,
    *,
    stride: int = 1,
    last: Literal["drop", "keep", "pad"] = "drop",
    fill: Any = 0,
) -> ArrayGroups[np.ndarray[Any, Any]]: ...
@overload
def windows(
    source: Iterable[T],
    size: int,
    *,
    stride: int = 1,
    last: Literal["drop", "keep", "pad"] = "drop",
    fill: Any = 0,
) -> Iterator[tuple[T, ...]]: ...
def windows(
    source: Any,
    size: int,
    *,
    stride: int = 1,
    last: Literal["drop", "keep", "pad"] = "drop",
    fill: Any = 0,
) -> Any:
    """Slide a window of `size` items over `source`, `stride` items at a time.

    Parameters
    ----------
    source : ndarray, buffer, or iterable
        An array is grouped along its first axis; `bytes` and other buffers count as arrays.
    size : int
        Items in a window.
    stride : int
        Items between the starts of two windows. More than `size` leaves items out.
    last : {"drop", "keep", "pad"}
        What becomes of a last window that is too short but has items no window had before.
    fill
        What "pad" fills up with.

    Returns
    -------
    ArrayGroups
        For arrays and buffers: a sequence of views.
    iterator of tuple
        For everything else, lazy: a window is made out of the items pulled for it and no others.

    Raises
    ------
    ArgumentError
        `size` or `stride` is below 1, or `last` is none of the three.

    See Also
    --------
    chunks : groups that follow each other, the last one kept.

    Examples
    --------
    >>> from rustllm import windows
    >>> list(windows("abcd", 2))
    [('a', 'b'), ('b', 'c'), ('c', 'd')]
    >>> list(windows([1, 2, 3, 4, 5], 2, stride=3))
    [(1, 2), (4, 5)]
    """
    return _groups(source, size, stride, last, fill)


@overload
def chunks(  # type: ignore[overload-overlap]
    source: ArrayT,
    size: int,
    *,
    overlap: int = 0,
    drop_last: bool = False,
    pad: Any = None,
) -> ArrayGroups[ArrayT]: ...
@overload
def chunks(  # type: ignore[overload-overlap]
    source: Buffer,
    size: int,
    *,
    overlap: int = 0,
    drop_last: bool = False,
    pad: Any = None,
) -> ArrayGroups[np.ndarray[Any, Any]]: ...
@overload
def chunks(
    source: Iterable[T],
    size: int,
    *,
    overlap: int = 0,
    drop_last: bool = False,
    pad: Any = None,
) -> Iterator[tuple[T, ...]]: ...
def chunks(
    source: Any,
    size: int,
    *,
    overlap: int = 0,
    drop_last: bool = False,
    pad: Any = None,
) -> Any:
    """Cut `source` into chunks of `size` items; the last one may be shorter.

    Parameters
    ----------
    source : ndarray, buffer, or iterable
        As in `windows`.
    size : int
        Items in a chunk.
    overlap : int
        Items that a chunk repeats from the end of the one before, below `size`.
    drop_last : bool
        Leave out a last chunk that is too short.
    pad : optional
        Fill a last chunk that is too short up with this, so that all chunks have one length.

    Returns
    -------
    ArrayGroups or iterator of tuple
        As in `windows`.

    Raises
    ------
    ArgumentError
        `size` is below 1, `overlap` not in ``0 .. size - 1``, or both `drop_last` and `pad` given.

    Examples
    --------
    >>> from rustllm import chunks
    >>> list(chunks(range(5), 2))
    [(0, 1), (2, 3), (4,)]
    >>> list(chunks(range(6), 4, overlap=1, pad=-1))
    [(0, 1, 2, 3), (3, 4, 5, -1)]
    """
    if not 0 <= overlap < max(size, 1):
        raise ArgumentError(f"overlap must lie in 0 .. size - 1, got {overlap} for size {size}")
    if drop_last and pad is not None:
        raise ArgumentError("a last chunk that is dropped cannot be padded as well")
    last: Literal["drop", "keep", "pad"] = "drop" if drop_last else "keep" if pad is None else "pad"
    return _groups(source, size, size - overlap, last, pad)


_LAST = {"drop": 0, "keep": 1, "pad": 2}


def _groups(source: Any, size: int, stride: int, last: str, fill: Any) -> Any:
    if size < 1 or stride < 1:
        raise ArgumentError(f"size and stride must be at least 1, got {size} and {stride}")
    if size > sys.maxsize or stride > sys.maxsize:
        raise ArgumentError("size and stride must fit the machine's index type")
    rule = _LAST.get(last)
    if rule is None:
        raise ArgumentError(f"last must be 'drop', 'keep' or 'pad', got {last!r}")
    if isinstance(source, np.ndarray):
        return ArrayGroups(source, size, stride, rule, fill)
    if isinstance(source, bytes | bytearray | memoryview | array):
        if isinstance(source, bytes | bytearray):
            view = np.frombuffer(source, dtype=np.uint8)
        else:
            view = np.asarray(source)
        return ArrayGroups(view, size, stride, rule, fill)
    group = getattr(source, "_grouped", None)  # a source that can do better than item by item
    if group is not None:
        return group(size, stride, rule, fill)
    return TupleGroups(source, size, stride, rule, fill)

"""`TokenIterator`: a lazy iterator with methods, over token ids or anything made from them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import reduce as _reduce
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

import numpy as np

from rustllm._core.grouping import TupleGroups
from rustllm.errors import ArgumentError, OutOfRangeError

if TYPE_CHECKING:
    from rustllm.parallel import ParallelMap
    from rustllm.traits import SupportsEncode
    from rustllm.types import PathLikeStr, TokenArray

__all__ = ["TokenIterator"]

T = TypeVar("T")
U = TypeVar("U")


class TokenIterator(Iterator[T], Generic[T]):
    """A lazy iterator whose steps are methods.

    Nothing is read before an item is asked for, and no more than the item needs. A method that
    returns a `TokenIterator` takes the iterator over: use what it returns, not the old one.

    Over arrays, files and encoders the ids travel in blocks, so that `take`, `skip`, `window`,
    `chunk`, `where`, `count` and `to_numpy` work at the speed of numpy and, for an array, without
    copying; the first method that needs single items goes over to Python integers.

    Parameters
    ----------
    source : ndarray, TokenBatch, or iterable
        An array of integers gives its items, a `TokenBatch` all its ids; every other iterable
        gives what it yields.

    Notes
    -----
    Belongs to one thread at a time.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import TokenIterator
    >>> TokenIterator(range(10)).filter(lambda id: id % 2).map(lambda id: id * 10).take(3).to_list()
    [10, 30, 50]
    >>> TokenIterator(np.arange(7)).skip(1).chunk(3).to_list()
    [array([1, 2, 3]), array([4, 5, 6])]
    """

    __slots__ = ("_items",)

    _items: Iterator[T]

    @overload
    def __new__(
        cls: type[TokenIterator[Any]], source: np.ndarray[Any, Any]
    ) -> TokenIterator[int]: ...
    @overload
    def __new__(cls: type[TokenIterator[Any]], source: Iterable[U]) -> TokenIterator[U]: ...
    def __new__(cls: type[TokenIterator[Any]], source: Any = ()) -> Any:
        from rustllm.iterators.blocks import BlockTokens
        from rustllm.types import TokenBatch

        if isinstance(source, TokenBatch):
            source = source.ids
        if isinstance(source, np.ndarray):
            return BlockTokens.over([source])
        return cls._over(source)

    @classmethod
    def _over(cls, items: Iterable[U]) -> TokenIterator[U]:
        self = object.__new__(TokenIterator)
        self._items = iter(items)
        return cast("TokenIterator[U]", self)

    # -- sources --------------------------------------------------------------------------------

    @staticmethod
    def from_blocks(blocks: Iterable[np.ndarray[Any, Any]]) -> TokenIterator[int]:
        """Iterate over the ids of flat integer arrays, one array after the other."""
        from rustllm.iterators.blocks import BlockTokens

        return BlockTokens.over(blocks)

    @staticmethod
    def from_file(path: PathLikeStr, dtype: Any = None, *, offset: int = 0) -> TokenIterator[int]:
        """Iterate over the ids in a file, which is mapped and not read.

        Parameters
        ----------
        path : path
            A ``.npy`` file of one dimension, or bare integers of the machine's byte order.
        dtype : dtype, optional
            Type of bare integers; needed for them, and ``uint16`` or ``uint32`` as a rule.
        offset : int
            Bytes of bare integers to pass over first.

        Raises
        ------
        FileMissingError, FileAccessError
        FileFormatError
            The size is no multiple of the item size, or the ``.npy`` header is not of flat ids.
        """
        from rustllm.iterators.blocks import BlockTokens, map_file

        return BlockTokens.over([map_file(path, dtype, offset)])

    @staticmethod
    def from_texts(
        tokenizer: SupportsEncode, texts: Iterable[str], *, separator: int | None = None
    ) -> TokenIterator[int]:
        """Encode `texts` as they are needed, with the id `separator` after each.

        Special tokens in a text are read as text where the tokenizer has a way to say so.
        """
        from rustllm.iterators.blocks import BlockTokens, encode_texts

        return BlockTokens.over(encode_texts(tokenizer, texts, separator))

    # -- iteration ------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[T]:
        # The iterator beneath, so that a loop runs at its speed and not at a method call an item.
        return self._items

    def __next__(self) -> T:
        return next(self._items)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def peek(self, default: U | None = None) -> T | U | None:
        """Return the next item and leave it in place; `default` at the end."""
        for item in self:
            self._items = itertools.chain((item,), self._items)
            return item
        return default

    # -- one item to one item -------------------------------------------------------------------

    def map(self, function: Callable[[T], U]) -> TokenIterator[U]:
        """Replace each item by ``function(item)``."""
        return TokenIterator._over(map(function, iter(self)))

    def filter(self, predicate: Callable[[T], object] | None = None) -> TokenIterator[T]:
        """Keep the items for which ``predicate(item)`` is true; without one, the true items."""
        return TokenIterator._over(filter(predicate, iter(self)))

    def where(self, mask: Callable[[Any], Any]) -> TokenIterator[T]:
        """Keep items by a predicate that also works on whole arrays, like ``lambda x: x != 0``.

        Over blocks it is called once a block, which is some hundred times faster than `filter`.
        """
        return self.filter(mask)

    def inspect(self, function: Callable[[T], object]) -> TokenIterator[T]:
        """Call ``function(item)`` on each item as it passes."""

        def show(item: T) -> T:
            function(item)
            return item

        return TokenIterator._over(map(show, iter(self)))

    def enumerate(self, start: int = 0) -> TokenIterator[tuple[int, T]]:
        """Pair each item with its number."""
        return TokenIterator._over(enumerate(iter(self), start))

    def scan(self, function: Callable[[U, T], U], initial: U) -> TokenIterator[U]:
        """Yield the running results of ``function(result, item)``, without `initial` itself."""
        running = itertools.accumulate(iter(self), function, initial=initial)
        return TokenIterator._over(itertools.islice(cast("Iterator[U]", running), 1, None))

    # -- fewer items ----------------------------------------------------------------------------

    def take(self, n: int) -> TokenIterator[T]:
        """Keep the first `n` items."""
        _at_least(n, 0, "n")
        return TokenIterator._over(itertools.islice(iter(self), n))

    def skip(self, n: int) -> TokenIterator[T]:
        """Leave out the first `n` items; they are pulled when the first item is asked for."""
        _at_least(n, 0, "n")
        return TokenIterator._over(itertools.islice(iter(self), n, None))

    def take_while(self, predicate: Callable[[T], object]) -> TokenIterator[T]:
        """Keep items up to the first for which the predicate is false, which is used up."""
        return TokenIterator._over(itertools.takewhile(predicate, iter(self)))

    def skip_while(self, predicate: Callable[[T], object]) -> TokenIterator[T]:
        """Leave out items up to the first for which the predicate is false."""
        return TokenIterator._over(itertools.dropwhile(predicate, iter(self)))

    def step_by(self, step: int) -> TokenIterator[T]:
        """Keep the first of every `step` items."""
        _at_least(step, 1, "step")
        return TokenIterator._over(itertools.islice(iter(self), 0, None, step))

    # -- several items to one -------------------------------------------------------------------

    def window(
        self,
        size: int,
        *,
        stride: int = 1,
        last: Literal["drop", "keep", "pad"] = "drop",
        fill: Any = 0,
    ) -> TokenIterator[Any]:
        """Slide a window over the items; arguments as in `rustllm.windows`.

        Windows are tuples, or arrays where the ids travel in blocks.
        """
        from rustllm.iterators.grouping import windows

        return TokenIterator._over(windows(self, size, stride=stride, last=last, fill=fill))

    def chunk(
        self, size: int, *, overlap: int = 0, drop_last: bool = False, pad: Any = None
    ) -> TokenIterator[Any]:
        """Cut the items into chunks; arguments as in `rustllm.chunks`, results as in `window`."""
        from rustllm.iterators.grouping import chunks

        groups = chunks(self, size, overlap=overlap, drop_last=drop_last, pad=pad)
        return TokenIterator._over(groups)

    def batch(
        self,
        count: int | None = None,
        *,
        tokens: int | None = None,
        length: Callable[[T], int] | None = None,
        padded: bool = False,
    ) -> TokenIterator[list[T]]:
        """Gather items into lists by count and by tokens, as `rustllm.iterators.batched` does."""
        from rustllm.iterators.batching import batched

        return TokenIterator._over(
            batched(iter(self), count, tokens=tokens, length=length, padded=padded)
        )

    def _grouped(self, size: int, stride: int, last: int, fill: Any) -> Iterator[Any]:
        return TupleGroups(iter(self), size, stride, last, fill)

    # -- other shapes ---------------------------------------------------------------------------

    def chain(self, *others: Iterable[T]) -> TokenIterator[T]:
        """Go on with `others` after the last item."""
        return TokenIterator._over(itertools.chain(iter(self), *others))

    def zip(self, other: Iterable[U]) -> TokenIterator[tuple[T, U]]:
        """Pair each item with one of `other`, until either ends."""
        return TokenIterator._over(zip(iter(self), other))

    def flat_map(self, function: Callable[[T], Iterable[U]]) -> TokenIterator[U]:
        """Replace each item by the items of ``function(item)``."""
        return TokenIterator._over(itertools.chain.from_iterable(map(function, iter(self))))

    def flatten(self: TokenIterator[Iterable[U]]) -> TokenIterator[U]:
        """Replace each item, itself iterable, by its items."""
        return TokenIterator._over(itertools.chain.from_iterable(iter(self)))

    def dedup(self) -> TokenIterator[T]:
        """Leave out items that equal the one before."""
        return TokenIterator._over(key for key, _ in itertools.groupby(iter(self)))

    def parallel_map(self, function: Callable[[T], U], **options: Any) -> ParallelMap[U]:
        """Map with several workers; options as in `rustllm.parallel_map`."""
        from rustllm.parallel import parallel_map

        return parallel_map(function, self, **options)

    # -- to the end -----------------------------------------------------------------------------

    def first(self, default: U | None = None) -> T | U | None:
        """Return the next item, or `default` at the end."""
        return next(iter(self), default)

    def nth(self, n: int) -> T:
        """Return the item `n` from here, counted from 0; OutOfRangeError when there is none."""
        _at_least(n, 0, "n")
        for item in self.skip(n):
            return item
        raise OutOfRangeError(f"there is no item {n}", index=n)

    def last(self, default: U | None = None) -> T | U | None:
        """Return the last item, or `default` when there is none."""
        rest = deque(iter(self), maxlen=1)
        return rest[0] if rest else default

    def count(self) -> int:
        """Return the number of items that are left."""
        counter = itertools.count()
        deque(zip(iter(self), counter), maxlen=0)
        return next(counter)

    def fold(self, function: Callable[[U, T], U], initial: U) -> U:
        """Return the result of ``function(result, item)`` over all items."""
        return _reduce(function, iter(self), initial)

    def for_each(self, function: Callable[[T], object]) -> None:
        """Call ``function(item)`` on each item."""
        for item in self:
            function(item)

    def find(self, predicate: Callable[[T], object]) -> T | None:
        """Return the first item for which the predicate is true, or None."""
        return next(filter(predicate, iter(self)), None)

    def any(self, predicate: Callable[[T], object]) -> bool:
        """Whether the predicate is true for some item; stops at the first."""
        return any(map(predicate, iter(self)))

    def all(self, predicate: Callable[[T], object]) -> bool:
        """Whether the predicate is true for every item; stops at the first that fails."""
        return all(map(predicate, iter(self)))

    def to_list(self) -> list[T]:
        """Return the items that are left as a list."""
        return list(iter(self))

    def to_numpy(self) -> TokenArray:
        """Return the ids that are left as ``uint32 [n]``; ArgumentError when they are no ids."""
        from rustllm.types import as_token_array

        return as_token_array(cast("list[int]", self.to_list()))


def _at_least(value: int, low: int, name: str) -> None:
    if value < low:
        raise ArgumentError(f"{name} must be at least {low}, got {value}")

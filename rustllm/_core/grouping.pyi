from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")

class Last(IntEnum):
    DROP = 0
    KEEP = 1
    PAD = 2

class TupleGroups(Generic[T], Iterator[tuple[T, ...]]):
    def __init__(
        self, source: Iterable[T], size: int, stride: int, last: int, fill: Any = None
    ) -> None: ...
    def __next__(self) -> tuple[T, ...]: ...

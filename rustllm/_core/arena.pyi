from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, SupportsIndex, overload

from numpy.typing import DTypeLike, NDArray

OnLive = Literal["retire", "raise"]

class ArenaStats(NamedTuple):
    """What an arena holds and has done. Sizes in bytes."""

    used_bytes: int
    peak_bytes: int
    held_bytes: int
    idle_bytes: int
    retired_bytes: int
    limit: int | None
    n_chunks: int
    n_retired: int
    n_buffers: int
    n_live: int
    n_views: int
    n_pins: int
    n_resets: int

class Mark:
    """A position in an arena, from :meth:`Arena.mark`, to roll back to."""

class ArenaBuffer:
    """Writable memory of an :class:`Arena`: a flat buffer of bytes."""

    @property
    def nbytes(self) -> int: ...
    @property
    def address(self) -> int: ...
    @property
    def is_stale(self) -> bool: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> memoryview: ...
    @overload
    def __setitem__(self, index: SupportsIndex, value: int) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Any) -> None: ...

class ArenaScope:
    """``with arena.scope():`` takes back, at its end, what was allocated inside."""

    def __enter__(self) -> Arena: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...

class ArenaPin:
    """``with arena.pin():`` keeps memory handed out by address where and what it is."""

    def __enter__(self) -> Arena: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...

class Arena:
    """Memory that is handed out by moving a pointer and taken back all at once."""

    def __init__(self, chunk_size: int = ..., limit: int | None = None) -> None: ...
    def alloc(self, n: int, align: int = 16, *, zeroed: bool = False) -> ArenaBuffer: ...
    def alloc_array(
        self,
        shape: int | tuple[int, ...] | list[int],
        dtype: DTypeLike = "float64",
        *,
        align: int = 64,
        zeroed: bool = False,
    ) -> NDArray[Any]: ...
    def mark(self) -> Mark: ...
    def rollback(self, mark: Mark, *, on_live: OnLive = "retire") -> None: ...
    def scope(self, *, on_live: OnLive = "retire") -> ArenaScope: ...
    def pin(self) -> ArenaPin: ...
    def reset(self, *, on_live: OnLive = "retire") -> None: ...
    def trim(self) -> int: ...
    def close(self) -> None: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def stats(self) -> ArenaStats: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...

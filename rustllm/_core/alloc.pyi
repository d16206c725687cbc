from types import TracebackType
from typing import NamedTuple

POISONING: bool
MAX_ALIGN: int

class HeapStats(NamedTuple):
    """Memory that the allocators hold from the system."""

    n_blocks: int
    n_bytes: int
    n_allocations: int

class fail_after:  # noqa: N801 (reads as a statement: `with fail_after(3)`)
    """Let allocations fail after `n` more have succeeded, to test what happens then."""

    n_failed: int
    def __init__(self, n: int, times: int | None = None) -> None: ...
    def __enter__(self) -> fail_after: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

def heap_stats() -> HeapStats: ...

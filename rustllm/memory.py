"""Memory whose owner is clear: arenas and token pools.

:class:`Arena`
    hands out memory by moving a pointer, and takes it all back at once.
:class:`TokenPool`
    lends token buffers that are used again when they come back.

Nothing here can leave a dangling view: memory that an array or :class:`memoryview` still sees is
never given back or handed out again. C and Cython code reaches the same objects without Python
through the installed ``rustllm/_core/arena.pxd`` and ``pool.pxd``. Limits, statistics, tracking and
failures on purpose are put around an arena by the wrappers of :mod:`rustllm.allocators`.
"""

import rustllm.errors  # noqa: F401 (so that the compiled floor raises its classes)
from rustllm._core.arena import Arena, ArenaBuffer, ArenaStats
from rustllm._core.pool import Lease, PoolStats, TokenPool

__all__ = ["Arena", "ArenaBuffer", "ArenaStats", "Lease", "PoolStats", "TokenPool"]

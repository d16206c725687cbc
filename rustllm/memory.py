"""Memory whose owner is clear: arenas, token pools, slices and copies on write.

:class:`Arena`
    hands out memory by moving a pointer, and takes it all back at once.
:class:`TokenPool`
    lends token buffers that are used again when they come back.
:class:`TextSlice`, :class:`ByteView`
    look at a part of somebody else's text or bytes without copying it; :class:`Interner` gives each
    different text one object and one number.
:class:`Cow`
    borrows an array or bytes until the first write, and copies then.

Nothing here can leave a dangling view: memory that an array or :class:`memoryview` still sees is
never given back or handed out again. C and Cython code reaches the same objects without Python
through the installed ``rustllm/_core/arena.pxd``, ``pool.pxd`` and ``view.pxd``. Limits,
statistics, tracking and failures on purpose are put around an arena by the wrappers of
:mod:`rustllm.allocators`.
"""

import rustllm.errors  # noqa: F401 (so that the compiled floor raises its classes)
from rustllm._core.arena import Arena, ArenaBuffer, ArenaStats
from rustllm._core.cow import Cow
from rustllm._core.intern import Interner
from rustllm._core.pool import Lease, PoolStats, TokenPool
from rustllm._core.utf8 import is_ascii, validate_utf8
from rustllm._core.view import ByteView, TextSlice

__all__ = [
    "Arena",
    "ArenaBuffer",
    "ArenaStats",
    "ByteView",
    "Cow",
    "Interner",
    "Lease",
    "PoolStats",
    "TextSlice",
    "TokenPool",
    "is_ascii",
    "validate_utf8",
]

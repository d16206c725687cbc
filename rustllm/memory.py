"""Memory whose owner is clear: arenas.

:class:`Arena`
    hands out memory by moving a pointer, and takes it all back at once.

Nothing here can leave a dangling view: memory that an array or :class:`memoryview` still sees is
never given back or handed out again. C and Cython code reaches the same objects without Python
through the installed ``rustllm/_core/arena.pxd``.
"""

import rustllm.errors  # noqa: F401 (so that the compiled floor raises its classes)
from rustllm._core.arena import Arena, ArenaBuffer, ArenaStats

__all__ = ["Arena", "ArenaBuffer", "ArenaStats"]

"""Keys and values of one sequence.

For each layer and KV head the keys lie sixteen positions side by side,
``[capacity / 16][padded_dim][16]``, and the values row by row, ``[capacity][padded_dim]``, in half
or single precision. Memory is zeroed and taken from the system as positions are written.
"""

import numpy as np

from libc.stdint cimport int64_t

from rustllm._core.zeroed cimport ZeroedMemory

cdef enum:
    SEGMENT = 128


cdef class KVCache:
    """Cache for `context` positions.

    Parameters
    ----------
    n_layers, n_kv_heads, head_dim : int
    context : int
        Positions that fit.
    is_half : bool
        Half precision (the default of models) instead of single.

    Raises
    ------
    MemoryError
        The address space cannot be had.

    Notes
    -----
    One thread at a time may write; see ``State``.
    """

    def __init__(self, int n_layers, int n_kv_heads, int head_dim, int context, bint is_half=True):
        if min(n_layers, n_kv_heads, head_dim, context) < 1 or context > 1 << 30:
            raise ValueError("a cache needs at least one layer, head, dimension and position")
        self.n_layers = n_layers
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim
        self.padded_dim = (head_dim + 15) // 16 * 16
        self.context = context
        self.capacity = (context + SEGMENT - 1) // SEGMENT * SEGMENT
        self.is_half = is_half
        self.position = 0
        size = self._plane() * 2 * n_layers * n_kv_heads
        self.memory = ZeroedMemory(size, f"{context} positions")

    cdef int64_t _plane(self) noexcept nogil:
        return <int64_t>self.capacity * self.padded_dim * (2 if self.is_half else 4)

    cdef CacheView view(self) noexcept nogil:
        cdef CacheView v
        v.data = self.memory.data
        v.plane = self._plane()
        v.n_kv_heads = self.n_kv_heads
        v.is_half = self.is_half
        return v

    @property
    def nbytes(self):
        """Bytes of address space; those of positions never written take no memory."""
        return self._plane() * 2 * self.n_layers * self.n_kv_heads

    def _array(self):
        dtype = np.float16 if self.is_half else np.float32
        return np.frombuffer(self.memory.mapping, dtype).reshape(
            self.n_layers, self.n_kv_heads, 2, self.capacity * self.padded_dim
        )

    def _rows(self):
        # Keys come in blocks of sixteen positions: copy whole blocks.
        return min(self.capacity, (self.position + 15) // 16 * 16) * self.padded_dim

    def to_array(self):
        """The stored positions, `[n_layers, n_kv_heads, 2, rows * padded_dim]`, a copy."""
        return self._array()[..., : self._rows()].copy()

    def from_array(self, array, int position):
        """Take stored positions back; the shape must be what :meth:`to_array` gives there."""
        if not 0 <= position <= self.context:
            raise ValueError(f"position {position} in a cache of {self.context}")
        before = self.position
        self.position = position
        target = self._array()[..., : self._rows()]
        if array.shape != target.shape or array.dtype != target.dtype:
            self.position = before
            raise ValueError(
                f"expected {target.dtype}{list(target.shape)}, "
                f"got {array.dtype}{list(array.shape)}")
        target[...] = array

    def copy(self):
        """An independent cache with the same content."""
        other = KVCache(self.n_layers, self.n_kv_heads, self.head_dim, self.context, self.is_half)
        other.from_array(self._array()[..., : self._rows()], self.position)
        return other

"""Keys and values of one sequence, in segments of 128 positions that forks share.

In a segment each layer and KV head has its keys, then its values, both in blocks of sixteen
positions as ``simd/attention_portable.h`` describes them, in single or half precision, bfloat16, or
int8 with a scale for 32 dimensions of a position. Segments are made as positions are written. A
fork takes the same segments; who writes into one that others hold copies it first, so that only the
last, half-filled one is ever copied.
"""

import mmap

import numpy as np

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from rustllm._core.zeroed cimport ZeroedMemory

cdef extern from "attention_portable.h" nogil:
    ptrdiff_t rl_kv_block_bytes(int, int) noexcept

cdef enum:
    HUGE_PAGE = 2 << 20
    ALIGN = 64

# Names of what a cache may hold, at their RL_KV_... .
DTYPES = ("float32", "float16", "bfloat16", "int8")


cdef class Segment:
    """Memory of 128 positions."""

    def __cinit__(self, int64_t n_bytes):
        # Writing one position touches every head's part, so huge pages cost no memory.
        cdef int64_t align = HUGE_PAGE if n_bytes >= HUGE_PAGE else ALIGN
        self.memory = ZeroedMemory(n_bytes + align, "keys and values", huge=align == HUGE_PAGE)
        self.data = <uint8_t*>((<size_t>self.memory.data + align - 1) // align * align)
        if align == HUGE_PAGE and hasattr(mmap, "MADV_NOHUGEPAGE"):
            # What is left over after whole huge pages would take another one.
            start = self.data - self.memory.data + n_bytes // HUGE_PAGE * HUGE_PAGE
            try:
                self.memory.mapping.madvise(
                    mmap.MADV_NOHUGEPAGE, start, n_bytes + HUGE_PAGE - start)
            except OSError:
                pass  # a kernel without huge pages
        self.users = 1


cdef class KVCache:
    """Cache for `context` positions.

    Parameters
    ----------
    n_layers, n_kv_heads, head_dim : int
    context : int
        Positions that fit.
    dtype : str
        One of `DTYPES`: what keys and values are kept in.

    Notes
    -----
    One thread at a time may use a cache; see ``State``. Caches that share segments may be used by
    different threads: what is shared is only read.
    """

    def __init__(self, int n_layers, int n_kv_heads, int head_dim, int context,
                 str dtype="float16"):
        if min(n_layers, n_kv_heads, head_dim, context) < 1 or context > 1 << 30:
            raise ValueError("a cache needs at least one layer, head, dimension and position")
        if dtype not in DTYPES:
            raise ValueError(f"a cache of {dtype!r}: there are {', '.join(DTYPES)}")
        if self.pointers != NULL:
            raise TypeError("a cache is made once")
        self.n_layers = n_layers
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim
        self.padded_dim = (head_dim + 15) // 16 * 16
        self.context = context
        self.dtype = dtype
        self.kind = DTYPES.index(dtype)
        self.position = 0
        self.segments = []
        self.pointers = <uint8_t**>calloc((context + SEGMENT - 1) // SEGMENT, sizeof(uint8_t*))
        if self.pointers == NULL:
            raise MemoryError(f"a cache of {context} positions")

    def __dealloc__(self):
        if self.segments is not None:
            self._drop(0)
        free(self.pointers)

    cdef int64_t _plane(self) noexcept nogil:
        return SEGMENT // 16 * <int64_t>rl_kv_block_bytes(self.kind, self.padded_dim)

    cdef int64_t _segment_bytes(self) noexcept nogil:
        return self._plane() * 2 * self.n_layers * self.n_kv_heads

    cdef CacheView view(self) noexcept nogil:
        cdef CacheView v
        v.segments = self.pointers
        v.plane = self._plane()
        v.n_kv_heads = self.n_kv_heads
        v.kind = self.kind
        return v

    cdef int reserve(self, int n) except -1:
        """Make room to write `n` more positions: new segments, and copies of shared ones."""
        cdef int i, last = (self.position + n - 1) // SEGMENT
        cdef Segment old, new
        if n < 1 or self.position + n > self.context:
            raise ValueError(f"{n} more tokens in a context of {self.context}")
        for i in range(self.position // SEGMENT, last + 1):
            if i < len(self.segments):
                old = self.segments[i]
                if old.users == 1:
                    continue
                new = Segment(self._segment_bytes())
                if i == self.position // SEGMENT and self.position % SEGMENT:
                    with nogil:
                        self._copy_stored(old.data, new.data, self.position % SEGMENT)
                # Only now: as long as it counts twice, nobody writes into it.
                old.users -= 1
                self.segments[i] = new
            else:
                new = Segment(self._segment_bytes())
                self.segments.append(new)
            self.pointers[i] = new.data
        return 0

    cdef void _copy_stored(self, uint8_t* source, uint8_t* target, int n) noexcept nogil:
        """Copy the first `n` positions of a segment, which come in blocks of sixteen."""
        cdef int64_t plane = self._plane(), stored = plane // SEGMENT * ((n + 15) // 16 * 16)
        cdef int64_t i
        for i in range(2 * <int64_t>self.n_layers * self.n_kv_heads):
            memcpy(target + i * plane, source + i * plane, stored)

    cdef int _drop(self, int n) except -1:
        """Let go of all but the first `n` segments."""
        cdef Segment segment
        while len(self.segments) > n:
            segment = self.segments.pop()
            segment.users -= 1
        return 0

    def advance(self, int n):
        """Count `n` positions that were written as stored."""
        if n < 0 or self.position + n > SEGMENT * <int64_t>len(self.segments):
            raise ValueError(f"{n} more positions were not written")
        self.position += n

    def truncate(self, int n):
        """Forget all but the first `n` positions, and give back segments that others hold."""
        cdef int i, kept = (n + SEGMENT - 1) // SEGMENT
        cdef Segment segment
        if not 0 <= n <= self.position:
            raise ValueError(f"cannot keep {n} of {self.position} positions")
        self.position = n
        # Segments of our own stay for the next tokens; one that is shared could not be written.
        for i in range(kept, len(self.segments)):
            segment = self.segments[i]
            if segment.users > 1:
                self._drop(i)
                break

    def fork(self):
        """A cache with the same positions, in the same memory until one of the two writes."""
        cdef KVCache other = KVCache(
            self.n_layers, self.n_kv_heads, self.head_dim, self.context, self.dtype)
        cdef Segment segment
        cdef int i, kept = (self.position + SEGMENT - 1) // SEGMENT
        for i in range(kept):
            segment = self.segments[i]
            segment.users += 1
            other.segments.append(segment)
            other.pointers[i] = segment.data
        other.position = self.position
        return other

    @property
    def nbytes(self):
        """Bytes of the segments held, also of those that others hold too."""
        return self._segment_bytes() * len(self.segments)

    @property
    def shared_bytes(self):
        """Bytes of the segments that others hold too."""
        return self._segment_bytes() * sum([(<Segment>s).users > 1 for s in self.segments])

    def _planes(self, int index):
        """Segment `index` as bytes, ``[n_layers * n_kv_heads * 2, plane]``."""
        cdef Segment segment = self.segments[index]
        cdef int64_t start = segment.data - segment.memory.data
        flat = np.frombuffer(segment.memory.mapping, np.uint8)[start:start + self._segment_bytes()]
        return flat.reshape(-1, self._plane())

    def _stored(self, int index, int position):
        """Bytes of each plane that hold positions, of segment `index` of `position` positions."""
        n = min(SEGMENT, position - index * SEGMENT)
        return self._plane() // SEGMENT * ((n + 15) // 16 * 16)

    def to_arrays(self):
        """The stored positions, one uint8 array ``[planes, bytes]`` a segment; no copies."""
        arrays = []
        for i in range((self.position + SEGMENT - 1) // SEGMENT):
            arrays.append(self._planes(i)[:, : self._stored(i, self.position)])
        return arrays

    def from_arrays(self, arrays, int position):
        """Take stored positions back, as :meth:`to_arrays` of an equal cache gave them.

        Raises
        ------
        ValueError
            They do not fit; the cache is unchanged.
        """
        cdef KVCache other = KVCache(
            self.n_layers, self.n_kv_heads, self.head_dim, self.context, self.dtype)
        cdef Segment segment
        cdef int i
        n = (position + SEGMENT - 1) // SEGMENT
        if not 0 <= position <= self.context or len(arrays) != n:
            raise ValueError(f"{len(arrays)} segments for {position} of {self.context} positions")
        planes = 2 * self.n_layers * self.n_kv_heads
        for i, array in enumerate(arrays):
            expected = (planes, self._stored(i, position))
            if array.shape != expected or array.dtype != np.uint8:
                raise ValueError(
                    f"segment {i}: {array.dtype}{list(array.shape)}, not uint8{list(expected)}")
        if position:
            other.reserve(position)
        for i, array in enumerate(arrays):
            other._planes(i)[:, : array.shape[1]] = array
        self._drop(0)
        self.segments, other.segments = other.segments, []
        for i in range(n):
            segment = self.segments[i]
            self.pointers[i] = segment.data
        self.position = position

"""One segment of attention on arrays, to hold every level of the kernels against plain C.

Models reach the same kernels through :mod:`rustllm._core.engine`, which deals segments out to
threads and merges what they give.
"""

import numpy as np

from libc.stddef cimport ptrdiff_t

from rustllm._core.dispatch cimport simd_level

from rustllm._core.kv_cache import DTYPES

cdef extern from "attention.h" nogil:
    enum:
        RL_SEGMENT
        RL_MAX_QUERIES
    ctypedef struct rl_segment:
        const void* keys
        const void* values
        int kind
        int head_dim
        float softcap
        int n_queries
        const float* query[8]
        int first[8]
        int last[8]
        float max[8]
        float sum[8]
        float* out[8]
    ctypedef void (*rl_segment_fn)(rl_segment*) noexcept nogil
    ctypedef void (*rl_store_fn)(const float*, const float*, void*, void*, int, int,
                                 ptrdiff_t) noexcept nogil
    ptrdiff_t rl_kv_block_bytes(int, int) noexcept
    rl_segment_fn rl_attend_kernel(int) noexcept
    rl_store_fn rl_store_kernel(int) noexcept


def store_positions(const float[:, ::1] keys, const float[:, ::1] values, str dtype):
    """The planes of keys and of values, as bytes, that positions take in a cache."""
    cdef int i, n = <int>keys.shape[0], dim = <int>keys.shape[1]
    if n > RL_SEGMENT or dim < 16 or dim % 16 or values.shape[0] != n or values.shape[1] != dim:
        raise ValueError("keys and values are at most 128 rows of a multiple of 16")
    cdef int kind = DTYPES.index(dtype)
    planes = np.zeros((2, RL_SEGMENT // 16 * rl_kv_block_bytes(kind, dim)), np.uint8)
    cdef unsigned char[:, ::1] p = planes
    cdef rl_store_fn store = rl_store_kernel(simd_level())
    with nogil:
        for i in range(n):
            store(&keys[i, 0], &values[i, 0], &p[0, 0], &p[1, 0], kind, dim, i)
    return planes


def attend(const unsigned char[:, ::1] planes, const float[:, ::1] queries, first, last,
           str dtype, float softcap=0.0):
    """Weighted sums of values ``[n, dim]``, maxima, sums ``[n]``, over first..last-1 of each."""
    cdef int i, n = <int>queries.shape[0], dim = <int>queries.shape[1]
    cdef int kind = DTYPES.index(dtype)
    cdef rl_segment s
    if not 1 <= n <= RL_MAX_QUERIES or dim < 16 or dim % 16:
        raise ValueError("one to eight queries of a multiple of 16")
    if planes.shape[0] != 2 or planes.shape[1] != RL_SEGMENT // 16 * rl_kv_block_bytes(kind, dim):
        raise ValueError("the planes are those of another dimension or dtype")
    out = np.empty((n, dim), np.float32)
    cdef float[:, ::1] o = out
    s.keys = &planes[0, 0]
    s.values = &planes[1, 0]
    s.kind = kind
    s.head_dim = dim
    s.softcap = softcap
    s.n_queries = n
    for i in range(n):
        if not 0 <= first[i] <= last[i] <= RL_SEGMENT:
            raise ValueError(f"positions {first[i]} to {last[i]} of a segment of {RL_SEGMENT}")
        s.query[i] = &queries[i, 0]
        s.first[i] = first[i]
        s.last[i] = last[i]
        s.out[i] = &o[i, 0]
    cdef rl_segment_fn kernel = rl_attend_kernel(simd_level())
    with nogil:
        kernel(&s)
    return out, np.array([s.max[i] for i in range(n)], np.float32), \
        np.array([s.sum[i] for i in range(n)], np.float32)

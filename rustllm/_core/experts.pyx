"""Mixtures of experts: which experts a token goes through, and those products alone.

Tokens are sorted by expert, so that each expert's weights are read once a call and only where a
token was sent to it. What a token gets depends on that token alone: its experts' outputs are added
in the order of their weights, the largest first, whatever else is in the batch.
"""

from libc.stddef cimport ptrdiff_t
from libc.string cimport memcpy, memset

from rustllm._core.linear cimport (
    RL_ACT_FLOAT,
    RL_ACT_INT8,
    log2_width,
    mm_fn,
    tile_start,
    tile_width,
)

cdef extern from "atomics.h" nogil:
    int rl_fetch_add(int*, int) noexcept

cdef extern from "vector_math.h" nogil:
    float rl_exp_portable(float) noexcept

cdef enum:
    GROUP = 16
    PARTS = 8                   # units a thread, so that threads end together


cdef inline int64_t _blocks(int n) noexcept nogil:
    return (n + 31) // 32


cdef inline int64_t _record(int n, bint is_float) noexcept nogil:
    """Bytes of one column of inputs."""
    return _blocks(n) * (RL_ACT_FLOAT if is_float else RL_ACT_INT8)


cdef inline int64_t _aligned(int64_t n) noexcept nogil:
    return (n + 63) // 64 * 64


cdef int64_t _lay(const ExpertLayer* layer, int64_t n, uint8_t* memory,
                  ExpertSpace* out) noexcept nogil:
    """Give each field its place from `memory` on; the bytes that all of them take."""
    cdef int64_t columns = n * layer.n_used, at = 0
    cdef int64_t hidden = _blocks(layer.n_hidden) * 32 * sizeof(float)
    out.chosen = <int32_t*>(memory + at)
    at += _aligned(columns * sizeof(int32_t))
    out.weights = <float*>(memory + at)
    at += _aligned(columns * sizeof(float))
    out.column = <int32_t*>(memory + at)
    at += _aligned(columns * sizeof(int32_t))
    out.first = <int32_t*>(memory + at)
    at += _aligned((layer.n_experts + 1) * sizeof(int32_t))
    out.active = <int32_t*>(memory + at)
    at += _aligned(layer.n_experts * sizeof(int32_t))
    out.inputs = memory + at
    at += _aligned(columns * _record(layer.n_in, layer.float_in))
    out.gate = <float*>(memory + at)
    at += _aligned(columns * hidden)
    out.up = <float*>(memory + at)
    at += _aligned(columns * hidden)
    out.hidden = memory + at
    at += _aligned(columns * _record(layer.n_hidden, layer.float_hidden))
    out.outputs = <float*>(memory + at)
    at += _aligned(columns * _blocks(layer.n_in) * 32 * sizeof(float))
    return at


cdef int64_t expert_bytes(const ExpertLayer* layer, int64_t n) noexcept nogil:
    cdef ExpertSpace unused
    return _lay(layer, n, NULL, &unused)


cdef void expert_place(const ExpertLayer* layer, int64_t n, uint8_t* memory,
                       ExpertSpace* out) noexcept nogil:
    _lay(layer, n, memory, out)
    out.n_active = 0


cdef void expert_route(const ExpertLayer* layer, ExpertSpace* space, int token,
                       const float* scores) noexcept nogil:
    """The experts with the highest scores, and their shares of the softmax over all of them.

    Equal scores go to the expert with the lower number. O(n_experts * n_used).
    """
    cdef int k = layer.n_used, n = layer.n_experts, i, j, filled = 0
    cdef int32_t* chosen = space.chosen + <int64_t>token * k
    cdef float* weights = space.weights + <int64_t>token * k
    cdef float total = 0.0, top
    for i in range(n):
        # Insertion into the best so far, which `weights` holds as scores for now. A score that is
        # not a number is never above another, and so comes last.
        j = filled
        while j > 0 and not scores[i] <= weights[j - 1] and scores[i] == scores[i]:
            j -= 1
        if j >= k:
            continue
        filled = min(filled + 1, k)
        memmove_up(chosen, weights, j, filled)
        chosen[j] = i
        weights[j] = scores[i]
    top = weights[0]
    if layer.normalise:
        for j in range(k):
            weights[j] = rl_exp_portable(weights[j] - top)
            total += weights[j]
    else:
        for i in range(n):
            total += rl_exp_portable(scores[i] - top)
        for j in range(k):
            weights[j] = rl_exp_portable(weights[j] - top)
    for j in range(k):
        weights[j] /= total


cdef inline void memmove_up(int32_t* chosen, float* weights, int at, int n) noexcept nogil:
    """Make room at `at` among the first `n`; the last falls out."""
    cdef int i
    for i in range(n - 1, at, -1):
        chosen[i] = chosen[i - 1]
        weights[i] = weights[i - 1]


cdef void expert_sort(const ExpertLayer* layer, ExpertSpace* space, int n) noexcept nogil:
    """Give each token its columns: those of an expert in the order of the tokens."""
    cdef int64_t i, columns = <int64_t>n * layer.n_used
    cdef int e, at = 0, count
    memset(space.first, 0, (layer.n_experts + 1) * sizeof(int32_t))
    for i in range(columns):
        space.first[space.chosen[i]] += 1
    space.n_active = 0
    for e in range(layer.n_experts):
        count = space.first[e]
        space.first[e] = at
        at += count
        if count:
            space.active[space.n_active] = e
            space.n_active += 1
    space.first[layer.n_experts] = at
    # `first` moves on while columns are given out, and is put back afterwards.
    for i in range(columns):
        e = space.chosen[i]
        space.column[i] = space.first[e]
        space.first[e] += 1
    for e in range(layer.n_experts - 1, 0, -1):
        space.first[e] = space.first[e - 1]
    space.first[0] = 0


cdef void _lay_out(LinearKernels* kernels, bint is_float, const float* x, int n, uint8_t* tiles,
                   int count, int c) noexcept nogil:
    """Column `c` of an expert that has `count`."""
    cdef int start = tile_start(count, c)
    cdef uint8_t* tile = tiles + start * _record(n, is_float)
    if is_float:
        kernels.lay_out(x, <int>_blocks(n), tile, tile_width(count, start), c - start)
    else:
        kernels.quantize(x, <int>_blocks(n), tile, tile_width(count, start), c - start)


cdef void expert_input(const ExpertLayer* layer, ExpertSpace* space, LinearKernels* kernels,
                       int token, const float* x) noexcept nogil:
    """Lay a token out for each of its experts; `x` has zeros up to a whole block."""
    cdef int64_t i = <int64_t>token * layer.n_used
    cdef int64_t record = _record(layer.n_in, layer.float_in)
    cdef int j, e, first
    for j in range(layer.n_used):
        e = space.chosen[i + j]
        first = space.first[e]
        _lay_out(kernels, layer.float_in, x, layer.n_in, space.inputs + first * record,
                 space.first[e + 1] - first, space.column[i + j] - first)


cdef void _multiply(LinearKernels* kernels, bint is_float, const rl_matrix* m, int g0, int g1,
                    const uint8_t* tiles, int64_t record, int count, float* y,
                    int64_t stride) noexcept nogil:
    """Rows of groups g0..g1-1 of one matrix, for all columns of its expert."""
    cdef mm_fn* products = &kernels.floats[0] if is_float else &kernels.int8[0]
    cdef int g = g0, end, c, width
    cdef rl_matrix part = m[0]
    while g < g1:
        # As in the engine: one column streams through, more stay with a group of weights.
        end = g1 if count == 1 else g + 1
        c = 0
        while c < count:
            width = tile_width(count, c)
            part.ahead = c == 0
            products[log2_width(width)](&part, g, end, tiles + record * c, y + c * stride,
                                        <ptrdiff_t>stride, NULL)
            c += width
        g = end


cdef inline int _step(int groups, int n_active, int n_threads) noexcept nogil:
    """Groups that are dealt out at a time."""
    return max(1, min(groups, groups * n_active // (n_threads * PARTS)))


cdef void expert_gated(const ExpertLayer* layer, ExpertSpace* space, LinearKernels* kernels,
                       activate_fn activate, int* next, int n_threads) noexcept nogil:
    """``activation(gate x) * (up x)`` of every column, dealt out by experts and rows."""
    cdef int groups = (layer.n_hidden + GROUP - 1) // GROUP
    cdef int step = _step(groups, space.n_active, n_threads), parts = (groups + step - 1) // step
    cdef int64_t stride = _blocks(layer.n_hidden) * 32
    cdef int64_t record = _record(layer.n_in, layer.float_in)
    cdef const uint8_t* tiles
    cdef float* gate
    cdef float* up
    cdef int unit, e, first, count, g0, g1, c, rows
    while True:
        unit = rl_fetch_add(next, 1)
        if unit >= space.n_active * parts:
            return
        e = space.active[unit // parts]
        first = space.first[e]
        count = space.first[e + 1] - first
        g0 = unit % parts * step
        g1 = min(g0 + step, groups)
        tiles = space.inputs + first * record
        gate = space.gate + first * stride
        up = space.up + first * stride
        _multiply(kernels, layer.float_in, layer.gate[e], g0, g1, tiles, record, count, gate,
                  stride)
        _multiply(kernels, layer.float_in, layer.up[e], g0, g1, tiles, record, count, up, stride)
        rows = min(g1 * GROUP, layer.n_hidden) - g0 * GROUP
        for c in range(count):
            activate(layer.activation, gate + c * stride + g0 * GROUP, up + c * stride + g0 * GROUP,
                     rows)


cdef void expert_hidden(const ExpertLayer* layer, ExpertSpace* space, LinearKernels* kernels,
                        int column, float* scratch) noexcept nogil:
    """Lay out what came of `expert_gated` in one column."""
    cdef int64_t stride = _blocks(layer.n_hidden) * 32
    cdef int64_t record = _record(layer.n_hidden, layer.float_hidden)
    cdef int low = 0, high = space.n_active - 1, middle, e, first
    while low < high:           # the last active expert that begins at or before the column
        middle = (low + high + 1) // 2
        if space.first[space.active[middle]] <= column:
            low = middle
        else:
            high = middle - 1
    e = space.active[low]
    first = space.first[e]
    memcpy(scratch, space.gate + column * stride, layer.n_hidden * sizeof(float))
    memset(scratch + layer.n_hidden, 0, (stride - layer.n_hidden) * sizeof(float))
    _lay_out(kernels, layer.float_hidden, scratch, layer.n_hidden, space.hidden + first * record,
             space.first[e + 1] - first, column - first)


cdef void expert_down(const ExpertLayer* layer, ExpertSpace* space, LinearKernels* kernels,
                      int* next, int n_threads) noexcept nogil:
    """The second matrix of every column's expert."""
    cdef int groups = (layer.n_in + GROUP - 1) // GROUP
    cdef int step = _step(groups, space.n_active, n_threads), parts = (groups + step - 1) // step
    cdef int64_t stride = _blocks(layer.n_in) * 32
    cdef int64_t record = _record(layer.n_hidden, layer.float_hidden)
    cdef int unit, e, first, g0
    while True:
        unit = rl_fetch_add(next, 1)
        if unit >= space.n_active * parts:
            return
        e = space.active[unit // parts]
        first = space.first[e]
        g0 = unit % parts * step
        _multiply(kernels, layer.float_hidden, layer.down[e], g0, min(g0 + step, groups),
                  space.hidden + first * record, record, space.first[e + 1] - first,
                  space.outputs + first * stride, stride)


cdef void expert_output(const ExpertLayer* layer, ExpertSpace* space, int token,
                        float* y) noexcept nogil:
    """The weighted sum over a token's experts."""
    cdef int64_t stride = _blocks(layer.n_in) * 32, i = <int64_t>token * layer.n_used
    cdef const float* x
    cdef float weight
    cdef int j, d
    memset(y, 0, layer.n_in * sizeof(float))
    for j in range(layer.n_used):
        x = space.outputs + space.column[i + j] * stride
        weight = space.weights[i + j]
        for d in range(layer.n_in):
            y[d] += weight * x[d]

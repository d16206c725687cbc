"""Run a plan: every operation of a forward pass, on all threads, without Python in between.

Threads are woken once a call and meet at barriers. Operations are of two kinds. A *token* operation
(norm, add, activation, laying out inputs) treats each token alone: with several tokens they are
dealt out to the threads; with one, every thread does the whole of it in a private copy of the
buffers, which is cheaper than waiting for another core. A *row* operation (linear, attention) is
dealt out by rows, heads and stretches of the cache, and ends in a barrier. Nothing is allocated in
a call, and no result depends on the number of threads or on what else is in the batch.
"""

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY, isfinite
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy, memset

from rustllm._core.arena cimport Arena
from rustllm._core.dispatch cimport simd_level
from rustllm._core.experts cimport (
    ExpertLayer,
    ExpertSpace,
    expert_bytes,
    expert_down,
    expert_gated,
    expert_hidden,
    expert_input,
    expert_output,
    expert_place,
    expert_route,
    expert_sort,
)
from rustllm._core.kv_cache cimport SEGMENT, CacheView, KVCache, cache_keys, cache_values
from rustllm._core.linear cimport (
    RL_ACT_FLOAT,
    RL_ACT_INT8,
    LinearKernels,
    PackedMatrix,
    linear_kernels,
    log2_width,
    mm_fn,
    rl_is_float,
    rl_matrix,
    tile_start,
    tile_width,
)
from rustllm._core.quant cimport dequantize_row, row_bytes
from rustllm._core.threads cimport run_team, team_barrier

cdef extern from "atomics.h" nogil:
    int rl_load(const int*) noexcept
    int rl_fetch_add(int*, int) noexcept

cdef extern from "norm.h" nogil:
    ctypedef void (*rl_norm_fn)(const float*, const float*, const float*, float, int, int,
                                float*) noexcept nogil
    rl_norm_fn rl_norm_kernel(int) noexcept

cdef extern from "rope.h" nogil:
    ctypedef void (*rl_rope_fn)(const float*, const float*, int, int, float*) noexcept nogil
    rl_rope_fn rl_rope_kernel(int) noexcept
    void rl_rope_table(const double*, int, double, double, float*) noexcept

cdef extern from "attention.h" nogil:
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
    ctypedef void (*rl_merge_fn)(float*, float*, float*, float, float, const float*,
                                 int) noexcept nogil
    ctypedef void (*rl_store_fn)(const float*, const float*, void*, void*, int, int,
                                 ptrdiff_t) noexcept nogil
    ctypedef void (*rl_activate_fn)(int, float*, const float*, int) noexcept nogil
    rl_segment_fn rl_attend_kernel(int) noexcept
    rl_merge_fn rl_merge_kernel(int) noexcept
    rl_store_fn rl_store_kernel(int) noexcept
    rl_activate_fn rl_activate_kernel(int) noexcept
    float rl_cap_portable(float, float) noexcept

cdef extern from "clock.h" nogil:
    double rl_milliseconds() noexcept

cdef enum:
    MAX_MATRICES = 4
    TILE = 8
    SIGNAL_INTERVAL_MS = 30
    LONG_BYTES = 4 << 20

cdef enum Kind:
    EMBED
    PREPARE
    LINEAR
    GATED
    ATTENTION
    ADD
    GATHER
    EXPERTS

KINDS = {
    "embed": EMBED, "prepare": PREPARE, "linear": LINEAR, "gated": GATED, "attention": ATTENTION,
    "add": ADD, "gather": GATHER, "experts": EXPERTS,
}
ACTIVATIONS = {"silu": 1, "gelu_tanh": 2, "gelu": 3}

# Token operations write buffers of which every thread has its own while there is one token.
cdef struct Buffer:
    float* base
    int64_t stride              # floats a token; also between threads' private copies
    int width
    bint is_private

cdef struct Prepared:
    uint8_t* int8
    uint8_t* fine               # int8 in two columns a token
    uint8_t* floats
    int n_blocks

cdef struct Table:              # embedding: packed matrix, or rows as in the file
    const rl_matrix* packed
    const uint8_t* rows
    int64_t row_bytes
    int type_id
    int n_rows

cdef struct NormWeights:
    const float* weight         # NULL: no norm
    const float* bias
    float eps
    int centre

cdef struct Operation:
    int kind
    int src
    int dst
    int other
    int n_matrices
    const rl_matrix* matrices[MAX_MATRICES]
    int outs[MAX_MATRICES]
    const float* biases[MAX_MATRICES]
    bint fine
    Table table
    Table positions
    NormWeights norm
    NormWeights key_norm
    float scale
    int activation
    int layer
    int n_heads
    int rope                    # index, or -1
    int window
    float softcap
    int experts                 # index of the layer

cdef struct RopeSpec:
    int n_dims
    int halves
    double magnitude
    double* frequencies
    double* long_frequencies    # in states of more context than `original_ctx`, or NULL
    int original_ctx
    int64_t offset              # floats into a token's tables

# Tokens of one sequence, neighbours in the batch.
cdef struct Run:
    CacheView cache
    int first
    int n
    int position
    int context

cdef struct Call:
    Operation* operations
    int n_operations
    Buffer* buffers
    Prepared* prepared
    RopeSpec* ropes
    int n_ropes
    int n_kv_heads
    int head_dim
    int padded_dim
    int n
    const int32_t* tokens
    const int32_t* positions
    Run* runs
    int n_runs
    const int32_t* kept
    int n_kept
    float* rope_tables          # [n or threads][rope_width]
    int64_t rope_width
    float* queries              # rotated, scaled: [n or threads][n_heads * padded_dim]
    int64_t query_stride
    float* partials             # [single runs][heads][segments][padded_dim + 16]
    int max_segments
    int max_heads
    float* scratch              # [threads][scratch_stride]
    int64_t scratch_stride
    ExpertLayer* expert_layers
    ExpertSpace* expert_spaces
    int* counters
    int stop_at
    const int* cancel
    bint check_signals
    bint signalled
    double next_check
    int level
    rl_norm_fn norm
    rl_rope_fn rotate
    rl_segment_fn attend
    rl_merge_fn merge
    rl_store_fn store
    rl_activate_fn activate
    LinearKernels linear


cdef inline float* _row(Call* call, int buffer, int token, int thread, int n) noexcept nogil:
    cdef Buffer* b = &call.buffers[buffer]
    if n == 1 and b.is_private:
        return b.base + thread * b.stride
    return b.base + token * b.stride


cdef inline void _apply_norm(Call* call, NormWeights* w, const float* x, int n,
                             float* y) noexcept nogil:
    call.norm(x, w.weight, w.bias, w.eps, w.centre, n, y)


# ---- token operations --------------------------------------------------------------------------

cdef void _embed(Call* call, Operation* op, int token, int thread, int n) noexcept nogil:
    cdef float* x = _row(call, op.dst, token, thread, n)
    cdef float* extra
    cdef int width = call.buffers[op.dst].width
    cdef int i
    _look_up(call, &op.table, call.tokens[token], x, width)
    if op.scale != 1.0:
        for i in range(width):
            x[i] *= op.scale
    if op.positions.n_rows:
        extra = call.scratch + thread * call.scratch_stride
        _look_up(call, &op.positions, call.positions[token], extra, width)
        for i in range(width):
            x[i] += extra[i]


cdef void _look_up(Call* call, Table* table, int row, float* x, int width) noexcept nogil:
    if table.packed != NULL:
        call.linear.row(table.packed, row, x)
    else:
        dequantize_row(table.type_id, table.rows + row * table.row_bytes, x, width)


cdef void _prepare(Call* call, Operation* op, int token, int thread, int n) noexcept nogil:
    cdef Prepared* out = &call.prepared[op.dst]
    cdef const float* x = _row(call, op.src, token, thread, n)
    cdef float* normed = call.scratch + thread * call.scratch_stride
    cdef int width = call.buffers[op.src].width
    cdef int start = tile_start(n, token), i
    cdef int64_t place = thread if n == 1 else start
    if op.norm.weight != NULL:
        _apply_norm(call, &op.norm, x, width, normed)
        for i in range(width, out.n_blocks * 32):
            normed[i] = 0.0
        x = normed
    elif width % 32:
        memcpy(normed, x, width * sizeof(float))
        for i in range(width, out.n_blocks * 32):
            normed[i] = 0.0
        x = normed
    if out.int8 != NULL:
        call.linear.quantize(x, out.n_blocks, out.int8 + place * out.n_blocks * RL_ACT_INT8,
                             tile_width(n, start), token - start)
    if out.floats != NULL:
        call.linear.lay_out(x, out.n_blocks, out.floats + place * out.n_blocks * RL_ACT_FLOAT,
                            tile_width(n, start), token - start)
    if out.fine != NULL:
        start = tile_start(2 * n, 2 * token)
        place = 2 * thread if n == 1 else start
        call.linear.quantize_fine(x, out.n_blocks, out.fine + place * out.n_blocks * RL_ACT_INT8,
                                  tile_width(2 * n, start), 2 * token - start)


cdef void _add(Call* call, Operation* op, int token, int thread, int n) noexcept nogil:
    cdef float* x = _row(call, op.dst, token, thread, n)
    cdef const float* y = _row(call, op.src, token, thread, n)
    cdef float* normed = call.scratch + thread * call.scratch_stride
    cdef int width = call.buffers[op.dst].width
    cdef int i
    if op.norm.weight != NULL:
        _apply_norm(call, &op.norm, y, width, normed)
        y = normed
    for i in range(width):
        x[i] += y[i]


cdef void _token_operation(Call* call, Operation* op, int token, int thread, int n) noexcept nogil:
    if op.kind == EMBED:
        _embed(call, op, token, thread, n)
    elif op.kind == PREPARE:
        _prepare(call, op, token, thread, n)
    elif op.kind == ADD:
        _add(call, op, token, thread, n)


# ---- row operations ----------------------------------------------------------------------------

cdef void _product(Call* call, Operation* op, int which, int buffer, int g0, int g1, int thread,
                   int n) noexcept nogil:
    """Rows of groups g0..g1-1 of one matrix, for all tokens."""
    cdef Prepared* a = &call.prepared[op.src]
    cdef Buffer* out = &call.buffers[buffer]
    cdef rl_matrix m = op.matrices[which][0]
    cdef bint is_float = rl_is_float(m.type) != 0 or a.int8 == NULL and a.fine == NULL
    cdef const uint8_t* tiles = a.floats if is_float else a.int8
    cdef int64_t record = <int64_t>a.n_blocks * (RL_ACT_FLOAT if is_float else RL_ACT_INT8)
    cdef int g = g0, end, c, width, columns = 1
    cdef mm_fn* kernels = &call.linear.floats[0] if is_float else &call.linear.int8[0]
    if op.fine and not is_float:
        columns = 2
        m.fine = 1
        tiles = a.fine
    if n == 1:
        tiles += columns * thread * record
    while g < g1:
        # With one token a kernel streams through its groups; with more, a group stays in the
        # first-level cache while the tokens pass by, and the first of them fetch the next.
        end = g1 if n == 1 else g + 1
        c = 0
        while c < columns * n:
            width = tile_width(columns * n, c)
            m.ahead = c == 0
            kernels[log2_width(width)](
                &m, g, end, tiles + record * c, out.base + c // columns * out.stride, out.stride,
                op.biases[which])
            c += width
        g = end


cdef inline int _groups(const rl_matrix* m) noexcept nogil:
    return (m.n_rows + 15) // 16


cdef inline int _chunk(Operation* op, int total, int n_threads, int n) noexcept nogil:
    """Groups to deal out at a time.

    One token streams weights from memory, and a stretch that is cut short wastes what was fetched
    ahead: long stretches. More tokens compute on each group for long: short stretches, so that the
    threads end together.
    """
    cdef int parts = n_threads
    if n > 1 or total * op.matrices[0].group_bytes > LONG_BYTES:
        parts = n_threads * 8
    return max(1, (total + parts - 1) // parts)


cdef void _linear(Call* call, Operation* op, int index, int thread, int n_threads,
                  int n) noexcept nogil:
    cdef int total = 0, i, g, chunk, start, stop, first
    for i in range(op.n_matrices):
        total += _groups(op.matrices[i])
    chunk = _chunk(op, total, n_threads, n)
    while True:
        g = rl_fetch_add(&call.counters[2 * index], chunk)
        if g >= total:
            return
        first = 0
        for i in range(op.n_matrices):
            start = max(g - first, 0)
            stop = min(g + chunk - first, _groups(op.matrices[i]))
            if start < stop:
                _product(call, op, i, op.outs[i], start, stop, thread, n)
                if op.activation or op.softcap != 0.0:
                    _finish_rows(call, op, i, start * 16,
                                 min(stop * 16, op.matrices[i].n_rows), n)
            first += _groups(op.matrices[i])


cdef void _finish_rows(Call* call, Operation* op, int which, int start, int stop,
                       int n) noexcept nogil:
    """What a linear layer does to its outputs: an activation, or a soft cap."""
    cdef Buffer* out = &call.buffers[op.outs[which]]
    cdef float* y
    cdef int c, i
    for c in range(n):
        y = out.base + c * out.stride + start
        if op.activation:
            call.activate(op.activation, y, NULL, stop - start)
        if op.softcap != 0.0:
            for i in range(stop - start):
                y[i] = rl_cap_portable(y[i], op.softcap)


cdef void _gated(Call* call, Operation* op, int index, int thread, int n_threads,
                 int n) noexcept nogil:
    cdef int total = _groups(op.matrices[0]), g, end, start, rows, step, c
    cdef int chunk = _chunk(op, total, n_threads, n)
    cdef Buffer* gate = &call.buffers[op.outs[0]]
    cdef Buffer* up = &call.buffers[op.outs[1]]
    while True:
        g = rl_fetch_add(&call.counters[2 * index], chunk)
        if g >= total:
            return
        end = min(g + chunk, total)
        step = end - g if n == 1 else 1
        while g < end:
            _product(call, op, 0, op.outs[0], g, g + step, thread, n)
            _product(call, op, 1, op.outs[1], g, g + step, thread, n)
            start = g * 16
            rows = min(step * 16, op.matrices[0].n_rows - start)
            for c in range(n):
                call.activate(op.activation, gate.base + c * gate.stride + start,
                              up.base + c * up.stride + start, rows)
            g += step


# ---- attention ---------------------------------------------------------------------------------

cdef void _rotate(Call* call, Operation* op, NormWeights* norm, const float* x, int token,
                  int thread,
                  int n, float* scratch, float* y) noexcept nogil:
    """One head, normalised and rotated; dimensions up to the padded width are zero."""
    cdef RopeSpec* rope
    cdef const float* table
    cdef int i, hd = call.head_dim
    if norm.weight != NULL:
        _apply_norm(call, norm, x, hd, scratch)
        x = scratch
    i = 0
    if op.rope >= 0:
        rope = &call.ropes[op.rope]
        table = call.rope_tables + (thread if n == 1 else token) * call.rope_width + rope.offset
        call.rotate(x, table, rope.n_dims, rope.halves, y)
        i = rope.n_dims
    for i in range(i, hd):
        y[i] = x[i]
    for i in range(hd, call.padded_dim):
        y[i] = 0.0


cdef void _rotate_queries(Call* call, Operation* op, int token, int thread, int n) noexcept nogil:
    cdef const float* q = _row(call, op.src, token, thread, n)
    cdef float* out = call.queries + (thread if n == 1 else token) * call.query_stride
    cdef float* scratch = call.scratch + thread * call.scratch_stride
    cdef int h, i
    for h in range(op.n_heads):
        _rotate(call, op, &op.norm, q + h * call.head_dim, token, thread, n, scratch,
                out + h * call.padded_dim)
    for i in range(op.n_heads * call.padded_dim):
        out[i] *= op.scale


cdef void _store_head(Call* call, Operation* op, Run* run, int token, int head, int thread,
                      int n) noexcept nogil:
    cdef const CacheView* cache = &run.cache
    cdef float* scratch = call.scratch + thread * call.scratch_stride
    cdef float* key = scratch + call.padded_dim
    cdef float* value = key + call.padded_dim
    cdef int i, position = run.position + token - run.first, segment = position // SEGMENT
    cdef const float* v = _row(call, op.outs[1], token, thread, n) + head * call.head_dim
    _rotate(call, op, &op.key_norm, _row(call, op.outs[0], token, thread, n) + head * call.head_dim,
            token, thread, n, scratch, key)
    for i in range(call.head_dim):
        value[i] = v[i]
    for i in range(call.head_dim, call.padded_dim):
        value[i] = 0.0
    call.store(key, value, cache_keys(cache, op.layer, head, segment),
               cache_values(cache, op.layer, head, segment), cache.kind, call.padded_dim,
               position % SEGMENT)


cdef inline int _first_visible(Operation* op, int position) noexcept nogil:
    return max(0, position - op.window + 1) if op.window > 0 else 0


cdef void _segment_of(Call* call, const CacheView* cache, Operation* op, int head, int segment,
                      rl_segment* s) noexcept nogil:
    s.keys = cache_keys(cache, op.layer, head, segment)
    s.values = cache_values(cache, op.layer, head, segment)
    s.kind = cache.kind
    s.head_dim = call.padded_dim
    s.softcap = op.softcap


cdef float* _partial(Call* call, int single, int head, int segment) noexcept nogil:
    cdef int64_t at = (<int64_t>single * call.max_heads + head) * call.max_segments + segment
    return call.partials + at * (call.padded_dim + 16)


cdef void _attend_single(Call* call, Operation* op, Run* run, int single, int head, int segment,
                         int thread, int n) noexcept nogil:
    """All query heads of one KV head, one token, one segment."""
    cdef const CacheView* cache = &run.cache
    cdef int group = op.n_heads // call.n_kv_heads, done = 0, i
    cdef int position = run.position, low = _first_visible(op, position)
    cdef const float* q
    cdef float* part
    cdef rl_segment s
    if n == 1 and segment == position // SEGMENT:
        _store_head(call, op, run, run.first, head, thread, n)
    q = call.queries + (thread if n == 1 else run.first) * call.query_stride
    _segment_of(call, cache, op, head, segment, &s)
    while done < group:
        s.n_queries = min(group - done, TILE)
        for i in range(s.n_queries):
            part = _partial(call, single, head * group + done + i, segment)
            s.query[i] = q + (head * group + done + i) * call.padded_dim
            s.first[i] = max(0, low - segment * SEGMENT)
            s.last[i] = min(SEGMENT, position + 1 - segment * SEGMENT)
            s.out[i] = part
        call.attend(&s)
        for i in range(s.n_queries):
            part = s.out[i] + call.padded_dim
            part[0] = s.max[i]
            part[1] = s.sum[i]
        done += s.n_queries


cdef void _merge_single(Call* call, Operation* op, Run* run, int single, int thread,
                        int n) noexcept nogil:
    cdef float* out = _row(call, op.dst, run.first, thread, n)
    cdef float* total = call.scratch + thread * call.scratch_stride
    cdef float* part
    cdef float top, weight
    cdef int h, s, d, position = run.position
    for h in range(op.n_heads):
        top = -INFINITY
        weight = 0.0
        for d in range(call.padded_dim):
            total[d] = 0.0
        for s in range(_first_visible(op, position) // SEGMENT, position // SEGMENT + 1):
            part = _partial(call, single, h, s)
            call.merge(&top, &weight, total, part[call.padded_dim], part[call.padded_dim + 1], part,
                       call.padded_dim)
        for d in range(call.head_dim):
            out[h * call.head_dim + d] = total[d] / weight


cdef void _attend_tile(Call* call, Operation* op, Run* run, int head, int tile, int thread,
                       int n) noexcept nogil:
    """Up to eight neighbouring tokens of a run, all query heads of one KV head."""
    cdef const CacheView* cache = &run.cache
    cdef int group = op.n_heads // call.n_kv_heads, h, i, d, segment
    cdef int first = tile * TILE, count = min(TILE, run.n - tile * TILE)
    cdef int position = run.position + first
    cdef float* parts = call.scratch + thread * call.scratch_stride
    cdef float* totals = parts + TILE * call.padded_dim
    cdef float* out
    cdef float top[TILE]
    cdef float weight[TILE]
    cdef rl_segment s
    for h in range(head * group, (head + 1) * group):
        for i in range(count):
            top[i] = -INFINITY
            weight[i] = 0.0
        memset(totals, 0, TILE * call.padded_dim * sizeof(float))
        for segment in range(_first_visible(op, position) // SEGMENT,
                             (position + count - 1) // SEGMENT + 1):
            _segment_of(call, cache, op, head, segment, &s)
            s.n_queries = count
            for i in range(count):
                s.query[i] = (call.queries + (run.first + first + i) * call.query_stride
                              + h * call.padded_dim)
                s.first[i] = min(SEGMENT, max(0, _first_visible(op,
                                                                position + i) - segment * SEGMENT))
                s.last[i] = max(s.first[i], min(SEGMENT, position + i + 1 - segment * SEGMENT))
                s.out[i] = parts + i * call.padded_dim
            call.attend(&s)
            for i in range(count):
                call.merge(&top[i], &weight[i], totals + i * call.padded_dim, s.max[i], s.sum[i],
                           s.out[i], call.padded_dim)
        for i in range(count):
            out = _row(call, op.dst, run.first + first + i, thread, n) + h * call.head_dim
            for d in range(call.head_dim):
                out[d] = totals[i * call.padded_dim + d] / weight[i]


cdef void _attention_units(Call* call, Operation* op, int index, int thread, int n) noexcept nogil:
    """Deal out (run, KV head, segment) of single tokens and (run, KV head, tile) of longer runs."""
    cdef int unit = rl_fetch_add(&call.counters[2 * index], 1)
    cdef int before = 0, r, single = 0, low, n_parts, local
    cdef Run* run
    for r in range(call.n_runs):
        run = &call.runs[r]
        if run.n == 1:
            low = _first_visible(op, run.position) // SEGMENT
            n_parts = run.position // SEGMENT + 1 - low
        else:
            low = 0
            n_parts = (run.n + TILE - 1) // TILE
        while unit < before + n_parts * call.n_kv_heads:
            local = unit - before
            if run.n == 1:
                _attend_single(call, op, run, single, local // n_parts, low + local % n_parts,
                               thread, n)
            else:
                # Later tiles see more: begin with them, so that the threads end together.
                _attend_tile(call, op, run, local % call.n_kv_heads,
                             n_parts - 1 - local // call.n_kv_heads, thread, n)
            unit = rl_fetch_add(&call.counters[2 * index], 1)
        before += n_parts * call.n_kv_heads
        single += run.n == 1


# ---- experts -----------------------------------------------------------------------------------

cdef void _experts(Call* call, Operation* op, int index, int thread, int n_threads, int start,
                   int stop, int n) noexcept nogil:
    """Send each token through its experts; begins and ends without waiting for other threads."""
    cdef ExpertLayer* layer = &call.expert_layers[op.experts]
    cdef ExpertSpace* space = &call.expert_spaces[op.experts]
    cdef float* scratch = call.scratch + thread * call.scratch_stride
    cdef int token, column, columns = n * layer.n_used
    team_barrier(n_threads)
    if n > 1 or thread == 0:
        for token in range(start, stop):
            expert_route(layer, space, token, _row(call, op.other, token, thread, n))
    if n > 1:
        team_barrier(n_threads)
    if thread == 0:
        expert_sort(layer, space, n)
    if n > 1:
        team_barrier(n_threads)
    if n > 1 or thread == 0:
        for token in range(start, stop):
            _apply_norm(call, &op.norm, _row(call, op.src, token, thread, n), layer.n_in, scratch)
            for column in range(layer.n_in, (layer.n_in + 31) // 32 * 32):
                scratch[column] = 0.0
            expert_input(layer, space, &call.linear, token, scratch)
    team_barrier(n_threads)
    expert_gated(layer, space, &call.linear, call.activate, &call.counters[2 * index], n_threads)
    team_barrier(n_threads)
    column = thread
    while column < columns:
        expert_hidden(layer, space, &call.linear, column, scratch)
        column += n_threads
    team_barrier(n_threads)
    expert_down(layer, space, &call.linear, &call.counters[2 * index + 1], n_threads)
    team_barrier(n_threads)
    for token in range(start, stop):
        expert_output(layer, space, token, _row(call, op.dst, token, thread, n))


# ---- the team ----------------------------------------------------------------------------------

cdef void _check(Call* call, int index) noexcept nogil:
    """Thread 0, now and then: was this call cancelled, or has a signal come?"""
    cdef double now
    if call.cancel != NULL and rl_load(call.cancel):
        call.stop_at = index
        return
    if not call.check_signals:
        return
    now = rl_milliseconds()
    if now < call.next_check:
        return
    call.next_check = now + SIGNAL_INTERVAL_MS
    with gil:
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            _pending.append(error)
            call.signalled = True
            call.stop_at = index


# The exception a signal raised inside a call, until the call ends. Only the main thread gets any.
cdef list _pending = []


cdef const double* _frequencies(Call* call, RopeSpec* rope, int token) noexcept nogil:
    """How fast a token's heads turn: that depends on the context its sequence was given."""
    cdef int r = 0
    if rope.long_frequencies == NULL:
        return rope.frequencies
    while token >= call.runs[r].first + call.runs[r].n:
        r += 1
    if call.runs[r].context > rope.original_ctx:
        return rope.long_frequencies
    return rope.frequencies


cdef void _run(void* context, int thread, int n_threads) noexcept nogil:
    cdef Call* call = <Call*>context
    cdef Operation* op
    # 0: this thread may read what it needs; 1: token operations of others are not awaited yet;
    # 2: row operations of others are not.
    cdef int state = 0, i, r, token, n = call.n, start, stop, single
    # Tokens start..stop-1 are this thread's; one token is everybody's.
    start = 0 if n == 1 else <int>(<int64_t>n * thread // n_threads)
    stop = 1 if n == 1 else <int>(<int64_t>n * (thread + 1) // n_threads)
    for token in range(start, stop):
        for r in range(call.n_ropes):
            rl_rope_table(_frequencies(call, &call.ropes[r], token), call.ropes[r].n_dims,
                          call.positions[token], call.ropes[r].magnitude,
                          call.rope_tables + (thread if n == 1 else token) * call.rope_width
                          + call.ropes[r].offset)
    for i in range(call.n_operations):
        op = &call.operations[i]
        if op.kind == LINEAR or op.kind == GATED:
            if state:
                team_barrier(n_threads)
            if op.kind == LINEAR:
                _linear(call, op, i, thread, n_threads, n)
            else:
                _gated(call, op, i, thread, n_threads, n)
            state = 2
        elif op.kind == ATTENTION:
            if thread == 0:
                _check(call, i)
            team_barrier(n_threads)
            if rl_load(&call.stop_at) == i:
                return
            for token in range(start, stop):
                _rotate_queries(call, op, token, thread, n)
            if n > 1:
                for r in range(call.n_runs):
                    for token in range(max(start, call.runs[r].first),
                                       min(stop, call.runs[r].first + call.runs[r].n)):
                        for single in range(call.n_kv_heads):
                            _store_head(call, op, &call.runs[r], token, single, thread, n)
                team_barrier(n_threads)
            _attention_units(call, op, i, thread, n)
            team_barrier(n_threads)
            single = 0
            for r in range(call.n_runs):
                if call.runs[r].n == 1:
                    if start <= call.runs[r].first < stop:
                        _merge_single(call, op, &call.runs[r], single, thread, n)
                    single += 1
            state = 0 if n == 1 else 1
        elif op.kind == EXPERTS:
            _experts(call, op, i, thread, n_threads, start, stop, n)
            state = 0 if n == 1 else 1
        elif op.kind == GATHER:
            if state:
                team_barrier(n_threads)
            start = 0 if call.n_kept == 1 else <int>(<int64_t>call.n_kept * thread // n_threads)
            stop = (1 if call.n_kept == 1
                    else <int>(<int64_t>call.n_kept * (thread + 1) // n_threads))
            for token in range(start, stop):
                memcpy(_row(call, op.dst, token, thread, call.n_kept),
                       _row(call, op.src, call.kept[token], thread, n),
                       call.buffers[op.src].width * sizeof(float))
            n = call.n_kept
            state = 0 if n == 1 else 1
        else:
            if state == 2:
                team_barrier(n_threads)
                state = 0
            for token in range(start, stop):
                _token_operation(call, op, token, thread, n)
            if n > 1:
                state = 1


# ---- Python side -------------------------------------------------------------------------------

cdef class Rows:
    """Rows of an embedding table as they lie in the file.

    Parameters
    ----------
    type_id : int
        Block format, GGUF's number.
    n_rows, n_cols : int
    source : buffer
        uint8, `n_rows` times the bytes of a row; kept alive and read on every look-up.
    """

    cdef Table table
    cdef object source
    cdef const uint8_t[::1] view
    cdef readonly tuple shape

    def __init__(self, int type_id, int n_rows, int n_cols, source):
        self.table.type_id = type_id
        self.table.n_rows = n_rows
        self.table.row_bytes = row_bytes(type_id, n_cols)
        self.view = source
        if self.table.row_bytes <= 0 or n_rows < 1:
            raise ValueError(f"[{n_rows}, {n_cols}] is no table of type {type_id}")
        if self.view.shape[0] != self.table.row_bytes * n_rows:
            raise ValueError(
                f"{self.view.shape[0]} bytes, not {n_rows} rows of {self.table.row_bytes}")
        self.table.rows = &self.view[0]
        self.source = source
        self.shape = (n_rows, n_cols)

    @property
    def type_id(self):
        """GGUF's number of the block format."""
        return self.table.type_id

    def row(self, int index):
        """One row in float32, `[n_cols]`, each weight exactly what the format defines."""
        if not 0 <= index < self.table.n_rows:
            raise IndexError(f"row {index} of {self.table.n_rows}")
        cdef float[::1] out = np.empty(self.shape[1], np.float32)
        cdef Py_ssize_t n = out.shape[0]
        with nogil:
            dequantize_row(self.table.type_id, self.table.rows + index * self.table.row_bytes,
                           &out[0], n)
        return np.asarray(out)


cdef class Workspace:
    """Scratch memory of one caller at a time; grows when a call needs more."""

    cdef Buffer* buffers
    cdef Prepared* prepared
    cdef Arena arena            # holds everything below
    cdef readonly int capacity  # tokens
    cdef readonly int n_threads
    cdef readonly int max_segments
    cdef readonly int max_singles
    cdef float* rope_tables
    cdef float* queries
    cdef float* partials
    cdef float* scratch
    cdef int64_t scratch_stride
    cdef ExpertSpace* expert_spaces
    cdef int* counters
    cdef int busy

    @property
    def nbytes(self):
        """Bytes held."""
        return 0 if self.arena is None else self.arena.stats.held_bytes


cdef class Engine:
    """A plan bound to its weights.

    Parameters
    ----------
    plan : rustllm.models.plan.Plan
    weights : mapping of str to PackedMatrix, Rows or numpy.ndarray
        Every weight the plan names: packed matrices for linear layers, either kind for embeddings,
        float32 vectors for norms, biases and frequency factors.
    exact : bool
        Keep activations in float32.

    Notes
    -----
    Immutable; any number of threads may call :meth:`forward`, each with a workspace and caches of
    its own.
    """

    cdef Operation* operations
    cdef int n_operations
    cdef RopeSpec* ropes
    cdef int n_ropes
    cdef int64_t rope_width
    cdef ExpertLayer* expert_layers
    cdef int n_expert_layers
    cdef object arrays
    cdef readonly dict weights
    cdef readonly object plan
    cdef readonly bint exact
    cdef list _widths
    cdef list _private
    cdef list _prepared         # [width, needs int8, needs float, needs fine]
    cdef int logits
    cdef int max_heads
    cdef int max_width
    cdef int n_vocab

    def __init__(self, plan, weights, *, bint exact=False):
        self.plan = plan
        self.exact = exact
        self.weights = dict(weights)
        self.arrays = []
        self._compile()

    cdef _array(self, size_t n_bytes):
        a = np.zeros(max(n_bytes, 1) + 64, np.uint8)
        self.arrays.append(a)
        cdef uint8_t[::1] view = a
        return <size_t>&view[0]

    cdef const float* _vector(self, name, int length) except? NULL:
        if name is None:
            return NULL
        vector = self.weights[name]
        if vector.dtype != np.float32 or vector.ndim != 1 or not vector.flags.c_contiguous:
            raise ValueError(f"{name}: expected a contiguous float32 vector")
        if vector.shape[0] != length:
            raise ValueError(f"{name}: expected {length} values, got {vector.shape[0]}")
        cdef const float[::1] view = vector
        return &view[0]

    cdef int _norm(self, norm, int width, NormWeights* out) except -1:
        if norm is None:
            return 0
        out.weight = self._vector(norm.weight, width)
        out.bias = self._vector(norm.bias, width)
        out.eps = norm.eps
        out.centre = norm.kind == "layer"
        return 0

    cdef int _table(self, name, int width, Table* out) except -1:
        cdef PackedMatrix packed
        if name is None:
            return 0
        weight = self.weights[name]
        if weight.shape[1] != width:
            raise ValueError(f"{name}: rows of {weight.shape[1]}, expected {width}")
        if isinstance(weight, Rows):
            out[0] = (<Rows>weight).table
        else:
            packed = weight
            if not packed.is_packed:
                raise ValueError(f"{name} is not packed")
            out.packed = &packed.matrix
            out.n_rows = packed.matrix.n_rows
        return 0

    cdef int _compile(self) except -1:
        cdef Operation* op
        cdef PackedMatrix matrix
        cdef int i, j
        plan = self.plan
        ids = {name: i for i, name in enumerate(plan.widths)}
        prepared_ids = {name: i for i, name in enumerate(plan.prepared)}
        self._widths = list(plan.widths.values())
        self._private = [False] * len(ids)
        self._prepared = [[width, False, False, False] for width in plan.prepared.values()]
        self.n_operations = len(plan.ops)
        self.operations = <Operation*><size_t>self._array(self.n_operations * sizeof(Operation))
        self.n_vocab = plan.n_vocab
        self.logits = -1
        self.max_heads = 1
        self.max_width = max(self._widths)
        ropes = []
        by_row = set()
        self.n_expert_layers = 0
        self.expert_layers = <ExpertLayer*><size_t>self._array(
            sum(step.kind == "experts" for step in plan.ops) * sizeof(ExpertLayer))
        for i, step in enumerate(plan.ops):
            op = &self.operations[i]
            params = step.params
            op.kind = KINDS[step.kind]
            op.rope = -1
            op.scale = params.get("scale", 1.0)
            if step.kind in ("linear", "gated", "attention"):
                by_row.update(step.outs if step.kind != "attention" else ())
            if step.kind == "embed":
                op.dst = ids[step.outs[0]]
                self._table(step.weights[0], plan.widths[step.outs[0]], &op.table)
                self._table(step.weights[1], plan.widths[step.outs[0]], &op.positions)
            elif step.kind == "prepare":
                op.src = ids[step.ins[0]]
                op.dst = prepared_ids[step.outs[0]]
                self._norm(params["norm"], self._widths[op.src], &op.norm)
            elif step.kind in ("linear", "gated"):
                op.src = prepared_ids[step.ins[0]]
                op.n_matrices = len(step.weights)
                if not 1 <= op.n_matrices <= MAX_MATRICES:
                    raise ValueError(f"operation {i}: more than {MAX_MATRICES} matrices")
                if params.get("activation") is not None:
                    op.activation = ACTIVATIONS[params["activation"]]
                op.softcap = params.get("softcap", 0.0)
                biases = params.get("biases", (None,) * op.n_matrices)
                for j in range(op.n_matrices):
                    name = step.weights[j]
                    matrix = self.weights[name]
                    expected = (self._widths[ids[step.outs[j]]], self._prepared[op.src][0])
                    if matrix.shape != expected:
                        raise ValueError(f"{name}: shape {matrix.shape}, expected {expected}")
                    if not matrix.is_packed:
                        raise ValueError(f"{name} is not packed")
                    op.matrices[j] = &matrix.matrix
                    op.outs[j] = ids[step.outs[j]]
                    op.biases[j] = self._vector(biases[j], expected[0])
                    op.fine = params.get("fine", False) and not self.exact
                    as_float = self.exact or rl_is_float(matrix.matrix.type) != 0
                    self._prepared[op.src][2 if as_float else 3 if op.fine else 1] = True
                if "logits" in step.outs:
                    self.logits = ids["logits"]
            elif step.kind == "attention":
                op.src = ids[step.ins[0]]
                op.outs[0] = ids[step.ins[1]]
                op.outs[1] = ids[step.ins[2]]
                op.dst = ids[step.outs[0]]
                op.layer = params["layer"]
                op.n_heads = params["n_heads"]
                op.window = params["window"]
                op.softcap = params["softcap"]
                if op.n_heads < 1 or op.n_heads % plan.n_kv_heads:
                    raise ValueError(f"{op.n_heads} heads cannot share {plan.n_kv_heads} KV heads")
                if not 0 <= op.layer < plan.n_layers:
                    raise ValueError(f"layer {op.layer} of {plan.n_layers}")
                for name, n_heads in zip(step.ins, (op.n_heads, plan.n_kv_heads, plan.n_kv_heads)):
                    if plan.widths[name] != n_heads * plan.head_dim:
                        raise ValueError(f"buffer {name!r} does not hold {n_heads} heads")
                self._norm(params["query_norm"], plan.head_dim, &op.norm)
                self._norm(params["key_norm"], plan.head_dim, &op.key_norm)
                self.max_heads = max(self.max_heads, op.n_heads)
                if params["rope"] is not None:
                    if params["rope"] not in ropes:
                        ropes.append(params["rope"])
                    op.rope = ropes.index(params["rope"])
            elif step.kind == "add":
                op.dst = ids[step.ins[0]]
                op.src = ids[step.ins[1]]
                if self._widths[op.dst] != self._widths[op.src]:
                    raise ValueError(f"operation {i}: rows of different width")
                self._norm(params["norm"], self._widths[op.src], &op.norm)
            elif step.kind == "gather":
                op.src = ids[step.ins[0]]
                op.dst = ids[step.outs[0]]
                if "logits" in step.outs:
                    self.logits = ids["logits"]
            elif step.kind == "experts":
                op.src = ids[step.ins[0]]
                op.other = ids[step.ins[1]]
                op.dst = ids[step.outs[0]]
                op.experts = self.n_expert_layers
                self._norm(params["norm"], self._widths[op.src], &op.norm)
                self._expert_layer(step, self._widths[op.src], &self.expert_layers[op.experts])
                self.n_expert_layers += 1
                for buffer, width in ((op.other, params["n_experts"]),
                                      (op.dst, self._widths[op.src])):
                    if self._widths[buffer] != width:
                        raise ValueError(f"operation {i}: a row of {self._widths[buffer]} values")
            if op.kind in (EMBED, ADD, GATHER, ATTENTION, EXPERTS):
                self._private[op.dst] = True
        if self.logits >= 0 and "logits" not in by_row:
            # Rows that are asked for as they are: the caller's memory, of which there is one copy.
            self._private[self.logits] = False
        for name in by_row:
            if self._private[ids[name]]:
                raise ValueError(f"buffer {name!r} is written by token and by row operations")
        if self.logits < 0:
            raise ValueError("the plan computes no logits")
        self._ropes(ropes)
        return 0

    cdef int _expert_layer(self, step, int n_in, ExpertLayer* out) except -1:
        """Bind a layer of experts: three stacks of matrices."""
        cdef PackedMatrix matrix
        cdef const rl_matrix** stack
        cdef int e
        params = step.params
        out.n_experts = params["n_experts"]
        out.n_used = params["n_used"]
        out.n_in = n_in
        out.n_hidden = params["width"]
        out.normalise = params["normalise"]
        out.activation = ACTIVATIONS[params["activation"]]
        if not 1 <= out.n_used <= out.n_experts:
            raise ValueError(f"{out.n_used} of {out.n_experts} experts")
        self.max_width = max(self.max_width, out.n_hidden)
        kinds = []
        for which, name in enumerate(step.weights):
            shape = (n_in, out.n_hidden) if which == 2 else (out.n_hidden, n_in)
            stack = <const rl_matrix**><size_t>self._array(out.n_experts * sizeof(void*))
            for e in range(out.n_experts):
                matrix = self.weights[f"{name}[{e}]"]
                if matrix.shape != shape or not matrix.is_packed:
                    raise ValueError(f"{name}[{e}]: {matrix.shape}, expected {shape}, packed")
                stack[e] = &matrix.matrix
                kinds.append((which == 2, self.exact or rl_is_float(matrix.matrix.type) != 0))
            if which == 0:
                out.gate = stack
            elif which == 1:
                out.up = stack
            else:
                out.down = stack
        for is_down, name in ((False, "gate and up"), (True, "down")):
            if len({is_float for down, is_float in kinds if down == is_down}) != 1:
                raise ValueError(f"{name} of the experts mix floats and quantized blocks")
        out.float_in = kinds[0][1]
        out.float_hidden = kinds[len(kinds) - 1][1]
        return 0

    cdef int _ropes(self, ropes) except -1:
        cdef int i
        cdef RopeSpec* spec
        self.n_ropes = len(ropes)
        self.ropes = <RopeSpec*><size_t>self._array(max(1, self.n_ropes) * sizeof(RopeSpec))
        self.rope_width = 0
        for i, rope in enumerate(ropes):
            if rope.n_dims < 2 or rope.n_dims % 2 or rope.n_dims > self.plan.head_dim:
                raise ValueError(f"{rope.n_dims} of {self.plan.head_dim} dimensions cannot rotate")
            spec = &self.ropes[i]
            spec.n_dims = rope.n_dims
            spec.halves = rope.halves
            spec.magnitude = rope.magnitude
            spec.offset = self.rope_width
            spec.original_ctx = rope.original_ctx
            spec.frequencies = <double*><size_t>self._frequencies(rope, rope.factors)
            if rope.long_factors is not None:
                spec.long_frequencies = <double*><size_t>self._frequencies(rope, rope.long_factors)
            self.rope_width += rope.n_dims
        return 0

    cdef _frequencies(self, rope, divisors):
        cdef int j, n = rope.n_dims // 2
        cdef const float* factors = self._vector(divisors, n)
        cdef double* out = <double*><size_t>self._array(n * sizeof(double))
        for j in range(n):
            out[j] = rope.scale * rope.base ** (-2.0 * j / rope.n_dims)
            if factors != NULL:
                out[j] /= factors[j]
        return <size_t>out

    cdef int _reserve(self, Workspace w, int n, int n_threads, int n_segments,
                      int n_singles) except -1:
        """Make the workspace large enough for a call."""
        cdef int i, padded = (self.plan.head_dim + 15) // 16 * 16
        if (w.capacity >= n and w.n_threads >= n_threads and w.max_segments >= n_segments
                and w.max_singles >= n_singles):
            return 0
        n = max(n, w.capacity)
        n_threads = max(n_threads, w.n_threads)
        n_segments = max(n_segments, w.max_segments)
        n_singles = max(n_singles, w.max_singles)
        rows = max(n, n_threads)
        cdef Arena arena = Arena(chunk_size=1 << 20)

        def take(size_t n_bytes):
            cdef void* memory = arena.alloc_raw(n_bytes, 64)
            if memory == NULL:
                raise MemoryError(f"{n_bytes} bytes of scratch memory for {n} tokens")
            memset(memory, 0, n_bytes)
            return <size_t>memory

        cdef Buffer* buffers = <Buffer*><size_t>take(len(self._widths) * sizeof(Buffer))
        for i in range(len(self._widths)):
            buffers[i].width = self._widths[i]
            buffers[i].stride = (self._widths[i] + 31) // 32 * 32
            buffers[i].is_private = self._private[i]
            if i != self.logits:
                buffers[i].base = <float*><size_t>take(buffers[i].stride * rows * sizeof(float))
        cdef Prepared* prepared = <Prepared*><size_t>take(len(self._prepared) * sizeof(Prepared))
        for i in range(len(self._prepared)):
            width, int8, floats, fine = self._prepared[i]
            prepared[i].n_blocks = (width + 31) // 32
            if int8:
                prepared[i].int8 = <uint8_t*><size_t>take(prepared[i].n_blocks * rows * RL_ACT_INT8)
            if fine:
                prepared[i].fine = <uint8_t*><size_t>take(
                    2 * prepared[i].n_blocks * rows * RL_ACT_INT8)
            if floats:
                prepared[i].floats = <uint8_t*><size_t>take(
                    prepared[i].n_blocks * rows * RL_ACT_FLOAT)
        w.rope_tables = <float*><size_t>take(self.rope_width * rows * sizeof(float))
        w.queries = <float*><size_t>take(self.max_heads * padded * rows * sizeof(float))
        w.partials = <float*><size_t>take(
            n_singles * self.max_heads * n_segments * (padded + 16) * sizeof(float))
        w.scratch_stride = max((self.max_width + 31) // 32 * 32, 2 * TILE * padded, 4 * padded) + 32
        w.scratch = <float*><size_t>take(w.scratch_stride * n_threads * sizeof(float))
        w.expert_spaces = <ExpertSpace*><size_t>take(
            max(1, self.n_expert_layers) * sizeof(ExpertSpace))
        cdef int64_t expert_room = 0
        for i in range(self.n_expert_layers):
            expert_room = max(expert_room, expert_bytes(&self.expert_layers[i], n))
        cdef uint8_t* expert_memory = <uint8_t*><size_t>take(expert_room + 64)
        for i in range(self.n_expert_layers):
            expert_place(&self.expert_layers[i], n, expert_memory, &w.expert_spaces[i])
        w.counters = <int*><size_t>take(2 * self.n_operations * sizeof(int))
        w.buffers = buffers
        w.prepared = prepared
        w.arena = arena
        w.capacity = n
        w.n_threads = n_threads
        w.max_segments = n_segments
        w.max_singles = n_singles
        return 0

    def forward(self, Workspace workspace, sequences, kept, float[:, ::1] logits, int threads,
                int[::1] cancel=None):
        """Run the plan over new tokens of one or several sequences.

        Parameters
        ----------
        workspace : Workspace
        sequences : list of (KVCache, int32 array)
            Caches and the tokens to append to them; each cache appears once.
        kept : int32 array
            Indices, over all tokens in order, of those whose logits are wanted.
        logits : float32 `[len(kept), n_vocab]`
            Where they go.
        threads : int
        cancel : int32 `[1]`, optional
            Becomes non-zero to stop the call.

        Returns
        -------
        bool
            False where it was cancelled; caches then hold what they held.

        Raises
        ------
        ValueError
            A token, index or position is out of range.
        MemoryError
            There is none for the new positions; nothing was computed.
        RuntimeError
            The workspace is in use by another thread.
        KeyboardInterrupt
            Or whatever a signal handler raised; the caches are as before.
        """
        cdef Call call
        cdef KVCache cache
        cdef Run* runs
        cdef int i, n = 0, n_runs = len(sequences), n_singles = 0, n_segments = 1
        cdef int32_t[::1] part
        if workspace.busy:
            raise RuntimeError("the workspace is in use by another thread")
        if n_runs < 1:
            raise ValueError("no sequence")
        lengths = [len(tokens) for _, tokens in sequences]
        total = sum(lengths)
        if total < 1 or min(lengths) < 1:
            raise ValueError("no tokens")
        if total > 1 << 24:
            raise ValueError(f"{total} tokens in one call")
        cdef int32_t[::1] tokens = np.empty(total, np.int32)
        cdef int32_t[::1] positions = np.empty(total, np.int32)
        cdef int32_t[::1] wanted = np.ascontiguousarray(kept, np.int32)
        run_memory = np.zeros(n_runs * sizeof(Run), np.uint8)
        cdef uint8_t[::1] run_view = run_memory
        runs = <Run*>&run_view[0]
        seen = set()
        for i, (state, ids) in enumerate(sequences):
            cache = state
            if id(cache) in seen:
                raise ValueError("a cache appears twice")
            seen.add(id(cache))
            if (cache.n_layers != self.plan.n_layers or cache.n_kv_heads != self.plan.n_kv_heads
                    or cache.head_dim != self.plan.head_dim):
                raise ValueError("the cache was made for another model")
            part = np.ascontiguousarray(ids, np.int32)
            if cache.position + part.shape[0] > cache.context:
                raise ValueError(f"{part.shape[0]} more tokens in a context of {cache.context}")
            tokens[n:n + part.shape[0]] = part
            runs[i].cache = cache.view()
            runs[i].first = n
            runs[i].n = <int>part.shape[0]
            runs[i].position = cache.position
            runs[i].context = cache.context
            for j in range(part.shape[0]):
                positions[n + j] = cache.position + j
            n += <int>part.shape[0]
            n_singles += part.shape[0] == 1
            n_segments = max(n_segments, (cache.position + <int>part.shape[0]) // SEGMENT + 1)
        self._check_rows(tokens, positions)
        for i in range(wanted.shape[0]):
            if not 0 <= wanted[i] < n:
                raise ValueError(f"index {wanted[i]} of {n} tokens")
        if logits.shape[0] != wanted.shape[0] or logits.shape[1] != self.n_vocab:
            raise ValueError(f"logits must be [{wanted.shape[0]}, {self.n_vocab}]")
        threads = max(1, min(threads, 256))
        # Segments grow with the context; reserve in steps, so that a growing cache rarely asks.
        self._reserve(workspace, max(n, wanted.shape[0]), threads, (n_segments + 15) // 16 * 16,
                      n_singles)
        for (state, ids) in sequences:
            cache = state
            cache.reserve(<int>len(ids))
        memset(&call, 0, sizeof(call))
        memset(workspace.counters, 0, 2 * self.n_operations * sizeof(int))
        call.operations = self.operations
        call.n_operations = self.n_operations
        call.buffers = workspace.buffers
        call.prepared = workspace.prepared
        call.ropes = self.ropes
        call.n_ropes = self.n_ropes
        call.rope_width = self.rope_width
        call.n_kv_heads = self.plan.n_kv_heads
        call.head_dim = self.plan.head_dim
        call.padded_dim = (call.head_dim + 15) // 16 * 16
        call.n = n
        call.tokens = &tokens[0]
        call.positions = &positions[0]
        call.runs = runs
        call.n_runs = n_runs
        call.n_kept = <int>wanted.shape[0]
        if call.n_kept:
            call.kept = &wanted[0]
            call.buffers[self.logits].base = &logits[0, 0]
            call.buffers[self.logits].stride = self.n_vocab
        else:
            # Nothing wanted: leave out what follows the gathering.
            for i in range(self.n_operations):
                if self.operations[i].kind == GATHER:
                    call.n_operations = i
                    break
        call.rope_tables = workspace.rope_tables
        call.queries = workspace.queries
        call.query_stride = self.max_heads * call.padded_dim
        call.partials = workspace.partials
        call.max_segments = workspace.max_segments
        call.max_heads = self.max_heads
        call.scratch = workspace.scratch
        call.scratch_stride = workspace.scratch_stride
        call.expert_layers = self.expert_layers
        call.expert_spaces = workspace.expert_spaces
        call.counters = workspace.counters
        call.stop_at = -1
        if cancel is not None:
            call.cancel = &cancel[0]
        call.check_signals = n > 1
        call.next_check = rl_milliseconds() + SIGNAL_INTERVAL_MS if n > 1 else 0
        call.level = simd_level()
        call.norm = rl_norm_kernel(call.level)
        call.rotate = rl_rope_kernel(call.level)
        call.attend = rl_attend_kernel(call.level)
        call.merge = rl_merge_kernel(call.level)
        call.store = rl_store_kernel(call.level)
        call.activate = rl_activate_kernel(call.level)
        linear_kernels(call.level, &call.linear)
        workspace.busy = 1
        try:
            with nogil:
                run_team(_run, &call, threads)
        finally:
            workspace.busy = 0
        if call.signalled:
            raise _pending.pop(0)
        if call.stop_at >= 0:
            return False
        for (state, ids) in sequences:
            cache = state
            cache.advance(<int>len(ids))
        PyErr_CheckSignals()
        return True

    cdef int _check_rows(self, int32_t[::1] tokens, int32_t[::1] positions) except -1:
        cdef int i, limit = self.n_vocab, n_positions = 1 << 30
        for i in range(self.n_operations):
            if self.operations[i].kind == EMBED:
                limit = self.operations[i].table.n_rows
                if self.operations[i].positions.n_rows:
                    n_positions = self.operations[i].positions.n_rows
        for i in range(tokens.shape[0]):
            if not 0 <= tokens[i] < limit:
                raise ValueError(f"token id {tokens[i]} at index {i}: the vocabulary has {limit}")
            if positions[i] >= n_positions:
                raise ValueError(f"position {positions[i]}: the model has {n_positions}")
        return 0


def first_not_finite(const float[:, ::1] values):
    """Index (row, column) of the first NaN or infinity, or None."""
    cdef Py_ssize_t i, j
    cdef const int32_t* bits
    cdef int32_t bad
    for i in range(values.shape[0]):
        bad = 0
        bits = <const int32_t*>&values[i, 0]
        with nogil:
            for j in range(values.shape[1]):
                bad |= (bits[j] & 0x7f800000) == 0x7f800000
        if bad:
            for j in range(values.shape[1]):
                if not isfinite(values[i, j]):
                    return i, j
    return None

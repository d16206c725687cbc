"""Attention over plain float32 arrays, on all threads, without the matrix of all scores.

Blocks of up to 32 queries run over blocks of 128 keys with a running maximum and sum (Milakov and
Gimelshein 2018; Dao et al. 2022). Keys and values are laid out once as panels for the tiles of
``gemm``; scores are made transposed, a query a lane, so that they are operands of the second
product as they are. With a few queries nothing is laid out: the keys are read as they lie, in
stretches that are merged in their order. Results do not depend on the number of threads.
"""

from libc.math cimport INFINITY, tanhf
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from rustllm._core.dispatch cimport simd_level
from rustllm._core.gemm cimport (
    RL_MAX_TILE_ROWS,
    rl_gemm,
    rl_gemm_kernels,
    rl_panel,
    rl_panel_of_rows,
)
from rustllm._core.status cimport NO_MEMORY, OK, check
from rustllm._core.threads cimport run_team, team_barrier

cdef extern from "atomics.h" nogil:
    void rl_store(int*, int) noexcept
    int rl_load(const int*) noexcept
    int rl_fetch_add(int*, int) noexcept

cdef extern from "attend_f32.h" nogil:
    const float RL_NO_SCORE
    ctypedef void (*rl_columns_fn)(float*, int, int, float*, float*, float*) noexcept nogil
    ctypedef void (*rl_single_fn)(
        const float*, const float*, Py_ssize_t, const float*, Py_ssize_t, int, int, int, float,
        const float*, float*, float*, float*, float*) noexcept nogil
    rl_columns_fn rl_columns_kernel(int) noexcept
    rl_single_fn rl_single_kernel(int) noexcept
    float rl_exp_portable(float) noexcept

cdef enum:
    KEY_BLOCK = 128
    STRETCH = 512           # keys of one query that are worked on together
    FEW_QUERIES = 8         # up to which keys and values are read as they lie
    ROOM = 64

cdef struct Task:
    Py_ssize_t n_heads
    Py_ssize_t n_kv_heads
    Py_ssize_t n_q
    Py_ssize_t n_k
    int dim
    int dim_v
    const float* q
    const float* k
    const float* v
    float* out
    const float* bias
    Py_ssize_t q_head           # floats between heads ...
    Py_ssize_t q_row            # ... and between rows
    Py_ssize_t k_head
    Py_ssize_t k_row
    Py_ssize_t v_head
    Py_ssize_t v_row
    Py_ssize_t out_head
    Py_ssize_t out_row
    Py_ssize_t bias_head
    Py_ssize_t bias_row
    float scale
    float softcap
    bint causal
    Py_ssize_t window
    rl_gemm tiles
    rl_columns_fn columns
    rl_single_fn single
    float* keys                 # [kv head][key panel][dim][rows]
    float* values               # [kv head][key block][value panel][keys][rows]
    Py_ssize_t key_stride       # floats a kv head
    Py_ssize_t value_stride
    float* partials             # [head, query][stretch][dim_v + 2]
    Py_ssize_t n_stretches
    int next_panel
    int next_block
    int status


cdef inline Py_ssize_t first_key(const Task* t, Py_ssize_t query) noexcept nogil:
    # The keys that a query sees are first_key .. last_key - 1; its own key is at the same distance
    # from the end.
    cdef Py_ssize_t own = query + t.n_k - t.n_q
    return max(<Py_ssize_t>0, own - t.window + 1) if t.window > 0 else 0


cdef inline Py_ssize_t last_key(const Task* t, Py_ssize_t query) noexcept nogil:
    cdef Py_ssize_t own = query + t.n_k - t.n_q
    return max(<Py_ssize_t>0, min(t.n_k, own + 1)) if t.causal else t.n_k


cdef void lay_out(Task* t) noexcept nogil:
    # Take blocks of keys until all lie in panels.
    cdef Py_ssize_t blocks = (t.n_k + KEY_BLOCK - 1) // KEY_BLOCK, at, head, first, n, i, d
    cdef int rows = t.tiles.rows
    cdef float* keys
    cdef float* values
    while True:
        at = rl_fetch_add(&t.next_panel, 1)
        if at >= blocks * t.n_kv_heads:
            return
        head = at // blocks
        first = at % blocks * KEY_BLOCK
        n = min(<Py_ssize_t>KEY_BLOCK, t.n_k - first)
        keys = t.keys + head * t.key_stride + first * t.dim
        i = 0
        while i < n:
            rl_panel(t.k + head * t.k_head + (first + i) * t.k_row, t.k_row,
                     <int>min(<Py_ssize_t>rows, n - i), rows, t.dim, keys + i * t.dim)
            i += rows
        values = t.values + head * t.value_stride + at % blocks * KEY_BLOCK * padded(t.dim_v, rows)
        d = 0
        while d < t.dim_v:
            rl_panel_of_rows(t.v + head * t.v_head + first * t.v_row + d, t.v_row,
                             <int>min(<Py_ssize_t>rows, t.dim_v - d), rows, n,
                             values + d * KEY_BLOCK)
            d += rows


cdef inline Py_ssize_t padded(Py_ssize_t n, Py_ssize_t unit) noexcept nogil:
    return (n + unit - 1) // unit * unit


cdef void attend_blocks(void* context, int thread, int threads) noexcept nogil:
    cdef Task* t = <Task*>context
    cdef int width = t.tiles.cols
    cdef Py_ssize_t blocks = (t.n_q + width - 1) // width, at
    cdef Py_ssize_t tall = padded(t.dim_v, RL_MAX_TILE_ROWS)
    cdef float* scratch = <float*>malloc(
        <size_t>(width * (t.dim + KEY_BLOCK + RL_MAX_TILE_ROWS + tall + 3) + ROOM) * sizeof(float))
    if scratch is NULL:
        rl_store(&t.status, NO_MEMORY)
    lay_out(t)
    team_barrier(threads)
    if rl_load(&t.status) == OK:
        while True:
            # The last queries see most keys: they go first, so that threads end together.
            at = rl_fetch_add(&t.next_block, 1)
            if at >= blocks * t.n_heads:
                break
            attend_block(t, at % t.n_heads, (blocks - 1 - at // t.n_heads) * width,
                         <float*>((<size_t>scratch + 63) & ~<size_t>63))
    free(scratch)


cdef void attend_block(
    Task* t, Py_ssize_t head, Py_ssize_t query, float* scratch
) noexcept nogil:
    cdef int width = t.tiles.cols, rows = t.tiles.rows, n_rows, i, j
    cdef int n = <int>min(<Py_ssize_t>width, t.n_q - query)
    cdef Py_ssize_t kv_head = head // (t.n_heads // t.n_kv_heads)
    cdef Py_ssize_t begin = first_key(t, query) // KEY_BLOCK * KEY_BLOCK
    cdef Py_ssize_t end = last_key(t, query + n - 1), key, many, d
    cdef float* queries = scratch                       # [dim][width]
    cdef float* scores = queries + t.dim * width        # [keys][width]
    cdef float* result = scores + (KEY_BLOCK + RL_MAX_TILE_ROWS) * width    # [dim_v][width]
    cdef float* top = result + padded(t.dim_v, RL_MAX_TILE_ROWS) * width
    cdef float* total = top + width
    cdef float* rescale = total + width
    cdef const float* keys
    cdef const float* values
    cdef float* target
    cdef float inverse
    rl_panel(t.q + head * t.q_head + query * t.q_row, t.q_row, n, width, t.dim, queries)
    for d in range(t.dim * width):
        queries[d] *= t.scale
    for j in range(width):
        top[j] = RL_NO_SCORE
        total[j] = 0.0
    memset(result, 0, padded(t.dim_v, rows) * width * sizeof(float))
    key = begin
    while key < end:
        many = min(<Py_ssize_t>KEY_BLOCK, end - key)
        keys = t.keys + kv_head * t.key_stride + key * t.dim
        n_rows = <int>padded(many, rows)
        i = 0
        while i < n_rows:
            t.tiles.tile(t.dim, keys + i * t.dim, queries, scores + i * width, width, False)
            i += rows
        if t.softcap > 0:
            for d in range(many * width):
                scores[d] = t.softcap * tanhf(scores[d] / t.softcap)
        if t.bias is not NULL:
            add_bias(t, scores, head, query, n, key, many)
        hide(t, scores, query, n, key, many)
        t.columns(scores, <int>many, width, top, total, rescale)
        if key > begin:
            for i in range(t.dim_v):
                for j in range(width):
                    result[i * width + j] *= rescale[j]
        values = (t.values + kv_head * t.value_stride
                  + key // KEY_BLOCK * KEY_BLOCK * padded(t.dim_v, rows))
        d = 0
        while d < t.dim_v:
            t.tiles.tile(many, values + d * KEY_BLOCK, scores, result + d * width, width, True)
            d += rows
        key += KEY_BLOCK
    for j in range(n):
        target = t.out + head * t.out_head + (query + j) * t.out_row
        inverse = 1.0 / total[j] if total[j] > 0 or total[j] != total[j] else 0.0
        for i in range(t.dim_v):
            target[i] = result[i * width + j] * inverse


cdef void add_bias(
    const Task* t, float* scores, Py_ssize_t head, Py_ssize_t query, int n, Py_ssize_t key,
    Py_ssize_t many
) noexcept nogil:
    cdef const float* bias
    cdef Py_ssize_t i
    cdef int j
    for j in range(n):
        bias = t.bias + head * t.bias_head + (query + j) * t.bias_row + key
        for i in range(many):
            scores[i * t.tiles.cols + j] += bias[i]


cdef void hide(
    const Task* t, float* scores, Py_ssize_t query, int n, Py_ssize_t key, Py_ssize_t many
) noexcept nogil:
    # No score for the keys of this block that a query does not see.
    cdef int j, width = t.tiles.cols
    cdef Py_ssize_t i, first, last
    if (first_key(t, query + n - 1) <= key and last_key(t, query) >= key + many):
        return
    for j in range(n):
        first = max(<Py_ssize_t>0, min(many, first_key(t, query + j) - key))
        last = max(first, min(many, last_key(t, query + j) - key))
        for i in range(first):
            scores[i * width + j] = -INFINITY
        for i in range(last, many):
            scores[i * width + j] = -INFINITY


cdef void attend_few(void* context, int thread, int threads) noexcept nogil:
    cdef Task* t = <Task*>context
    cdef float scores[STRETCH]
    cdef Py_ssize_t at, rest, head, query, first, last, kv_head, i, d, j
    cdef Py_ssize_t size = t.dim_v + 2
    cdef const float* bias
    cdef float* part
    cdef float* whole
    cdef float* target
    cdef float top, scale, one
    cdef float[ROOM] small
    cdef float* scaled = small
    if t.dim > ROOM:
        scaled = <float*>malloc(t.dim * sizeof(float))
        if scaled is NULL:
            rl_store(&t.status, NO_MEMORY)
    team_barrier(threads)
    if rl_load(&t.status) == OK:
        while True:
            at = rl_fetch_add(&t.next_panel, 1)
            if at >= t.n_heads * t.n_q * t.n_stretches:
                break
            rest = at // t.n_stretches
            query = rest % t.n_q
            head = rest // t.n_q
            kv_head = head // (t.n_heads // t.n_kv_heads)
            part = t.partials + at * size
            memset(part, 0, size * sizeof(float))
            part[t.dim_v] = RL_NO_SCORE
            first = max(at % t.n_stretches * STRETCH, first_key(t, query))
            last = min((at % t.n_stretches + 1) * STRETCH, last_key(t, query))
            if first >= last:
                continue
            for d in range(t.dim):
                scaled[d] = t.q[head * t.q_head + query * t.q_row + d] * t.scale
            bias = NULL
            if t.bias is not NULL:
                bias = t.bias + head * t.bias_head + query * t.bias_row + first
            t.single(
                scaled, t.k + kv_head * t.k_head + first * t.k_row, t.k_row,
                t.v + kv_head * t.v_head + first * t.v_row, t.v_row, t.dim, t.dim_v,
                <int>(last - first), t.softcap, bias, scores, part + t.dim_v, part + t.dim_v + 1,
                part)
    if scaled is not small:
        free(scaled)
    team_barrier(threads)
    # Merge the stretches of each query, in their order.
    i = thread
    while i < t.n_heads * t.n_q and rl_load(&t.status) == OK:
        whole = t.partials + i * t.n_stretches * size
        for j in range(1, t.n_stretches):
            part = whole + j * size
            top = max(whole[t.dim_v], part[t.dim_v])
            scale = rl_exp_portable(whole[t.dim_v] - top)
            one = rl_exp_portable(part[t.dim_v] - top)
            for d in range(t.dim_v):
                whole[d] = whole[d] * scale + part[d] * one
            whole[t.dim_v + 1] = whole[t.dim_v + 1] * scale + part[t.dim_v + 1] * one
            whole[t.dim_v] = top
        target = t.out + i // t.n_q * t.out_head + i % t.n_q * t.out_row
        scale = whole[t.dim_v + 1]
        scale = 1.0 / scale if scale > 0 or scale != scale else 0.0
        for d in range(t.dim_v):
            target[d] = whole[d] * scale
        i += threads


cdef int run(Task* t, int threads) noexcept nogil:
    cdef Py_ssize_t tall = padded(t.dim_v, t.tiles.rows)
    cdef Py_ssize_t blocks = (t.n_k + KEY_BLOCK - 1) // KEY_BLOCK
    cdef float* memory
    cdef size_t size
    cdef double work = <double>t.n_heads * t.n_q * t.n_k * (t.dim + t.dim_v)
    if work < 1 << 16:
        threads = 1
    if t.n_q <= FEW_QUERIES:
        t.n_stretches = max(<Py_ssize_t>1, (t.n_k + STRETCH - 1) // STRETCH)
        size = <size_t>(t.n_heads * t.n_q * t.n_stretches * (t.dim_v + 2))
    else:
        t.key_stride = blocks * KEY_BLOCK * t.dim
        t.value_stride = blocks * KEY_BLOCK * tall
        size = <size_t>(t.n_kv_heads * (t.key_stride + t.value_stride) + ROOM)
    memory = <float*>malloc(size * sizeof(float))
    if memory is NULL:
        return NO_MEMORY
    if t.n_q <= FEW_QUERIES:
        t.partials = memory
        run_team(attend_few, t, threads)
    else:
        t.keys = <float*>((<size_t>memory + 63) & ~<size_t>63)
        t.values = t.keys + t.n_kv_heads * t.key_stride
        run_team(attend_blocks, t, threads)
    free(memory)
    return t.status


def attend(const float[:, :, :] q, const float[:, :, :] k, const float[:, :, :] v,
           float[:, :, :] out, float scale, *, bint causal=False, Py_ssize_t window=0,
           float softcap=0.0, const float[:, :, :] bias=None, int threads=1):
    """Write softmax(q k' scale + bias) v to `out`.

    Parameters
    ----------
    q : float32 [n_heads, n_q, dim]
        Neighbours of a row side by side, as in all the others.
    k : float32 [n_kv_heads, n_k, dim]
    v : float32 [n_kv_heads, n_k, dim_v]
    out : float32 [n_heads, n_q, dim_v]
        Shares no memory with the others.
    scale : float
    causal : bool
        Query i sees the keys up to its own, which is at i + n_k - n_q.
    window : int
        Only so many keys up to its own; 0 for all.
    softcap : float
        Scores become ``softcap * tanh(score / softcap)``; 0 for none.
    bias : float32 [1 or n_heads, n_q, n_k], optional
        Added to the scores; minus infinity hides a key.
    threads : int
    """
    cdef Task t
    cdef int status
    memset(&t, 0, sizeof(Task))
    t.n_heads, t.n_q, t.dim = q.shape[0], q.shape[1], <int>q.shape[2]
    t.n_kv_heads, t.n_k, t.dim_v = k.shape[0], k.shape[1], <int>v.shape[2]
    if k.shape[2] != t.dim or v.shape[0] != t.n_kv_heads or v.shape[1] != t.n_k:
        raise ValueError("the shapes do not fit together")
    if out.shape[0] != t.n_heads or out.shape[1] != t.n_q or out.shape[2] != t.dim_v:
        raise ValueError("the result's shape does not fit")
    if t.n_heads == 0 or t.n_q == 0 or t.dim_v == 0:
        return
    if t.n_kv_heads == 0 or t.n_heads % t.n_kv_heads:
        raise ValueError("the heads of keys do not divide those of queries")
    if t.dim == 0 or t.n_k == 0:
        raise ValueError("no keys, or heads without dimensions")
    if t.n_heads * t.n_q * max(1, t.n_k // STRETCH) > 1 << 30 or t.n_k > 1 << 30:
        raise ValueError("too many queries or keys")
    if (t.dim > 1 and (q.strides[2] != 4 or k.strides[2] != 4)) or (
            t.dim_v > 1 and (v.strides[2] != 4 or out.strides[2] != 4)):
        raise ValueError("neighbours in a row must lie side by side")
    t.q, t.q_head, t.q_row = &q[0, 0, 0], q.strides[0] // 4, q.strides[1] // 4
    t.k, t.k_head, t.k_row = &k[0, 0, 0], k.strides[0] // 4, k.strides[1] // 4
    t.v, t.v_head, t.v_row = &v[0, 0, 0], v.strides[0] // 4, v.strides[1] // 4
    t.out, t.out_head, t.out_row = &out[0, 0, 0], out.strides[0] // 4, out.strides[1] // 4
    if bias is not None:
        if bias.shape[0] not in (1, t.n_heads) or bias.shape[1] != t.n_q:
            raise ValueError("the bias does not fit")
        if bias.shape[2] != t.n_k or (t.n_k > 1 and bias.strides[2] != 4):
            raise ValueError("the bias does not fit")
        t.bias = &bias[0, 0, 0]
        t.bias_head = bias.strides[0] // 4 if bias.shape[0] > 1 else 0
        t.bias_row = bias.strides[1] // 4
    t.scale = scale
    t.softcap = softcap
    t.causal = causal
    t.window = window
    rl_gemm_kernels(simd_level(), &t.tiles)
    t.columns = rl_columns_kernel(simd_level())
    t.single = rl_single_kernel(simd_level())
    with nogil:
        status = run(&t, threads)
    check(status, "no memory for attention")

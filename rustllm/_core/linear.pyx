"""Packed weight matrices, and products of them with rows of activations.

A :class:`PackedMatrix` holds a matrix of any block format with sixteen rows side by side (see
``simd/packed.h``). :func:`pack` repacks many at once into one region, on all threads. The
arithmetic of a product is the same bit for bit for any number of rows, tokens or threads and at
every SIMD level.
"""

import numpy as np

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memset

from rustllm._core.dispatch cimport simd_level
from rustllm._core.quant cimport first_bad_block
from rustllm._core.threads cimport run_team
from rustllm._core.zeroed cimport ZeroedMemory

cdef extern from "atomics.h" nogil:
    int rl_fetch_add(int*, int) noexcept
    int rl_load(const int*) noexcept
    void rl_store(int*, int) noexcept

cdef extern from "pages.h" nogil:
    void rl_pages_drop(const void*, size_t) noexcept

cdef extern from "linear.h" nogil:
    enum:
        RL_GROUP
        RL_BLOCK
    int rl_matrix_layout(rl_matrix*, int, int32_t, int32_t) noexcept
    size_t rl_file_block_bytes(int, int*) noexcept
    void rl_pack_group(const rl_matrix*, const uint8_t*, size_t, int, uint8_t*) noexcept
    void rl_row_portable(const rl_matrix*, int32_t, float*) noexcept
    mm_fn rl_mm_kernel(int, int, int) noexcept
    quantize_fn rl_quantize_kernel(int, int) noexcept
    void rl_quantize_fine(const float*, int, uint8_t*, int, int) noexcept

# Bytes that a thread packs at a time, after which it lets go of the pages it read, so that source
# and copy are never both in memory; and bytes between two looks at signals.
cdef enum:
    PACK_UNIT = 2 << 20
    PACK_BATCH = 128 << 20


cdef void linear_kernels(int level, LinearKernels* out) noexcept nogil:
    cdef int i
    for i in range(4):
        out.int8[i] = rl_mm_kernel(level, 0, i)
        out.floats[i] = rl_mm_kernel(level, 1, i)
    out.quantize = rl_quantize_kernel(level, 0)
    out.lay_out = rl_quantize_kernel(level, 1)
    out.quantize_fine = rl_quantize_fine
    out.row = rl_row_portable


cdef class PackedMatrix:
    """A weight matrix laid out for the kernels.

    Parameters
    ----------
    type_id : int
        Block format, GGUF's number.
    n_rows, n_cols : int
        Outputs and inputs.
    source : buffer
        The rows in the file's format, `n_rows` times the bytes of a row.
    mapped : bool
        `source` lies in a mapped file: memory that was read may be let go, because whoever touches
        it again reads it again.

    Notes
    -----
    Immutable after :func:`pack`; any number of threads may use one.
    """

    def __init__(self, int type_id, int n_rows, int n_cols, source, *, bint mapped=False):
        cdef Py_buffer view
        cdef int columns = 1
        cdef size_t block
        if rl_matrix_layout(&self.matrix, type_id, n_rows, n_cols) != 0:
            raise ValueError(f"type {type_id} cannot be packed as [{n_rows}, {n_cols}]")
        block = rl_file_block_bytes(type_id, &columns)
        self.row_bytes = <size_t>(n_cols // columns) * block
        PyObject_GetBuffer(source, &view, PyBUF_SIMPLE)
        try:
            if <size_t>view.len != self.row_bytes * <size_t>n_rows:
                raise ValueError(
                    f"[{n_rows}, {n_cols}] of type {type_id} takes "
                    f"{self.row_bytes * n_rows} bytes, not {view.len}"
                )
            self.source_data = <const uint8_t*>view.buf
        finally:
            PyBuffer_Release(&view)
        self.source = source
        self.mapped = mapped

    @property
    def shape(self):
        """Rows and columns."""
        return self.matrix.n_rows, self.matrix.n_cols

    @property
    def type_id(self):
        """GGUF's number of the block format."""
        return self.matrix.type

    @property
    def packed_bytes(self):
        """Bytes of the packed form."""
        return _n_groups(&self.matrix) * self.matrix.group_bytes

    @property
    def is_packed(self):
        """Whether :func:`pack` was called."""
        return self.matrix.data != NULL

    def row(self, int index):
        """One row in float32, `[n_cols]`, each weight exactly what the format defines."""
        if self.matrix.data == NULL:
            raise RuntimeError("pack the matrix first")
        if not 0 <= index < self.matrix.n_rows:
            raise IndexError(f"row {index} of {self.matrix.n_rows}")
        cdef float[::1] out = np.empty(self.matrix.n_cols, np.float32)
        with nogil:
            rl_row_portable(&self.matrix, index, &out[0])
        return np.asarray(out)

    def matmul(self, x, *, bint exact=False, bint fine=False, int threads=1, bias=None):
        """Product with rows of activations.

        Parameters
        ----------
        x : array_like, float32 `[n_tokens, n_cols]`
        exact : bool
            Keep the activations in float32 instead of int8 blocks.
        fine : bool
            Keep them in two int8 parts, about fifteen bits.
        threads : int
            Threads to use; the result does not depend on it.
        bias : array_like, float32 `[n_rows]`, optional

        Returns
        -------
        numpy.ndarray
            float32 `[n_tokens, n_rows]`.
        """
        if self.matrix.data == NULL:
            raise RuntimeError("pack the matrix first")
        cdef const float[:, ::1] rows = np.ascontiguousarray(x, np.float32)
        cdef int n = <int>rows.shape[0]
        cdef const float[::1] offsets = None
        if rows.shape[1] != self.matrix.n_cols:
            raise ValueError(f"x has {rows.shape[1]} columns, the matrix {self.matrix.n_cols}")
        out = np.empty((n, self.matrix.n_rows), np.float32)
        if n == 0:
            return out
        cdef float[:, ::1] y = out
        cdef bint is_float = exact or rl_is_float(self.matrix.type) != 0
        cdef size_t record = self.matrix.n_blocks * <size_t>(RL_ACT_FLOAT if is_float
                                                             else RL_ACT_INT8)
        cdef float[::1] padded = np.zeros(self.matrix.n_blocks * RL_BLOCK, np.float32)
        cdef uint8_t[::1] tiles = np.empty(2 * record * n + 64, np.uint8)
        cdef quantize_fn quantize = rl_quantize_kernel(simd_level(), is_float)
        if fine and not is_float:
            quantize = rl_quantize_fine
        cdef int c, start, columns = 2 if fine and not is_float else 1
        cdef rl_matrix matrix = self.matrix
        cdef Product product
        memset(&product, 0, sizeof(product))
        if bias is not None:
            offsets = np.ascontiguousarray(bias, np.float32)
            if offsets.shape[0] != self.matrix.n_rows:
                raise ValueError(f"bias has {offsets.shape[0]} values, not {self.matrix.n_rows}")
            product.bias = &offsets[0]
        for c in range(n):
            start = tile_start(columns * n, columns * c)
            padded[:self.matrix.n_cols] = rows[c]
            quantize(&padded[0], self.matrix.n_blocks, &tiles[record * start],
                     tile_width(columns * n, start), columns * c - start)
        matrix.fine = columns == 2
        product.matrix = &matrix
        product.tiles = &tiles[0]
        product.record = record
        product.n = columns * n
        product.y = &y[0, 0]
        product.is_float = is_float
        product.level = simd_level()
        with nogil:
            run_team(_multiply, &product, threads)
        return out


cdef struct Product:
    const rl_matrix* matrix
    const uint8_t* tiles
    size_t record
    int n
    int is_float
    int level
    float* y
    const float* bias
    int next


cdef int _n_groups(const rl_matrix* m) noexcept nogil:
    return (m.n_rows + RL_GROUP - 1) // RL_GROUP


cdef void _multiply(void* context, int thread, int n_threads) noexcept nogil:
    cdef Product* p = <Product*>context
    cdef int groups = _n_groups(p.matrix)
    cdef int chunk = max(1, groups // (4 * n_threads))
    cdef int g, c, width
    cdef mm_fn kernel
    while True:
        g = rl_fetch_add(&p.next, chunk)
        if g >= groups:
            return
        c = 0
        while c < p.n:
            width = tile_width(p.n, c)
            kernel = rl_mm_kernel(p.level, p.is_float, log2_width(width))
            kernel(p.matrix, g, min(g + chunk, groups), p.tiles + p.record * <size_t>c,
                   p.y + <ptrdiff_t>(c // 2 if p.matrix.fine else c) * p.matrix.n_rows,
                   p.matrix.n_rows, p.bias)
            c += width


# ---- packing ---------------------------------------------------------------------------------

class NotFiniteError(ValueError):
    """A weight that is NaN or infinite, or a block whose scale is.

    Attributes
    ----------
    index, row : int
        Of the matrix in the sequence that was to be packed, and of the row in it.
    """

    def __init__(self, index, row):
        super().__init__(f"row {row} of matrix {index} is not finite")
        self.index = index
        self.row = row


cdef struct Part:               # groups of one matrix, for one thread
    const rl_matrix* matrix
    const uint8_t* source
    size_t row_bytes
    ptrdiff_t blocks_in_row
    int index
    int first_group
    int last_group
    int mapped

cdef struct Packing:
    const Part* parts
    int n_parts
    int next
    int failed                  # whether one of the findings is set
    int* bad_rows               # of each part: the first that is not finite, or -1


cdef void _pack_part(const Part* p, int* bad_row) noexcept nogil:
    cdef const rl_matrix* m = p.matrix
    cdef const uint8_t* source
    cdef ptrdiff_t bad
    cdef int g, n_rows
    for g in range(p.first_group, p.last_group):
        source = p.source + <size_t>g * RL_GROUP * p.row_bytes
        n_rows = min(RL_GROUP, m.n_rows - g * RL_GROUP)
        bad = first_bad_block(m.type, source, n_rows * p.blocks_in_row)
        if bad >= 0:
            bad_row[0] = g * RL_GROUP + <int>(bad // p.blocks_in_row)
            return
        rl_pack_group(m, source, p.row_bytes, n_rows, <uint8_t*>m.data + g * m.group_bytes)
    if p.mapped:
        source = p.source + <size_t>p.first_group * RL_GROUP * p.row_bytes
        n_rows = min(p.last_group * RL_GROUP, m.n_rows) - p.first_group * RL_GROUP
        rl_pages_drop(source, n_rows * p.row_bytes)


cdef void _pack_parts(void* context, int thread, int n_threads) noexcept nogil:
    cdef Packing* packing = <Packing*>context
    cdef int i
    while not rl_load(&packing.failed):
        i = rl_fetch_add(&packing.next, 1)
        if i >= packing.n_parts:
            return
        _pack_part(&packing.parts[i], &packing.bad_rows[i])
        if packing.bad_rows[i] >= 0:
            rl_store(&packing.failed, 1)


def pack(matrices, *, int threads=1, ZeroedMemory region=None):
    """Repack matrices into one region of memory, in the given order.

    Parameters
    ----------
    matrices : sequence of PackedMatrix
        Not yet packed. Their sources are released.
    threads : int
        Threads to use.
    region : ZeroedMemory, optional
        Where to, if it is large enough: memory of which somebody has been taking possession.

    Raises
    ------
    MemoryError
        The region cannot be had; nothing was packed.
    NotFiniteError
        A weight is NaN or infinite; the matrices are not packed.
    """
    cdef PackedMatrix m
    cdef Part* part
    cdef Packing packing
    cdef int64_t total = 0, offset = 0, since = 0
    cdef int groups, step, first, n = 0, columns = 1, done = 0, i
    cdef uint8_t* base
    matrices = list(matrices)
    for m in matrices:
        if m.matrix.data != NULL:
            raise RuntimeError("already packed")
        total += _n_groups(&m.matrix) * m.matrix.group_bytes
        n += _n_groups(&m.matrix) // _part_groups(&m.matrix) + 1
    if total == 0:
        return
    cdef uint8_t[::1] memory = np.zeros(n * sizeof(Part), np.uint8)
    cdef Part* parts = <Part*>&memory[0]
    cdef int[::1] bad_rows = np.full(n, -1, np.intc)
    if region is None or region.n_bytes < total:
        region = ZeroedMemory(total, "weights", huge=True)
    base = region.data
    region.used = total
    n = 0
    for index, m in enumerate(matrices):
        groups = _n_groups(&m.matrix)
        m.matrix.data = base + offset
        offset += groups * m.matrix.group_bytes
        rl_file_block_bytes(m.matrix.type, &columns)
        step = _part_groups(&m.matrix)
        for first in range(0, groups, step):
            part = &parts[n]
            part.matrix = &m.matrix
            part.source = m.source_data
            part.row_bytes = m.row_bytes
            part.blocks_in_row = m.matrix.n_cols // columns
            part.index = index
            part.first_group = first
            part.last_group = min(groups, first + step)
            part.mapped = m.mapped
            n += 1
    memset(&packing, 0, sizeof(packing))
    packing.bad_rows = &bad_rows[0]
    packing.parts = parts
    try:
        while done < n:
            since = 0
            while packing.n_parts < n and since < PACK_BATCH:
                part = &parts[packing.n_parts]
                since += (part.last_group - part.first_group) * part.matrix.group_bytes
                packing.n_parts += 1
            packing.next = done
            with nogil:
                run_team(_pack_parts, &packing, threads)
            for i in range(done, packing.n_parts):
                if bad_rows[i] >= 0:
                    raise NotFiniteError(parts[i].index, bad_rows[i])
            done = packing.n_parts
            PyErr_CheckSignals()
    except BaseException:
        for m in matrices:
            m.matrix.data = NULL
        raise
    for m in matrices:
        m.owner = region
        m.source = None
        m.source_data = NULL


cdef int _part_groups(const rl_matrix* m) noexcept nogil:
    """Groups that a thread packs at a time."""
    return max(1, <int>(PACK_UNIT // m.group_bytes))

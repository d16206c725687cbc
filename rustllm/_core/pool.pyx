"""Reusable buffers of token ids in size classes.

A buffer that is given back goes to the free list of its class, and the next request of that class
takes it from there: no call of the system's allocator, no page faults, warm cache lines. Classes
lie at most a quarter apart, so that at most a fifth of a buffer is unused.
"""

from collections import namedtuple

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES
from libc.stdint cimport SIZE_MAX, uint32_t
from libc.string cimport memcpy, memset

from rustllm._core.alloc cimport mem_alloc, mem_free
from rustllm._core.sizes cimport MAX_BYTES, checked_size
from rustllm._core.status cimport (
    BAD_ARGUMENT,
    LIMIT_REACHED,
    LIVE_VIEWS,
    NO_MEMORY,
    OK,
    RELEASED_TWICE,
    STALE,
    failure,
)

cdef extern from "alloc.h" nogil:
    void rl_poison(size_t address, size_t n) noexcept
    void rl_unpoison(size_t address, size_t n) noexcept
    void rl_lock(int* lock) noexcept
    void rl_unlock(int* lock) noexcept

cdef enum:
    HEADER_BYTES = 64               # a TokenBlock, and the data after it aligned
    SMALLEST = 64                   # tokens in the first class
    LARGEST = 1 << 24               # tokens in the last

cdef size_t NO_LIMIT = SIZE_MAX


cdef int _size_class(size_t n, size_t* capacity) noexcept nogil:
    """The class of `n` tokens and its capacity; -1 above the last."""
    cdef int power = 6
    cdef size_t base, step, quarter
    if n <= SMALLEST:
        capacity[0] = SMALLEST
        return 0
    if n > LARGEST:
        capacity[0] = n
        return -1
    while (n - 1) >> (power + 1):
        power += 1
    base = <size_t> 1 << power
    step = base >> 2
    quarter = (n - 1 - base) // step
    capacity[0] = base + (quarter + 1) * step
    return 1 + (power - 6) * 4 + <int> quarter


cdef inline size_t _block_bytes(size_t capacity) noexcept nogil:
    return HEADER_BYTES + capacity * sizeof(uint32_t)


# With the lock held ------------------------------------------------------------------------------

cdef void _free_block(PoolCore* core, TokenBlock* block) noexcept nogil:
    core.held_bytes -= _block_bytes(block.capacity)
    rl_unpoison(<size_t> block.data, block.capacity * sizeof(uint32_t))
    mem_free(block, _block_bytes(block.capacity))


cdef size_t _free_idle(PoolCore* core, size_t enough) noexcept nogil:
    """Give idle blocks, the largest first, back to the system until `enough` bytes are."""
    cdef size_t freed = 0
    cdef int size_class = N_POOL_CLASSES - 1
    cdef TokenBlock* block
    while size_class >= 0 and freed < enough:
        block = core.idle[size_class]
        if block == NULL:
            size_class -= 1
            continue
        core.idle[size_class] = block.next
        core.idle_bytes -= _block_bytes(block.capacity)
        core.n_idle -= 1
        freed += _block_bytes(block.capacity)
        _free_block(core, block)
    return freed


cdef int _take(PoolCore* core, size_t n, TokenBlock** result) noexcept nogil:
    cdef size_t capacity, n_bytes
    cdef int size_class
    cdef TokenBlock* block
    result[0] = NULL
    if n > MAX_BYTES // sizeof(uint32_t) - HEADER_BYTES:
        return NO_MEMORY
    size_class = _size_class(n, &capacity)
    n_bytes = _block_bytes(capacity)
    block = core.idle[size_class] if size_class >= 0 else NULL
    if block != NULL:
        core.idle[size_class] = block.next
        core.idle_bytes -= n_bytes
        core.n_idle -= 1
        core.n_reused += 1
    else:
        if n_bytes > core.limit - core.held_bytes:
            if n_bytes > core.limit - core.held_bytes + core.idle_bytes:
                return LIMIT_REACHED
            _free_idle(core, n_bytes - (core.limit - core.held_bytes))
        block = <TokenBlock*> mem_alloc(n_bytes, 64)
        if block == NULL:
            return NO_MEMORY
        block.data = <uint32_t*> (<char*> block + HEADER_BYTES)
        block.capacity = capacity
        block.size_class = size_class
        core.held_bytes += n_bytes
    block.next = NULL
    rl_unpoison(<size_t> block.data, capacity * sizeof(uint32_t))
    core.leased_bytes += n_bytes
    core.n_leased += 1
    core.n_leases += 1
    if core.leased_bytes > core.peak_bytes:
        core.peak_bytes = core.leased_bytes
    result[0] = block
    return OK


cdef void _give(PoolCore* core, TokenBlock* block) noexcept nogil:
    cdef size_t n_bytes = _block_bytes(block.capacity)
    core.leased_bytes -= n_bytes
    core.n_leased -= 1
    if block.size_class < 0 or n_bytes > core.max_idle - core.idle_bytes:
        _free_block(core, block)
        return
    rl_poison(<size_t> block.data, block.capacity * sizeof(uint32_t))
    block.next = core.idle[block.size_class]
    core.idle[block.size_class] = block
    core.idle_bytes += n_bytes
    core.n_idle += 1


# Python ------------------------------------------------------------------------------------------

PoolStats = namedtuple(
    "PoolStats",
    [
        "held_bytes",
        "idle_bytes",
        "leased_bytes",
        "peak_bytes",
        "limit",
        "n_idle",
        "n_leased",
        "n_leases",
        "n_reused",
        "n_dropped",
        "n_deferred",
    ],
)
PoolStats.__doc__ = """What a token pool holds and has done. Sizes in bytes.

Attributes
----------
held_bytes : int
    Of all blocks, lent and idle, with 64 bytes of administration each. Never above `limit`.
idle_bytes, leased_bytes : int
    Its two parts.
peak_bytes : int
    The most ever lent at a time.
limit : int or None
    As given.
n_idle, n_leased : int
    Blocks kept, and blocks lent, now.
n_leases, n_reused : int
    Leases ever, and how many of them were served by a kept block.
n_dropped : int
    Leases that were collected without having been released.
n_deferred : int
    Released leases whose blocks are still seen through views.
"""


cdef object _refused(PoolCore* core, int status, size_t n):
    if status == LIMIT_REACHED:
        return failure(
            status,
            f"{n} tokens more would exceed the pool's limit of {core.limit} bytes",
            {
                "requested": n,
                "limit": core.limit,
                "leased": core.leased_bytes,
                "hint": "release leases and drop their arrays, or raise the limit",
            },
        )
    return failure(status, f"no memory for {n} tokens", {"requested": n})


@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class Lease:
    """A token buffer lent by a :class:`TokenPool`: a buffer of `n` ``uint32``.

    Release it, leave its ``with`` block, or drop it: the memory goes back to the pool as soon as no
    array or :class:`memoryview` sees it any more, and not before.

    Attributes
    ----------
    array : numpy.ndarray
        The tokens, ``uint32 [n]``, without a copy; a new view each time.
    capacity : int
        Tokens that fit without moving.
    nbytes : int
        Size in bytes.
    is_released : bool
        Whether it was released.

    Notes
    -----
    Thread safety: releasing, and taking and dropping views, is safe in any thread. The tokens are
    shared memory; :meth:`resize` is for one thread.

    Examples
    --------
    >>> from rustllm import TokenPool
    >>> pool = TokenPool()
    >>> with pool.lease(3) as lease:
    ...     lease.array[:] = [15496, 995, 0]
    ...     lease.tolist()
    [15496, 995, 0]
    """

    def __init__(self):
        raise TypeError("leases come from TokenPool.lease")

    def __dealloc__(self):
        if self._block == NULL:
            return
        rl_lock(&self._pool.core.lock)
        if not self._is_released:
            self._pool.core.n_dropped += 1
        _give(&self._pool.core, self._block)
        rl_unlock(&self._pool.core.lock)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        cdef bint has_strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES
        cdef bint is_released
        rl_lock(&self._pool.core.lock)
        is_released = self._is_released
        if not is_released:
            self._n_exports += 1
        rl_unlock(&self._pool.core.lock)
        if is_released:
            raise failure(STALE, "this lease was released", None)
        buffer.buf = self._block.data
        buffer.obj = self
        buffer.len = self._shape[0] * sizeof(uint32_t)
        buffer.itemsize = sizeof(uint32_t)
        buffer.readonly = 0
        buffer.ndim = 1
        buffer.format = <char*> b"I" if flags & PyBUF_FORMAT else <char*> NULL
        buffer.shape = &self._shape[0] if flags & PyBUF_ND else <Py_ssize_t*> NULL
        buffer.strides = &self._strides[0] if has_strides else <Py_ssize_t*> NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL

    def __releasebuffer__(self, Py_buffer* buffer):
        cdef PoolCore* core = &self._pool.core
        rl_lock(&core.lock)
        self._n_exports -= 1
        if self._is_released and self._n_exports == 0:
            core.n_deferred -= 1
            _give(core, self._block)
            self._block = NULL
        rl_unlock(&core.lock)

    def release(self, *, str on_live="retire"):
        """Give the buffer back.

        Parameters
        ----------
        on_live : {"retire", "raise"}, optional
            While views see the memory: wait for the last of them to go, or refuse.

        Raises
        ------
        DoubleReleaseError
            It was released before.
        LiveViewError
            With ``on_live="raise"``: views are alive, and nothing was changed.
        """
        cdef PoolCore* core = &self._pool.core
        cdef bint strict = on_live == "raise"
        cdef bint was_released
        cdef Py_ssize_t n_views
        if not strict and on_live != "retire":
            raise failure(
                BAD_ARGUMENT, f"on_live must be 'retire' or 'raise', not {on_live!r}", None
            )
        rl_lock(&core.lock)
        was_released = self._is_released
        n_views = self._n_exports
        if not was_released and not (strict and n_views > 0):
            self._is_released = True
            if n_views > 0:
                core.n_deferred += 1
            else:
                _give(core, self._block)
                self._block = NULL
        rl_unlock(&core.lock)
        if was_released:
            raise failure(RELEASED_TWICE, "this lease was released before", None)
        if strict and n_views > 0:
            raise self._seen(n_views)

    def resize(self, n):
        """Change the number of tokens; the first ones keep their values.

        Parameters
        ----------
        n : int
            How many. Up to :attr:`capacity` nothing moves.

        Raises
        ------
        LiveViewError
            A view sees the memory.
        StaleHandleError
            The lease was released.
        MemoryLimitError, OutOfMemoryError
            As for :meth:`TokenPool.lease`; the lease stays as it was.
        """
        cdef size_t wanted = checked_size(n, "n")
        cdef int status = OK
        if self._is_released:
            raise failure(STALE, "this lease was released", None)
        if self._n_exports > 0:
            raise self._seen(self._n_exports)
        if wanted > self._block.capacity:
            status = self._pool.grow(&self._block, wanted, <size_t> self._shape[0])
        if status < 0:
            raise _refused(&self._pool.core, status, wanted)
        self._shape[0] = <Py_ssize_t> wanted

    def _seen(self, n_views):
        return failure(
            LIVE_VIEWS,
            f"{n_views} live views see this lease's memory",
            {"n_views": n_views, "n_bytes": self.nbytes, "n_pins": 0, "hint": "drop the views"},
        )

    @property
    def array(self):
        import numpy
        if self._shape[0] == 0:
            memoryview(self).release()      # a released lease must say so here too
            return numpy.empty(0, numpy.uint32)
        return numpy.frombuffer(self, numpy.uint32)

    @property
    def capacity(self):
        return 0 if self._block == NULL else self._block.capacity

    @property
    def nbytes(self):
        return self._shape[0] * sizeof(uint32_t)

    @property
    def is_released(self):
        return self._is_released

    def tolist(self):
        """The tokens as a list of int."""
        return memoryview(self).tolist()

    def __len__(self):
        return self._shape[0]

    def __getitem__(self, index):
        found = memoryview(self)[index]
        return found

    def __setitem__(self, index, value):
        memoryview(self)[index] = value

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if not self._is_released:
            self.release()
        return False

    def __repr__(self):
        state = "released " if self._is_released else ""
        return f"<{state}Lease of {self._shape[0]} tokens>"


cdef class TokenPool:
    """Token buffers that are used again instead of being allocated again.

    Parameters
    ----------
    limit : int, optional
        Most bytes that the pool may hold, lent and idle.
    max_idle : int, optional
        Most bytes that it keeps for later; what would exceed them goes back to the system.

    Raises
    ------
    ArgumentError
        A limit is negative.

    Notes
    -----
    A lease takes constant time. Up to 16,777,216 tokens buffers are kept when they come back;
    larger ones go back to the system at once. When a request would exceed the limit, idle buffers
    of other sizes are given up first.

    Thread safety: any number of threads may lease and release at the same time. For nogil code see
    ``pool.pxd``.

    Examples
    --------
    >>> from rustllm import TokenPool
    >>> pool = TokenPool(limit=1 << 20)
    >>> for _ in range(3):
    ...     with pool.lease(1000) as lease:
    ...         lease.array.fill(0)
    >>> pool.stats.n_leases, pool.stats.n_reused, pool.stats.n_leased
    (3, 2, 0)
    """

    def __cinit__(self):
        self.core.limit = self.core.max_idle = NO_LIMIT

    def __init__(self, limit=None, max_idle=None):
        if self.core.n_leases:
            raise failure(BAD_ARGUMENT, "this pool is in use; make another", None)
        self.core.limit = NO_LIMIT if limit is None else checked_size(limit, "limit")
        self.core.max_idle = NO_LIMIT if max_idle is None else checked_size(max_idle, "max_idle")

    def __dealloc__(self):
        _free_idle(&self.core, SIZE_MAX)

    cdef int try_take(self, size_t n, TokenBlock** block) noexcept nogil:
        cdef int status
        rl_lock(&self.core.lock)
        status = _take(&self.core, n, block)
        rl_unlock(&self.core.lock)
        return status

    cdef TokenBlock* take(self, size_t n) noexcept nogil:
        cdef TokenBlock* block
        self.try_take(n, &block)
        return block

    cdef void give(self, TokenBlock* block) noexcept nogil:
        if block == NULL:
            return
        rl_lock(&self.core.lock)
        _give(&self.core, block)
        rl_unlock(&self.core.lock)

    cdef int grow(self, TokenBlock** block, size_t n, size_t n_used) noexcept nogil:
        cdef TokenBlock* larger
        cdef int status
        if block[0] != NULL and n <= block[0].capacity:
            return OK
        status = self.try_take(n, &larger)
        if status < 0:
            return status
        if block[0] != NULL:
            memcpy(larger.data, block[0].data, n_used * sizeof(uint32_t))
            self.give(block[0])
        block[0] = larger
        return OK

    cdef Lease lease_block(self, TokenBlock* block, size_t n):
        cdef Lease lease = Lease.__new__(Lease)
        lease._pool = self
        lease._block = block
        lease._shape[0] = <Py_ssize_t> n
        lease._strides[0] = sizeof(uint32_t)
        return lease

    def lease(self, n, *, bint zeroed=False):
        """Lend a buffer of `n` tokens.

        Parameters
        ----------
        n : int
            How many; zero is allowed.
        zeroed : bool, optional
            Fill with zeros; otherwise the content is arbitrary.

        Returns
        -------
        Lease
            A writable buffer of ``uint32 [n]``, and a context manager.

        Raises
        ------
        ArgumentError
            `n` is negative.
        MemoryLimitError
            The pool's limit would be exceeded.
        OutOfMemoryError
            The system has no more memory.
        """
        cdef size_t wanted = checked_size(n, "n")
        cdef TokenBlock* block
        cdef int status = self.try_take(wanted, &block)
        if status < 0:
            raise _refused(&self.core, status, wanted)
        cdef Lease lease
        try:
            lease = self.lease_block(block, wanted)
        except MemoryError:
            self.give(block)
            raise
        if zeroed:
            memset(block.data, 0, wanted * sizeof(uint32_t))
        return lease

    def trim(self):
        """Give idle buffers back to the system.

        Returns
        -------
        int
            How many bytes that was.
        """
        cdef size_t freed
        rl_lock(&self.core.lock)
        freed = _free_idle(&self.core, SIZE_MAX)
        rl_unlock(&self.core.lock)
        return freed

    @property
    def stats(self):
        """Sizes and counts now, as :class:`PoolStats`."""
        cdef PoolCore core
        rl_lock(&self.core.lock)
        core = self.core
        rl_unlock(&self.core.lock)
        return PoolStats(
            held_bytes=core.held_bytes,
            idle_bytes=core.idle_bytes,
            leased_bytes=core.leased_bytes,
            peak_bytes=core.peak_bytes,
            limit=None if core.limit == NO_LIMIT else core.limit,
            n_idle=core.n_idle,
            n_leased=core.n_leased,
            n_leases=core.n_leases,
            n_reused=core.n_reused,
            n_dropped=core.n_dropped,
            n_deferred=core.n_deferred,
        )

    def __repr__(self):
        stats = self.stats
        return f"<TokenPool: {stats.n_leased} leases, {stats.held_bytes} bytes held>"

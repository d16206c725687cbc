"""Bump allocation over growing chunks that never move, safe to take views of.

An allocation is a compare and an add. A chunk is never reallocated, and belongs to whoever still
needs it: to its arena, and to every buffer object in it. So a reset or rollback can never leave a
dangling view; a chunk (or the part of one) that is still seen is set aside until nobody sees it.
"""

from collections import namedtuple

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES
from libc.stdint cimport SIZE_MAX, int64_t, uint64_t
from libc.string cimport memset

from rustllm._core.alloc cimport align_up, is_alignment, mem_alloc, mem_free
from rustllm._core.sizes cimport MAX_BYTES, checked_size
from rustllm._core.status cimport (
    BAD_ARGUMENT,
    CLOSED,
    LIMIT_REACHED,
    LIVE_VIEWS,
    NO_MEMORY,
    OK,
    STALE,
    check,
    failure,
)

cdef extern from "alloc.h" nogil:
    size_t rl_redzone(size_t room) noexcept
    void rl_poison(size_t address, size_t n) noexcept
    void rl_unpoison(size_t address, size_t n) noexcept
    void rl_lock(int* lock) noexcept
    void rl_unlock(int* lock) noexcept
    int64_t rl_atomic_add(int64_t* cell, int64_t n) noexcept

include "chunks.pxi"

ArenaStats = namedtuple(
    "ArenaStats",
    [
        "used_bytes",
        "peak_bytes",
        "held_bytes",
        "idle_bytes",
        "retired_bytes",
        "limit",
        "n_chunks",
        "n_retired",
        "n_buffers",
        "n_live",
        "n_views",
        "n_pins",
        "n_resets",
    ],
)
ArenaStats.__doc__ = """What an arena holds and has done. Sizes in bytes.

Attributes
----------
used_bytes, peak_bytes : int
    Handed out since the last reset, with padding; and the most ever.
held_bytes : int
    Of all chunks: in use, idle and retired. Never above `limit`.
idle_bytes, retired_bytes : int
    Of chunks kept for later; and of those taken back but still seen by views.
limit : int or None
    As given.
n_chunks, n_retired : int
    Chunks alive, and how many of them are retired.
n_buffers : int
    Buffer objects made, ever.
n_live, n_views : int
    Buffer objects alive in the chunks in use, and views exported by them.
n_pins, n_resets : int
    Pins held now, and resets done.
"""


@cython.final
cdef class Mark:
    """A position in an arena, from :meth:`Arena.mark`, to roll back to."""

    cdef ArenaMark at


cdef object _stale_buffer(size_t n_bytes):
    return failure(
        STALE,
        f"the arena has taken this buffer of {n_bytes} bytes back",
        {"hint": "allocate again after a reset, or keep a view of what must live longer"},
    )


cdef object _refused(ArenaCore* core, int status, size_t n_bytes, size_t align):
    facts = {"requested": n_bytes}
    if status == BAD_ARGUMENT:
        return failure(
            status, f"align must be a power of two from 1 to 4096, but is {align}", None
        )
    if status == LIMIT_REACHED:
        facts["limit"] = core.limit
        facts["held"] = core.held_bytes
        facts["hint"] = "reset the arena, drop old views, or raise its limit"
        what = f"{n_bytes} bytes more would exceed the arena's limit of {core.limit}"
    elif status == CLOSED:
        facts = None
        what = "the arena is closed"
    else:
        what = f"no memory for {n_bytes} bytes"
    return failure(status, what, facts)


cdef Py_ssize_t _depth(list marks, Mark mark) noexcept:
    """Where `mark` is among the valid ones; -1 when it is not."""
    cdef Py_ssize_t depth = len(marks)
    while depth > 0:
        depth -= 1
        if marks[depth] is mark:
            return depth
    return -1


cdef int _take_back(ArenaCore* core, ArenaMark at, str on_live) except -1:
    cdef Py_ssize_t n_views = 0
    cdef size_t n_bytes = 0
    cdef Py_ssize_t n_pins
    cdef int status = OK
    cdef bint strict = on_live == "raise"
    if not strict and on_live != "retire":
        raise failure(
            BAD_ARGUMENT, f"on_live must be 'retire' or 'raise', not {on_live!r}", None
        )
    rl_lock(&core.lock)
    n_pins = core.n_pins
    if strict:
        _count_seen(core, at, &n_views, &n_bytes)
    if n_views == 0 and (n_pins == 0 or not strict):
        status = _rollback(core, at)
    rl_unlock(&core.lock)
    if n_views or (n_pins and strict):
        raise failure(
            LIVE_VIEWS,
            f"{n_views} live views of {n_bytes} bytes and {n_pins} pins hold this memory",
            {
                "n_views": n_views,
                "n_bytes": n_bytes,
                "n_pins": n_pins,
                "hint": "drop the views, or use on_live='retire'",
            },
        )
    return check(status, "the arena has gone back behind this mark")


@cython.final
# Imported with the first array: numpy comes with it.
cdef object _arrays = None


cdef class ArenaBuffer:
    """Writable memory of an :class:`Arena`: a flat buffer of bytes.

    Take a view of it with :class:`memoryview` or :func:`numpy.frombuffer`. A view keeps the memory
    alive and to itself, whatever happens to the arena. The buffer object alone does not: after the
    arena was reset or rolled back behind it, it is *stale*, and its use raises
    :class:`~rustllm.errors.StaleHandleError`.

    Attributes
    ----------
    nbytes : int
        Size in bytes.
    address : int
        Where it starts, for C code.
    is_stale : bool
        Whether the arena has taken the memory back.

    Notes
    -----
    Thread safety: taking and dropping views is safe in any thread. The bytes are shared memory.

    Examples
    --------
    >>> from rustllm import Arena
    >>> buffer = Arena().alloc(4)
    >>> view = memoryview(buffer)
    >>> view[:] = b"abcd"
    >>> bytes(buffer)
    b'abcd'
    """

    def __init__(self):
        raise TypeError("buffers come from Arena.alloc")

    def __dealloc__(self):
        cdef ArenaCore* core = self.handle.core
        if core == NULL:
            return
        rl_lock(&core.lock)
        _unlink(&self.handle)
        rl_unlock(&core.lock)
        _disown_core(core)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        cdef ArenaCore* core = self.handle.core
        cdef int state
        cdef bint has_strides
        rl_lock(&core.lock)
        state = self.handle.state
        if state == HANDLE_LIVE:
            self.handle.n_exports += 1
            self.handle.chunk.n_exports += 1
        rl_unlock(&core.lock)
        if state != HANDLE_LIVE:
            raise _stale_buffer(self.handle.n_bytes)
        buffer.buf = <void*> self.handle.address
        buffer.obj = self
        buffer.len = <Py_ssize_t> self.handle.n_bytes
        buffer.itemsize = 1
        buffer.readonly = 0
        buffer.ndim = 1
        buffer.format = <char*> b"B" if flags & PyBUF_FORMAT else <char*> NULL
        buffer.shape = &self._shape[0] if flags & PyBUF_ND else <Py_ssize_t*> NULL
        has_strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES
        buffer.strides = &self._strides[0] if has_strides else <Py_ssize_t*> NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL

    def __releasebuffer__(self, Py_buffer* buffer):
        cdef ArenaCore* core = self.handle.core
        rl_lock(&core.lock)
        self.handle.n_exports -= 1
        self.handle.chunk.n_exports -= 1
        if self.handle.state == HANDLE_RETIRED and self.handle.n_exports == 0:
            self.handle.state = HANDLE_STALE
            _unlink(&self.handle)
        rl_unlock(&core.lock)

    @property
    def nbytes(self):
        return self.handle.n_bytes

    @property
    def address(self):
        if self.handle.state != HANDLE_LIVE:
            raise _stale_buffer(self.handle.n_bytes)
        return self.handle.address

    @property
    def is_stale(self):
        return self.handle.state != HANDLE_LIVE

    def __len__(self):
        return <Py_ssize_t> self.handle.n_bytes

    def __getitem__(self, index):
        found = memoryview(self)[index]
        return found

    def __setitem__(self, index, value):
        memoryview(self)[index] = value

    def __repr__(self):
        state = "stale " if self.handle.state != HANDLE_LIVE else ""
        return f"<{state}ArenaBuffer of {self.handle.n_bytes} bytes>"


@cython.final
cdef class ArenaScope:
    """``with arena.scope():`` takes back, at its end, what was allocated inside."""

    cdef Arena _arena
    cdef Mark _at
    cdef str _on_live

    def __enter__(self):
        if self._at is not None:
            raise failure(CLOSED, "this scope is open already", None)
        self._at = self._arena.mark()
        return self._arena

    def __exit__(self, kind, error, traceback):
        cdef Mark at = self._at
        cdef Py_ssize_t depth = -1 if at is None else _depth(self._arena._marks, at)
        self._at = None
        if depth < 0:
            return False    # the block itself reset the arena, or went further back
        try:
            _take_back(self._arena.core, at.at, self._on_live)
        except BaseException:
            del self._arena._marks[depth]
            raise
        del self._arena._marks[depth:]
        return False


@cython.final
@cython.no_gc_clear
cdef class ArenaPin:
    """``with arena.pin():`` keeps memory handed out by address where and what it is."""

    cdef Arena _arena
    cdef Py_ssize_t _n_held

    def __enter__(self):
        self._arena.pin_raw()
        self._n_held += 1
        return self._arena

    def __exit__(self, kind, error, traceback):
        if self._n_held > 0:
            self._n_held -= 1
            self._arena.unpin_raw()
        return False

    def __dealloc__(self):
        while self._n_held > 0:     # the arena is still there: no_gc_clear keeps it until now
            self._n_held -= 1
            self._arena.unpin_raw()


cdef class Arena:
    """Memory that is handed out by moving a pointer and taken back all at once.

    Parameters
    ----------
    chunk_size : int, optional
        Size in bytes of the first chunk; each further one is twice as large, up to 16 MiB. A larger
        request gets a chunk of its own size.
    limit : int, optional
        Most bytes that the arena may hold from the system, idle and retired chunks included.

    Raises
    ------
    ArgumentError
        A size is negative, or `chunk_size` is zero.

    Notes
    -----
    An allocation takes constant time; a reset takes time in the number of chunks and of buffer
    objects alive. Memory is not zeroed unless asked for.

    Whatever has a view (a :class:`memoryview`, an array from :meth:`alloc_array`) keeps its memory:
    :meth:`reset` and the end of a :meth:`scope` set such memory aside ("retire" it) rather than
    hand it out again, or raise :class:`~rustllm.errors.LiveViewError` when asked to.

    Thread safety: all methods may be called from any thread; marks and scopes nest in the order in
    which they were made, whoever made them. For nogil code see ``arena.pxd``.

    Examples
    --------
    >>> from rustllm import Arena
    >>> arena = Arena(chunk_size=4096)
    >>> weights = arena.alloc_array((2, 3), "float32")
    >>> weights[:] = 1
    >>> with arena.scope():
    ...     scratch = arena.alloc(100, align=64)
    >>> scratch.is_stale
    True
    >>> arena.reset()
    >>> float(weights.sum())
    6.0
    """

    def __cinit__(self):
        self._marks = []
        self.core = <ArenaCore*> mem_alloc(sizeof(ArenaCore), 64)
        if self.core == NULL:
            raise failure(NO_MEMORY, "no memory for an arena", None)
        memset(self.core, 0, sizeof(ArenaCore))
        self.core.n_owners = 1
        self.core.limit = NO_LIMIT
        self.core.chunk_bytes = self.core.next_chunk_bytes = DEFAULT_CHUNK
        self.core.next_chunk_id = 1
        self.core.next_serial = 1
        _no_chunk(self.core)

    def __init__(self, chunk_size=DEFAULT_CHUNK, limit=None):
        cdef size_t n_bytes = checked_size(chunk_size, "chunk_size")
        if n_bytes == 0:
            raise failure(BAD_ARGUMENT, "chunk_size must not be zero", None)
        if self.core.n_chunks:
            raise failure(CLOSED, "this arena is in use; make another", None)
        self.core.limit = NO_LIMIT if limit is None else checked_size(limit, "limit")
        self.core.chunk_bytes = self.core.next_chunk_bytes = n_bytes

    def __dealloc__(self):
        cdef ArenaCore* core = self.core
        cdef ArenaChunk* chunk
        if core == NULL:
            return
        # Buffers stay valid: each owns its chunk. Nobody can hold a pin: it would hold the arena.
        rl_lock(&core.lock)
        core.is_closed = True
        _free_idle(core)
        while core.current != NULL:
            chunk = core.current
            core.current = chunk.older
            _disown_chunk(core, chunk)
        while core.limbo != NULL:
            chunk = core.limbo
            core.limbo = chunk.older
            _disown_chunk(core, chunk)
        rl_unlock(&core.lock)
        _disown_core(core)

    # C interface

    cdef void* alloc_raw(self, size_t n_bytes, size_t align) noexcept nogil:
        cdef void* data = NULL
        if is_alignment(align):
            data = _bump(self.core, n_bytes, align)
            if data == NULL:
                rl_lock(&self.core.lock)
                _grow(self.core, n_bytes, align, &data)
                rl_unlock(&self.core.lock)
        return data

    cdef void* alloc_shared(self, size_t n_bytes, size_t align) noexcept nogil:
        cdef void* data = NULL
        self.try_alloc(n_bytes, align, &data)
        return data

    cdef int try_alloc(self, size_t n_bytes, size_t align, void** data) noexcept nogil:
        cdef int status
        data[0] = NULL
        rl_lock(&self.core.lock)
        status = _alloc(self.core, n_bytes, align, data)
        rl_unlock(&self.core.lock)
        return status

    cdef ArenaMark mark_raw(self) noexcept nogil:
        cdef ArenaMark mark
        rl_lock(&self.core.lock)
        mark = _mark(self.core)
        rl_unlock(&self.core.lock)
        return mark

    cdef int rollback_raw(self, ArenaMark mark) noexcept nogil:
        cdef int status
        rl_lock(&self.core.lock)
        status = _rollback(self.core, mark)
        rl_unlock(&self.core.lock)
        return status

    cdef void pin_raw(self) noexcept nogil:
        rl_lock(&self.core.lock)
        self.core.n_pins += 1
        rl_unlock(&self.core.lock)

    cdef void unpin_raw(self) noexcept nogil:
        rl_lock(&self.core.lock)
        _unpin(self.core)
        rl_unlock(&self.core.lock)

    cdef ArenaBuffer new_buffer(self, size_t n_bytes, size_t align):
        cdef ArenaBuffer buffer = ArenaBuffer.__new__(ArenaBuffer)
        cdef ArenaCore* core = self.core
        cdef void* data = NULL
        cdef int status
        rl_lock(&core.lock)
        status = _alloc(core, n_bytes, align, &data)
        if status == OK:
            rl_atomic_add(&core.n_owners, 1)
            buffer.handle.core = core
            buffer.handle.address = <size_t> data
            buffer.handle.n_bytes = n_bytes
            _link(core, &buffer.handle)
        rl_unlock(&core.lock)
        if status < 0:
            raise _refused(core, status, n_bytes, align)
        buffer._shape[0] = <Py_ssize_t> n_bytes
        buffer._strides[0] = 1
        return buffer

    # Python interface

    def alloc(self, n, align=16, *, bint zeroed=False):
        """Memory for `n` bytes.

        Parameters
        ----------
        n : int
            Size in bytes; zero is allowed.
        align : int, optional
            A power of two up to 4096 that divides the address.
        zeroed : bool, optional
            Fill with zeros.

        Returns
        -------
        ArenaBuffer
            A writable buffer.

        Raises
        ------
        ArgumentError
            `n` is negative or `align` not allowed.
        MemoryLimitError
            The arena's limit would be exceeded.
        OutOfMemoryError
            The system has no more memory.
        StateError
            The arena is closed.
        """
        cdef size_t n_bytes = checked_size(n, "n")
        cdef ArenaBuffer buffer = self.new_buffer(n_bytes, checked_size(align, "align"))
        if zeroed:
            memset(<void*> buffer.handle.address, 0, buffer.handle.n_bytes)
        return buffer

    def alloc_array(self, shape, dtype="float64", *, size_t align=64, bint zeroed=False):
        """An array in this arena's memory.

        Parameters
        ----------
        shape : int or tuple of int
            Its shape.
        dtype : numpy.dtype or what makes one, optional
            Its type; any but objects and sub-arrays.
        align : int, optional
            As for :meth:`alloc`.
        zeroed : bool, optional
            Fill with zeros.

        Returns
        -------
        numpy.ndarray
            C-contiguous and writable. It is a view: it keeps its memory.

        Raises
        ------
        ArgumentError
            The shape has a negative number, or the type cannot live outside Python.
        MemoryLimitError, OutOfMemoryError, StateError
            As for :meth:`alloc`.

        Examples
        --------
        >>> from rustllm import Arena
        >>> Arena().alloc_array((2, 2), "int32", zeroed=True)
        array([[0, 0],
               [0, 0]], dtype=int32)
        """
        global _arrays
        cdef size_t n_items = 1
        cdef size_t extent, item
        cdef bint is_empty = False
        if _arrays is None:
            from rustllm._core import arrays as _arrays
        found = _arrays.plain_dtype(dtype)
        if found is None:
            raise failure(BAD_ARGUMENT, f"an arena cannot hold items of type {dtype}", None)
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        if len(shape) > 32:
            raise failure(BAD_ARGUMENT, f"{len(shape)} dimensions are more than 32", None)
        for length in shape:
            extent = checked_size(length, "a dimension")
            if extent == 0:
                is_empty = True     # but the other dimensions must still fit, as numpy has it
            elif n_items > MAX_BYTES // extent:
                raise failure(NO_MEMORY, f"shape {shape} exceeds the address space", None)
            else:
                n_items *= extent
        item = found.itemsize
        if n_items > MAX_BYTES // item:
            raise failure(NO_MEMORY, f"shape {shape} exceeds the address space", None)
        if is_empty:
            n_items = 0
        # An empty buffer has no address, so an empty array looks at one item's room.
        cdef ArenaBuffer buffer = self.new_buffer((n_items if n_items else 1) * item, align)
        if zeroed:
            memset(<void*> buffer.handle.address, 0, buffer.handle.n_bytes)
        return _arrays.view_of(memoryview(buffer), shape, found)

    def mark(self):
        """The present position, for :meth:`rollback`.

        Returns
        -------
        Mark
            Valid until the arena is reset, or rolled back to an earlier mark.
        """
        cdef Mark mark = Mark.__new__(Mark)
        mark.at = self.mark_raw()
        self._marks.append(mark)
        return mark

    def rollback(self, Mark mark not None, *, str on_live="retire"):
        """Take back everything allocated since `mark`; the mark stays valid, later ones do not.

        Parameters
        ----------
        mark : Mark
            From :meth:`mark` of this arena.
        on_live : {"retire", "raise"}, optional
            As for :meth:`reset`.

        Raises
        ------
        StaleHandleError
            The arena was reset or rolled back behind the mark.
        LiveViewError
            With ``on_live="raise"``: views or pins are alive, and nothing was changed.

        Examples
        --------
        >>> from rustllm import Arena
        >>> arena = Arena()
        >>> mark = arena.mark()
        >>> buffer = arena.alloc(1000)
        >>> arena.rollback(mark)
        >>> arena.stats.used_bytes, buffer.is_stale
        (0, True)
        """
        cdef Py_ssize_t depth = _depth(self._marks, mark)
        if depth < 0:
            raise failure(STALE, "the arena has gone back behind this mark", None)
        _take_back(self.core, mark.at, on_live)
        del self._marks[depth + 1:]

    def scope(self, *, str on_live="retire"):
        """A block whose allocations are taken back at its end.

        Parameters
        ----------
        on_live : {"retire", "raise"}, optional
            As for :meth:`reset`.

        Returns
        -------
        ArenaScope
            A context manager that gives this arena. Scopes nest.

        Examples
        --------
        >>> from rustllm import Arena
        >>> arena = Arena()
        >>> with arena.scope():
        ...     _ = arena.alloc(1000)
        >>> arena.stats.used_bytes
        0
        """
        cdef ArenaScope scope = ArenaScope.__new__(ArenaScope)
        scope._arena = self
        scope._on_live = on_live
        return scope

    def pin(self):
        """A block in which no memory handed out is given back or handed out again.

        For code that works with addresses rather than views: whatever another thread resets
        meanwhile is set aside until the last pin is gone.

        Returns
        -------
        ArenaPin
            A context manager that gives this arena.
        """
        cdef ArenaPin pin = ArenaPin.__new__(ArenaPin)
        pin._arena = self
        return pin

    def reset(self, *, str on_live="retire"):
        """Take everything back; the chunks are kept for later.

        Parameters
        ----------
        on_live : {"retire", "raise"}, optional
            What to do about memory that live views see: leave it to them and go on with other
            memory, or refuse.

        Raises
        ------
        LiveViewError
            With ``on_live="raise"``: views or pins are alive. Its ``n_views``, ``n_bytes`` and
            ``n_pins`` say how many; nothing was changed.
        """
        cdef ArenaMark start
        start.chunk_id = start.position = start.serial = 0
        _take_back(self.core, start, on_live)
        self.core.n_resets += 1
        self._marks.clear()

    def trim(self):
        """Give idle chunks back to the system.

        Returns
        -------
        int
            How many bytes that was.
        """
        cdef size_t before
        rl_lock(&self.core.lock)
        before = self.core.held_bytes
        _free_idle(self.core)
        before -= self.core.held_bytes
        self.core.next_chunk_bytes = self.core.chunk_bytes
        rl_unlock(&self.core.lock)
        return before

    def close(self):
        """Reset, give all memory back, and refuse further allocations. Views stay valid."""
        if self.core.is_closed:
            return
        self.reset()
        rl_lock(&self.core.lock)
        self.core.is_closed = True
        _free_idle(self.core)
        rl_unlock(&self.core.lock)

    @property
    def is_closed(self):
        """Whether :meth:`close` was called."""
        return bool(self.core.is_closed)

    @property
    def stats(self):
        """Sizes and counts now, as :class:`ArenaStats`."""
        cdef ArenaCore core
        cdef ArenaChunk* chunk
        cdef ArenaHandle* handle
        cdef size_t idle_bytes = 0
        cdef Py_ssize_t n_live = 0
        cdef Py_ssize_t n_views = 0
        rl_lock(&self.core.lock)
        _note_peak(self.core)
        chunk = self.core.idle
        while chunk != NULL:
            idle_bytes += chunk.n_bytes
            chunk = chunk.older
        chunk = self.core.current
        while chunk != NULL:
            n_views += chunk.n_exports
            handle = chunk.newest
            while handle != NULL:
                n_live += handle.state == HANDLE_LIVE
                handle = handle.older
            chunk = chunk.older
        core = self.core[0]
        rl_unlock(&self.core.lock)
        return ArenaStats(
            used_bytes=_used(&core),
            peak_bytes=core.peak_used,
            held_bytes=core.held_bytes,
            idle_bytes=idle_bytes,
            retired_bytes=core.retired_bytes,
            limit=None if core.limit == NO_LIMIT else core.limit,
            n_chunks=core.n_chunks,
            n_retired=core.n_retired,
            n_buffers=core.n_buffers,
            n_live=n_live,
            n_views=n_views,
            n_pins=core.n_pins,
            n_resets=core.n_resets,
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close()
        return False

    def __repr__(self):
        stats = self.stats
        state = "closed " if self.core.is_closed else ""
        return f"<{state}Arena: {stats.used_bytes} bytes used of {stats.held_bytes} held>"

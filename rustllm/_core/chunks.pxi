# The chunks of an arena, in C: included by arena.pyx, which gives them to Python.
#
# Sizes are checked before they are used: none exceeds a quarter of the address space, so that sums
# of two cannot overflow.

cdef enum:
    CHUNK_ALIGN = 64
    HANDLE_LIVE = 0
    HANDLE_STALE = 1        # its memory was taken back
    HANDLE_RETIRED = 2      # taken back, but still seen through exported views

cdef size_t DEFAULT_CHUNK = 64 * 1024
cdef size_t MAX_DOUBLED_CHUNK = 16 * 1024 * 1024
cdef size_t NO_LIMIT = SIZE_MAX

# A chunk's block is owned by its arena (until retired) and by each linked handle.
cdef struct ArenaChunk:
    uint64_t id                 # of this term of use; new each time it is taken into use
    size_t base
    size_t n_bytes
    size_t used                 # where the bump stood when a newer chunk took over, as an address
    Py_ssize_t n_owners
    Py_ssize_t n_exports
    bint is_retired
    ArenaHandle* newest         # linked handles, newest first
    ArenaChunk* older           # the next in whichever list it is on

# What the arena object and its buffer objects share; freed with the last of them.
cdef struct ArenaCore:
    int lock
    int64_t n_owners
    size_t cur                  # the bump: next free address ...
    size_t end                  # ... and the end of the current chunk
    ArenaChunk* current         # chunks in use, newest first
    ArenaChunk* idle            # empty chunks kept for later
    ArenaChunk* limbo           # taken back while pinned
    size_t chunk_bytes
    size_t next_chunk_bytes
    size_t limit
    size_t held_bytes           # of all chunks, the retired too
    size_t older_used           # used in the chunks in use but the current one
    size_t peak_used
    size_t retired_bytes
    Py_ssize_t n_chunks
    Py_ssize_t n_retired
    Py_ssize_t n_pins
    uint64_t next_serial        # of handles and marks
    uint64_t next_chunk_id
    uint64_t n_buffers
    uint64_t n_resets
    bint is_closed


# Everything below runs with the lock held, unless it says otherwise ----------------------------

cdef inline void* _bump(ArenaCore* core, size_t n_bytes, size_t align) noexcept nogil:
    # An arena without a chunk has cur > end, so that even nothing does not fit.
    cdef size_t address = (core.cur + (align - 1)) & ~(align - 1)
    if address > core.end or n_bytes > core.end - address:
        return NULL
    rl_unpoison(address, n_bytes)
    core.cur = address + n_bytes + rl_redzone(core.end - address - n_bytes)
    return <void*> address


cdef void _no_chunk(ArenaCore* core) noexcept nogil:
    core.current = NULL
    core.cur = 1
    core.end = 0


cdef size_t _used(ArenaCore* core) noexcept nogil:
    return core.older_used + (core.cur - core.current.base if core.current != NULL else 0)


cdef void _note_peak(ArenaCore* core) noexcept nogil:
    # Use only grows between two rollbacks, so looking before each one misses no peak.
    cdef size_t used = _used(core)
    if used > core.peak_used:
        core.peak_used = used


cdef void _free_chunk(ArenaCore* core, ArenaChunk* chunk) noexcept nogil:
    core.held_bytes -= chunk.n_bytes
    core.n_chunks -= 1
    if chunk.is_retired:
        core.n_retired -= 1
        core.retired_bytes -= chunk.n_bytes
    rl_unpoison(chunk.base, chunk.n_bytes)
    mem_free(<void*> chunk.base, chunk.n_bytes)
    mem_free(chunk, sizeof(ArenaChunk))


cdef void _disown_chunk(ArenaCore* core, ArenaChunk* chunk) noexcept nogil:
    chunk.n_owners -= 1
    if chunk.n_owners == 0:
        _free_chunk(core, chunk)


cdef void _free_idle(ArenaCore* core) noexcept nogil:
    cdef ArenaChunk* chunk
    while core.idle != NULL:
        chunk = core.idle
        core.idle = chunk.older
        _disown_chunk(core, chunk)


cdef ArenaChunk* _take_idle(ArenaCore* core, size_t n_bytes, size_t align) noexcept nogil:
    cdef ArenaChunk** link = &core.idle
    cdef ArenaChunk* chunk
    cdef size_t skipped
    while link[0] != NULL:
        chunk = link[0]
        skipped = align_up(chunk.base, align) - chunk.base
        if skipped <= chunk.n_bytes and n_bytes <= chunk.n_bytes - skipped:
            link[0] = chunk.older
            return chunk
        link = &chunk.older
    return NULL


cdef int _new_chunk(
    ArenaCore* core, size_t n_bytes, size_t align, ArenaChunk** result
) noexcept nogil:
    cdef size_t size = core.next_chunk_bytes
    cdef size_t left
    cdef ArenaChunk* chunk
    if size < n_bytes:
        size = n_bytes
    left = core.limit - core.held_bytes
    if size > left:
        if n_bytes > left:
            _free_idle(core)            # none of them fits, and they count
            left = core.limit - core.held_bytes
            if n_bytes > left:
                return LIMIT_REACHED
        if size > left:
            size = left
    chunk = <ArenaChunk*> mem_alloc(sizeof(ArenaChunk), sizeof(void*))
    if chunk == NULL:
        return NO_MEMORY
    memset(chunk, 0, sizeof(ArenaChunk))
    chunk.base = <size_t> mem_alloc(size, align if align > CHUNK_ALIGN else CHUNK_ALIGN)
    if chunk.base == 0:
        mem_free(chunk, sizeof(ArenaChunk))
        return NO_MEMORY
    chunk.n_bytes = size
    chunk.n_owners = 1
    core.held_bytes += size
    core.n_chunks += 1
    if core.next_chunk_bytes < MAX_DOUBLED_CHUNK:
        core.next_chunk_bytes *= 2
    rl_poison(chunk.base, size)
    result[0] = chunk
    return OK


cdef int _grow(ArenaCore* core, size_t n_bytes, size_t align, void** data) noexcept nogil:
    cdef ArenaChunk* chunk
    cdef int status
    if not is_alignment(align) or n_bytes > MAX_BYTES:
        return BAD_ARGUMENT if not is_alignment(align) else NO_MEMORY
    if core.is_closed:
        return CLOSED
    chunk = _take_idle(core, n_bytes, align)
    if chunk == NULL:
        status = _new_chunk(core, n_bytes, align, &chunk)
        if status < 0:
            return status
    if core.current != NULL:
        core.current.used = core.cur
        core.older_used += core.cur - core.current.base
    chunk.id = core.next_chunk_id
    core.next_chunk_id += 1
    chunk.older = core.current
    core.current = chunk
    core.cur = chunk.base
    core.end = chunk.base + chunk.n_bytes
    data[0] = _bump(core, n_bytes, align)
    return OK


cdef int _alloc(ArenaCore* core, size_t n_bytes, size_t align, void** data) noexcept nogil:
    if is_alignment(align):
        data[0] = _bump(core, n_bytes, align)
        if data[0] != NULL:
            return OK
    return _grow(core, n_bytes, align, data)


cdef void _link(ArenaCore* core, ArenaHandle* handle) noexcept nogil:
    cdef ArenaChunk* chunk = core.current
    handle.chunk = chunk
    handle.serial = core.next_serial
    core.next_serial += 1
    core.n_buffers += 1
    handle.newer = NULL
    handle.older = chunk.newest
    if chunk.newest != NULL:
        chunk.newest.newer = handle
    chunk.newest = handle
    chunk.n_owners += 1


cdef void _unlink(ArenaHandle* handle) noexcept nogil:
    cdef ArenaChunk* chunk = handle.chunk
    if chunk == NULL:
        return
    if handle.newer != NULL:
        handle.newer.older = handle.older
    else:
        chunk.newest = handle.older
    if handle.older != NULL:
        handle.older.newer = handle.newer
    handle.chunk = NULL
    _disown_chunk(handle.core, chunk)


cdef size_t _invalidate(ArenaChunk* chunk, uint64_t since) noexcept nogil:
    """Take back the handles not older than `since`; the end of those still seen, or 0."""
    cdef ArenaHandle* handle = chunk.newest
    cdef ArenaHandle* older
    cdef size_t end = 0
    while handle != NULL and handle.serial >= since:
        older = handle.older
        if handle.n_exports == 0:
            handle.state = HANDLE_STALE
            _unlink(handle)
        else:
            handle.state = HANDLE_RETIRED
            if handle.address + handle.n_bytes > end:
                end = handle.address + handle.n_bytes
        handle = older
    return end


cdef void _put_away(ArenaCore* core, ArenaChunk* chunk) noexcept nogil:
    """A chunk that is no longer in use: keep it, or leave it to those who still see it."""
    _invalidate(chunk, 0)
    if core.n_pins > 0:
        chunk.older = core.limbo
        core.limbo = chunk
    elif chunk.n_exports > 0:
        chunk.is_retired = True
        core.n_retired += 1
        core.retired_bytes += chunk.n_bytes
        _disown_chunk(core, chunk)
    else:
        rl_poison(chunk.base, chunk.n_bytes)
        chunk.older = core.idle
        core.idle = chunk


cdef void _pop_chunk(ArenaCore* core) noexcept nogil:
    cdef ArenaChunk* chunk = core.current
    core.current = chunk.older
    _put_away(core, chunk)
    if core.current == NULL:
        _no_chunk(core)
    else:
        core.cur = core.current.used
        core.end = core.current.base + core.current.n_bytes
        core.older_used -= core.current.used - core.current.base


cdef bint _has_position(ArenaCore* core, ArenaMark mark) noexcept nogil:
    if mark.chunk_id == 0:
        return True
    cdef ArenaChunk* chunk = core.current
    while chunk != NULL and chunk.id > mark.chunk_id:
        chunk = chunk.older
    return (
        chunk != NULL
        and chunk.id == mark.chunk_id
        and mark.position <= (core.cur if chunk == core.current else chunk.used)
    )


cdef int _rollback(ArenaCore* core, ArenaMark mark) noexcept nogil:
    cdef size_t kept
    if not _has_position(core, mark):
        return STALE
    _note_peak(core)
    while core.current != NULL and core.current.id != mark.chunk_id:
        _pop_chunk(core)
    if core.current == NULL:
        return OK
    kept = _invalidate(core.current, mark.serial)
    if core.n_pins > 0:
        return OK
    kept = kept if kept > mark.position else mark.position
    if kept < core.cur:
        core.cur = kept
        rl_poison(kept, core.end - kept)
    return OK


cdef void _count_seen(
    ArenaCore* core, ArenaMark mark, Py_ssize_t* n_views, size_t* n_bytes
) noexcept nogil:
    """Live views of what a rollback to `mark` would take back."""
    cdef ArenaChunk* chunk = core.current
    cdef ArenaHandle* handle
    while chunk != NULL and chunk.id >= mark.chunk_id:
        handle = chunk.newest
        while handle != NULL and handle.serial >= mark.serial:
            if handle.n_exports > 0:
                n_views[0] += handle.n_exports
                n_bytes[0] += handle.n_bytes
            handle = handle.older
        chunk = chunk.older


cdef ArenaMark _mark(ArenaCore* core) noexcept nogil:
    cdef ArenaMark mark
    mark.chunk_id = 0 if core.current == NULL else core.current.id
    mark.position = core.cur
    mark.serial = core.next_serial
    core.next_serial += 1
    return mark


cdef void _unpin(ArenaCore* core) noexcept nogil:
    cdef ArenaChunk* chunk
    core.n_pins -= 1
    if core.n_pins == 0:
        while core.limbo != NULL:
            chunk = core.limbo
            core.limbo = chunk.older
            _put_away(core, chunk)
        if core.is_closed:
            _free_idle(core)


cdef void _disown_core(ArenaCore* core) noexcept nogil:
    """Without the lock: one owner less."""
    if rl_atomic_add(&core.n_owners, -1) == 0:
        mem_free(core, sizeof(ArenaCore))

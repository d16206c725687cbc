# Blocks of memory that grow by half.

from libc.stdint cimport uint64_t
from libc.stdlib cimport realloc

from rustllm._core.status cimport NO_MEMORY, OK


cdef inline int grow(void** block, uint64_t* capacity, uint64_t need, uint64_t item) noexcept nogil:
    """Make room for `need` items of `item` bytes in `block`."""
    cdef uint64_t wanted
    cdef void* moved
    if need <= capacity[0]:
        return OK
    wanted = capacity[0] + (capacity[0] >> 1)
    if wanted < need:
        wanted = need
    if wanted < 64:
        wanted = 64
    if wanted > (<uint64_t>1 << 62) // item:
        return NO_MEMORY
    moved = realloc(block[0], wanted * item)
    if moved == NULL:
        return NO_MEMORY
    block[0] = moved
    capacity[0] = wanted
    return OK

# The cells that hold the symbols of words end to end: 16 bits each while ids are few, else 32.

from libc.stdint cimport UINT32_MAX, uint16_t, uint32_t, uint64_t

# What a cell holds that is no token: in 32 bits, and in the 16 bits that do while ids are few.
cdef extern from *:
    """
    #define RL_SEPARATOR UINT32_MAX
    #define RL_DEAD (UINT32_MAX - 1)
    #define RL_MAX_ID (UINT32_MAX - 2)
    #define RL_MAX_NARROW_ID ((uint32_t)(0xFFFF - 2))
    """
    const uint32_t SEPARATOR "RL_SEPARATOR"
    const uint32_t DEAD "RL_DEAD"
    const uint32_t MAX_ID "RL_MAX_ID"
    const uint32_t MAX_NARROW_ID "RL_MAX_NARROW_ID"


# The symbols of all words; one of the two is NULL.
cdef struct Cells:
    uint16_t* narrow
    uint32_t* wide


cdef inline uint32_t symbol_at(const Cells* cells, uint64_t at) noexcept nogil:
    cdef uint32_t symbol
    if cells.narrow == NULL:
        return cells.wide[at]
    symbol = cells.narrow[at]
    return symbol if symbol <= MAX_NARROW_ID else symbol | <uint32_t>0xFFFF0000


cdef inline void set_symbol(Cells* cells, uint64_t at, uint32_t symbol) noexcept nogil:
    if cells.narrow == NULL:
        cells.wide[at] = symbol
    else:
        cells.narrow[at] = <uint16_t>symbol

# Counting and finding bits of a word.

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    static inline int rl_popcount64(uint64_t x) { return (int)__popcnt64(x); }
    static inline int rl_highest_bit(uint64_t x) {
        unsigned long i;
        _BitScanReverse64(&i, x);
        return (int)i;
    }
    #else
    static inline int rl_popcount64(uint64_t x) { return __builtin_popcountll(x); }
    static inline int rl_highest_bit(uint64_t x) { return 63 - __builtin_clzll(x); }
    #endif
    """
    int popcount "rl_popcount64"(uint64_t x) noexcept nogil
    int highest_bit "rl_highest_bit"(uint64_t x) noexcept nogil  # x is not 0

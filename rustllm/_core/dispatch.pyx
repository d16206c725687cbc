"""Pick the instruction set once, at import.

``RUSTLLM_SIMD=scalar|avx2|avx512|neon|dotprod`` overrides the choice, for tests and for comparison;
a level that the processor does not have is refused. ``avx512`` means F, BW, VL, DQ, VBMI, VBMI2 and
VNNI together; ``neon`` is what every aarch64 has, ``dotprod`` adds its dot products of bytes.
"""

import os

cdef extern from "cpu.h" nogil:
    int rl_detect_level() noexcept
    int rl_detect_bf16() noexcept

cdef int _level = 0
cdef bint _bf16 = False

NAMES = ("scalar", "avx2", "avx512", "neon", "dotprod")


cdef int simd_level() noexcept nogil:
    return _level


cdef bint has_bf16() noexcept nogil:
    return _bf16


def available_levels():
    """Names of the levels this machine can run, slowest first."""
    cdef int best = rl_detect_level()
    if best >= NEON:
        return ("scalar",) + NAMES[NEON:best + 1]
    return NAMES[:best + 1]


def current_level():
    """Name of the level in use."""
    return NAMES[_level]


def set_level(str name):
    """Use another level from now on, for tests; objects already built keep theirs.

    Raises
    ------
    ValueError
        The name is unknown or the machine lacks the level.
    """
    global _level, _bf16
    allowed = available_levels()
    if name not in allowed:
        raise ValueError(
            f"RUSTLLM_SIMD={name!r} cannot run here; choose one of {', '.join(allowed)}"
        )
    _level = NAMES.index(name)
    _bf16 = _level == AVX512 and rl_detect_bf16() != 0


set_level(os.environ.get("RUSTLLM_SIMD") or max(available_levels(), key=NAMES.index))

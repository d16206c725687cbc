"""What the machine can do at most: how fast it reads memory, and how fast it computes.

The bounds that kernels are measured against, taken with the instructions that the kernels use and
on the same thread pool. ``rustllm.bench.peaks`` times these loops.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from rustllm._core.dispatch cimport has_bf16, simd_level
from rustllm._core.threads cimport run_team
from rustllm._core.zeroed cimport ZeroedMemory

cdef extern from "peaks.h" nogil:
    enum:
        RL_N_PEAKS
    ctypedef uint32_t (*rl_peak_fn)(int64_t) noexcept
    ctypedef uint64_t (*rl_read_fn)(const uint8_t*, size_t) noexcept
    rl_peak_fn rl_peak_loop(int, int, int, int64_t*) noexcept
    rl_read_fn rl_read_loop(int) noexcept

# A unit is what the read loops take at a time.
cdef enum:
    UNIT = 512
    MAX_THREADS = 256

KINDS = ("float32", "int8", "bfloat16")
assert len(KINDS) == RL_N_PEAKS


cdef struct Reading:
    const uint8_t* data
    size_t n_bytes
    int ran
    rl_read_fn loop
    uint64_t found[MAX_THREADS]


cdef void _read(void* context, int thread, int n_threads) noexcept nogil:
    cdef Reading* r = <Reading*>context
    cdef size_t units = r.n_bytes // UNIT
    cdef size_t first = units * thread // n_threads * UNIT
    cdef size_t last = units * (thread + 1) // n_threads * UNIT
    if thread == 0:
        r.ran = n_threads
    r.found[thread] = r.loop(r.data + first, last - first)


cdef struct Computing:
    rl_peak_fn loop
    int64_t steps
    int ran
    uint32_t found[MAX_THREADS]


cdef void _compute(void* context, int thread, int n_threads) noexcept nogil:
    cdef Computing* c = <Computing*>context
    if thread == 0:
        c.ran = n_threads
    c.found[thread] = c.loop(c.steps)


cdef class Stream:
    """Memory to be read from one end to the other.

    Parameters
    ----------
    n_bytes : int
        More than the caches hold; rounded down to whole units of 512 bytes.

    Raises
    ------
    ValueError
        Fewer than 512 bytes.
    MemoryError
        The memory cannot be had.
    """

    cdef ZeroedMemory _memory
    cdef readonly size_t nbytes

    def __init__(self, Py_ssize_t n_bytes):
        if n_bytes < UNIT:
            raise ValueError(f"{n_bytes} bytes are no stream: at least {UNIT}")
        self.nbytes = <size_t>n_bytes // UNIT * UNIT
        self._memory = ZeroedMemory(self.nbytes, "reading", huge=True)
        with nogil:
            memset(self._memory.data, 1, self.nbytes)  # pages that were never written share one

    def read(self, int threads=1):
        """Read all of it, each thread a stretch of its own.

        Parameters
        ----------
        threads : int

        Returns
        -------
        int
            Threads that took part: one where the pool was busy.
        """
        cdef Reading reading
        if not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"{threads} threads")
        memset(&reading, 0, sizeof(reading))
        reading.data = self._memory.data
        reading.n_bytes = self.nbytes
        reading.loop = rl_read_loop(simd_level())
        with nogil:
            run_team(_read, &reading, threads)
        return reading.ran


def has_peak(str kind):
    """Whether the level in use has instructions of this kind."""
    cdef int64_t operations = 0
    return rl_peak_loop(KINDS.index(kind), simd_level(), has_bf16(), &operations) != NULL


def compute(str kind, int64_t steps, int threads=1):
    """Compute without touching memory.

    Parameters
    ----------
    kind : {"float32", "int8", "bfloat16"}
        Fused multiply-adds, or dot products of bytes or of bfloat16.
    steps : int
        Of every thread.
    threads : int

    Returns
    -------
    int
        Operations that were done on all threads, a multiplication and an addition being two.

    Raises
    ------
    ValueError
        The processor has no such instructions, or a number is out of range.
    """
    cdef Computing computing
    cdef int64_t operations = 0
    if not 1 <= threads <= MAX_THREADS or not 1 <= steps <= 1 << 40:
        raise ValueError(f"{threads} threads, {steps} steps")
    memset(&computing, 0, sizeof(computing))
    computing.loop = rl_peak_loop(KINDS.index(kind), simd_level(), has_bf16(), &operations)
    if computing.loop == NULL:
        raise ValueError(f"no instructions for {kind} here")
    computing.steps = steps
    with nogil:
        run_team(_compute, &computing, threads)
    return operations * steps * computing.ran

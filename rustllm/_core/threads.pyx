"""The one thread pool, for kernels that do not hold the GIL.

A team runs one function on several threads, the calling thread among them, with barriers inside.
Threads are started when first needed, never at import; a forked child starts its own. Idle threads
spin for a moment, because the next token's work usually follows at once, and then sleep. One team
runs at a time: a caller that finds the pool busy runs alone instead of waiting, which is right
because no kernel's result depends on the number of threads.
"""

import os

from libc.string cimport memset

cdef extern from "system_threads.h" nogil:
    ctypedef struct rl_mutex:
        pass
    ctypedef struct rl_condition:
        pass
    int rl_thread_start_apart(
        void* (*fn)(void*) noexcept nogil, void* argument, size_t stack_bytes
    ) noexcept
    void rl_mutex_init(rl_mutex*) noexcept
    void rl_mutex_lock(rl_mutex*) noexcept
    void rl_mutex_unlock(rl_mutex*) noexcept
    void rl_condition_init(rl_condition*) noexcept
    void rl_condition_wait(rl_condition*, rl_mutex*) noexcept
    void rl_condition_signal(rl_condition*) noexcept
    void rl_thread_yield() noexcept
    void rl_after_fork_in_child(void (*fn)() noexcept nogil) noexcept

cdef extern from "atomics.h" nogil:
    int rl_load(const int*) noexcept
    int rl_load_seq(const int*) noexcept
    void rl_store(int*, int) noexcept
    void rl_store_seq(int*, int) noexcept
    int rl_fetch_add(int*, int) noexcept
    int rl_swap(int*, int) noexcept
    void rl_pause() noexcept

# A two-thread team on a machine that is busy elsewhere must not burn a slice waiting, so spinning
# turns into yielding soon and into sleep a little later.
cdef enum:
    MAX_THREADS = 256
    SPINS_BEFORE_YIELD = 2000
    SPINS_BEFORE_SLEEP = 6000
    STACK_BYTES = 1 << 20

# Each field that threads write often has a cache line of its own.
cdef struct Seat:
    int generation          # the team's number, stored by the caller to wake this thread
    int asleep
    int thread
    char _pad[52]
    rl_mutex mutex
    rl_condition wake

cdef struct Pool:
    int busy
    char _pad0[60]
    int arrived
    char _pad1[60]
    int phase
    char _pad2[60]
    int done
    char _pad3[60]
    int generation
    int n_threads
    int n_started
    team_fn fn
    void* context

cdef Pool _pool
cdef Seat _seats[MAX_THREADS]
memset(&_pool, 0, sizeof(_pool))


cdef void _forget() noexcept nogil:
    # Forked: the workers stayed in the parent, whatever the pool was doing there.
    memset(&_pool, 0, sizeof(_pool))


# In the child before any of its threads can ask for a team, so that two never do this at once.
rl_after_fork_in_child(_forget)


cdef void* _work(void* argument) noexcept nogil:
    cdef Seat* seat = <Seat*>argument
    cdef int seen = 0
    cdef int spins = 0
    while True:
        if rl_load(&seat.generation) == seen:
            spins += 1
            if spins < SPINS_BEFORE_YIELD:
                rl_pause()
            elif spins < SPINS_BEFORE_SLEEP:
                rl_pause()
                if spins % 64 == 0:
                    rl_thread_yield()
            else:
                rl_mutex_lock(&seat.mutex)
                rl_store_seq(&seat.asleep, 1)
                while rl_load_seq(&seat.generation) == seen:
                    rl_condition_wait(&seat.wake, &seat.mutex)
                rl_store(&seat.asleep, 0)
                rl_mutex_unlock(&seat.mutex)
                spins = 0
            continue
        seen = rl_load(&seat.generation)
        spins = 0
        _pool.fn(_pool.context, seat.thread, _pool.n_threads)
        rl_fetch_add(&_pool.done, 1)
    return NULL


cdef int _start(int n_threads) noexcept nogil:
    """Start workers until `n_threads` can run; how many can."""
    cdef Seat* seat
    while _pool.n_started + 1 < n_threads:
        seat = &_seats[_pool.n_started + 1]
        memset(seat, 0, sizeof(Seat))
        seat.thread = _pool.n_started + 1
        rl_mutex_init(&seat.mutex)
        rl_condition_init(&seat.wake)
        if rl_thread_start_apart(_work, seat, STACK_BYTES) != 0:
            break
        _pool.n_started += 1
    return min(n_threads, _pool.n_started + 1)


cdef int run_team(team_fn fn, void* context, int n_threads) noexcept nogil:
    cdef int i, spins = 0
    cdef Seat* seat
    if n_threads > MAX_THREADS:
        n_threads = MAX_THREADS
    if n_threads <= 1 or rl_swap(&_pool.busy, 1):
        fn(context, 0, 1)
        return 1
    n_threads = _start(n_threads)
    _pool.fn = fn
    _pool.context = context
    _pool.n_threads = n_threads
    rl_store(&_pool.arrived, 0)
    rl_store(&_pool.done, 0)
    _pool.generation = _pool.generation % 0x3fffffff + 1
    for i in range(1, n_threads):
        seat = &_seats[i]
        rl_store_seq(&seat.generation, _pool.generation)
        if rl_load_seq(&seat.asleep):
            rl_mutex_lock(&seat.mutex)
            rl_condition_signal(&seat.wake)
            rl_mutex_unlock(&seat.mutex)
    fn(context, 0, n_threads)
    while rl_load(&_pool.done) != n_threads - 1:
        spins += 1
        rl_pause()
        if spins > SPINS_BEFORE_YIELD and spins % 16 == 0:
            rl_thread_yield()
    rl_store(&_pool.busy, 0)
    return n_threads


cdef void team_barrier(int n_threads) noexcept nogil:
    cdef int phase, spins = 0
    if n_threads == 1:
        return
    phase = rl_load(&_pool.phase)
    if rl_fetch_add(&_pool.arrived, 1) == n_threads - 1:
        rl_store(&_pool.arrived, 0)
        rl_store(&_pool.phase, phase + 1 if phase < 0x3fffffff else 0)
        return
    while rl_load(&_pool.phase) == phase:
        spins += 1
        rl_pause()
        if spins > SPINS_BEFORE_YIELD and spins % 16 == 0:
            rl_thread_yield()


cdef int default_threads() except -1:
    if hasattr(os, "sched_getaffinity"):
        return min(MAX_THREADS, len(os.sched_getaffinity(0)))
    return min(MAX_THREADS, os.cpu_count() or 1)


cdef struct _Probe:
    int counts[MAX_THREADS]
    int rounds
    int torn


cdef void _probe(void* context, int thread, int n_threads) noexcept nogil:
    cdef _Probe* probe = <_Probe*>context
    cdef int i, j
    for i in range(probe.rounds):
        probe.counts[thread] += 1
        team_barrier(n_threads)
        for j in range(n_threads):
            if probe.counts[j] != i + 1:
                rl_store(&probe.torn, 1)
        team_barrier(n_threads)


def probe(int n_threads, int rounds=100):
    """Run a team through `rounds` pairs of barriers, for tests.

    Returns
    -------
    (int, bool)
        Threads that ran, and whether every thread saw every other's work after each barrier.
    """
    cdef _Probe work
    cdef int ran
    memset(&work, 0, sizeof(work))
    work.rounds = rounds
    with nogil:
        ran = run_team(_probe, &work, n_threads)
    return ran, work.torn == 0


def available_threads():
    """Threads that the process may run at once (its CPU affinity)."""
    return default_threads()


def threads_started():
    """Worker threads that the pool has started in this process."""
    return _pool.n_started

"""The one thread pool, for kernels that do not hold the GIL.

A team runs one function on several threads, the calling thread among them, with barriers inside.
Threads are started when first needed, never at import; a forked child starts its own. Idle threads
spin for a moment, because the next token's work usually follows at once, and then sleep. One team
runs at a time: a caller that finds the pool busy runs alone instead of waiting, which is right
because no kernel's result depends on the number of threads.
"""

import os

from libc.string cimport memset

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_attr_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_create(pthread_t*, pthread_attr_t*, void* (*)(void*) noexcept nogil, void*) noexcept
    int pthread_attr_init(pthread_attr_t*) noexcept
    int pthread_attr_destroy(pthread_attr_t*) noexcept
    int pthread_attr_setdetachstate(pthread_attr_t*, int) noexcept
    int pthread_attr_setstacksize(pthread_attr_t*, size_t) noexcept
    int pthread_mutex_init(pthread_mutex_t*, void*) noexcept
    int pthread_mutex_lock(pthread_mutex_t*) noexcept
    int pthread_mutex_unlock(pthread_mutex_t*) noexcept
    int pthread_cond_init(pthread_cond_t*, void*) noexcept
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*) noexcept
    int pthread_cond_signal(pthread_cond_t*) noexcept
    int pthread_atfork(
        void (*)() noexcept nogil, void (*)() noexcept nogil, void (*)() noexcept nogil
    ) noexcept
    int PTHREAD_CREATE_DETACHED

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t*) noexcept
    int pthread_sigmask(int, const sigset_t*, sigset_t*) noexcept
    int SIG_SETMASK

cdef extern from "<sched.h>" nogil:
    int sched_yield() noexcept

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
    pthread_mutex_t mutex
    pthread_cond_t wake

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
pthread_atfork(NULL, NULL, _forget)


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
                    sched_yield()
            else:
                pthread_mutex_lock(&seat.mutex)
                rl_store_seq(&seat.asleep, 1)
                while rl_load_seq(&seat.generation) == seen:
                    pthread_cond_wait(&seat.wake, &seat.mutex)
                rl_store(&seat.asleep, 0)
                pthread_mutex_unlock(&seat.mutex)
                spins = 0
            continue
        seen = rl_load(&seat.generation)
        spins = 0
        _pool.fn(_pool.context, seat.thread, _pool.n_threads)
        rl_fetch_add(&_pool.done, 1)
    return NULL


cdef int _start(int n_threads) noexcept nogil:
    """Start workers until `n_threads` can run; how many can."""
    cdef pthread_t handle
    cdef pthread_attr_t attributes
    cdef sigset_t all_signals, before
    cdef Seat* seat
    if _pool.n_started + 1 >= n_threads:
        return n_threads
    if pthread_attr_init(&attributes) != 0:
        return _pool.n_started + 1
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED)
    pthread_attr_setstacksize(&attributes, STACK_BYTES)
    # Signals belong to Python's threads: workers start with all of them blocked.
    sigfillset(&all_signals)
    pthread_sigmask(SIG_SETMASK, &all_signals, &before)
    while _pool.n_started + 1 < n_threads:
        seat = &_seats[_pool.n_started + 1]
        memset(seat, 0, sizeof(Seat))
        seat.thread = _pool.n_started + 1
        pthread_mutex_init(&seat.mutex, NULL)
        pthread_cond_init(&seat.wake, NULL)
        if pthread_create(&handle, &attributes, _work, seat) != 0:
            break
        _pool.n_started += 1
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    pthread_attr_destroy(&attributes)
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
            pthread_mutex_lock(&seat.mutex)
            pthread_cond_signal(&seat.wake)
            pthread_mutex_unlock(&seat.mutex)
    fn(context, 0, n_threads)
    while rl_load(&_pool.done) != n_threads - 1:
        spins += 1
        rl_pause()
        if spins > SPINS_BEFORE_YIELD and spins % 16 == 0:
            sched_yield()
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
            sched_yield()


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

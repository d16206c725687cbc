/* What the allocators need from the platform: aligned blocks, a spin lock, and poisoning. */
#ifndef RUSTLLM_ALLOC_H
#define RUSTLLM_ALLOC_H

#if !defined(_POSIX_C_SOURCE) && !defined(_WIN32) /* Python.h sets it; -std=c11 alone hides it */
#define _POSIX_C_SOURCE 200112L
#endif

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <malloc.h>
#include <windows.h>
#else
#include <sched.h>
#endif

/* Memory that must not be touched is made known to the tool that watches: AddressSanitizer, or
   valgrind in builds with assertions. Elsewhere these vanish. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RL_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define RL_ASAN 1
#endif

#if defined(RL_ASAN)
#include <sanitizer/asan_interface.h>
#define RL_POISONING 1
#define RL_REDZONE 16
#define RL_POISON(address, n) ASAN_POISON_MEMORY_REGION((void *)(address), (n))
#define RL_UNPOISON(address, n) ASAN_UNPOISON_MEMORY_REGION((void *)(address), (n))
#elif !defined(NDEBUG) && defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define RL_POISONING 1
#define RL_REDZONE 16
#define RL_POISON(address, n) (void)VALGRIND_MAKE_MEM_NOACCESS((void *)(address), (n))
#define RL_UNPOISON(address, n) (void)VALGRIND_MAKE_MEM_UNDEFINED((void *)(address), (n))
#endif
#endif
#ifndef RL_POISONING
#define RL_POISONING 0
#define RL_REDZONE 0
#define RL_POISON(address, n) ((void)(address), (void)(n))
#define RL_UNPOISON(address, n) ((void)(address), (void)(n))
#endif

/* Unused bytes after an allocation, where there is room for them, so that the tool sees an overrun. */
static inline size_t rl_redzone(size_t room) {
#if RL_REDZONE > 0
    return room < RL_REDZONE ? room : RL_REDZONE;
#else
    (void)room;
    return 0;
#endif
}
static inline void rl_poison(size_t address, size_t n) { RL_POISON(address, n); }
static inline void rl_unpoison(size_t address, size_t n) { RL_UNPOISON(address, n); }

/* `align` is a power of two. */
static inline void *rl_aligned_alloc(size_t n, size_t align) {
    if (n > (size_t)PTRDIFF_MAX - align) return NULL;
    if (n == 0) n = 1;
#if defined(_WIN32)
    return _aligned_malloc(n, align);
#else
    void *data = NULL;
    if (align < sizeof(void *)) align = sizeof(void *);
    return posix_memalign(&data, align, n) == 0 ? data : NULL;
#endif
}

static inline void rl_aligned_free(void *data) {
#if defined(_WIN32)
    _aligned_free(data);
#else
    free(data);
#endif
}

static inline void rl_let_others_run(void) {
#if defined(_WIN32)
    SwitchToThread();
#elif defined(CYTHON_TRACE_NOGIL) && CYTHON_TRACE_NOGIL
    /* Coverage build: every line takes the GIL to be counted, those of a lock's holder too. */
    PyThreadState *thread = PyGILState_Check() ? PyEval_SaveThread() : NULL;
    sched_yield();
    if (thread != NULL) PyEval_RestoreThread(thread);
#else
    sched_yield();
#endif
}

/* A lock for a few instructions, or for one call of the system's allocator. Its holder never runs
   Python, so a thread that has the GIL may wait for it. */
static inline void rl_lock(int *lock) {
    int spins = 0;
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE)) {
        while (__atomic_load_n(lock, __ATOMIC_RELAXED)) {
            if (++spins < 100) {
#if defined(__x86_64__)
                __builtin_ia32_pause();
#endif
            } else {
                rl_let_others_run();
            }
        }
    }
}
static inline void rl_unlock(int *lock) { __atomic_store_n(lock, 0, __ATOMIC_RELEASE); }

static inline int64_t rl_atomic_add(int64_t *cell, int64_t n) {
    return __atomic_add_fetch(cell, n, __ATOMIC_ACQ_REL);
}
static inline int64_t rl_atomic_get(int64_t *cell) {
    return __atomic_load_n(cell, __ATOMIC_ACQUIRE);
}
static inline void rl_atomic_set(int64_t *cell, int64_t value) {
    __atomic_store_n(cell, value, __ATOMIC_RELEASE);
}

#endif

/* Threads, a lock and a condition as the system has them: POSIX threads, or Windows' own. */
#ifndef RUSTLLM_SYSTEM_THREADS_H
#define RUSTLLM_SYSTEM_THREADS_H

#if !defined(_POSIX_C_SOURCE) && !defined(_WIN32) /* Python.h sets it; -std=c11 alone hides it */
#define _POSIX_C_SOURCE 200112L
#endif

#include <stddef.h>

/* What a thread runs; the result is not used. */
typedef void *(*rl_thread_fn)(void *argument);

#if defined(_WIN32)

#include <process.h>
#include <stdlib.h>
#include <windows.h>

typedef HANDLE rl_thread;
typedef SRWLOCK rl_mutex;
typedef CONDITION_VARIABLE rl_condition;

typedef struct {
    rl_thread_fn fn;
    void *argument;
} rl_thread_start_of;

static unsigned __stdcall rl_thread_main(void *start) {
    rl_thread_start_of what = *(rl_thread_start_of *)start;
    free(start);
    (void)what.fn(what.argument);
    return 0;
}

/* 0 when the thread runs; rl_thread_join must follow. `stack_bytes` is a wish, 0 for the usual. */
static inline int rl_thread_start(rl_thread *thread, rl_thread_fn fn, void *argument, size_t stack_bytes) {
    rl_thread_start_of *start = (rl_thread_start_of *)malloc(sizeof *start);
    if (start == NULL) return -1;
    start->fn = fn;
    start->argument = argument;
    *thread = (HANDLE)_beginthreadex(NULL, (unsigned)stack_bytes, rl_thread_main, start,
                                     stack_bytes ? STACK_SIZE_PARAM_IS_A_RESERVATION : 0, NULL);
    if (*thread != NULL) return 0;
    free(start);
    return -1;
}

static inline void rl_thread_join(rl_thread thread) {
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}

/* A thread that nobody waits for, and that gets no signal: those belong to Python's threads. */
static inline int rl_thread_start_apart(rl_thread_fn fn, void *argument, size_t stack_bytes) {
    rl_thread thread;
    if (rl_thread_start(&thread, fn, argument, stack_bytes) != 0) return -1;
    CloseHandle(thread);
    return 0;
}

static inline void rl_mutex_init(rl_mutex *mutex) { InitializeSRWLock(mutex); }
static inline void rl_mutex_lock(rl_mutex *mutex) { AcquireSRWLockExclusive(mutex); }
static inline void rl_mutex_unlock(rl_mutex *mutex) { ReleaseSRWLockExclusive(mutex); }
static inline void rl_condition_init(rl_condition *condition) { InitializeConditionVariable(condition); }
static inline void rl_condition_wait(rl_condition *condition, rl_mutex *mutex) {
    SleepConditionVariableSRW(condition, mutex, INFINITE, 0);
}
static inline void rl_condition_signal(rl_condition *condition) { WakeConditionVariable(condition); }
static inline void rl_thread_yield(void) { SwitchToThread(); }

/* There are no forks. */
static inline void rl_after_fork_in_child(void (*fn)(void)) { (void)fn; }

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>

typedef pthread_t rl_thread;
typedef pthread_mutex_t rl_mutex;
typedef pthread_cond_t rl_condition;

static inline int rl_thread_create(rl_thread *thread, rl_thread_fn fn, void *argument, size_t stack_bytes,
                                   int detached) {
    pthread_attr_t attributes;
    int status;
    if (pthread_attr_init(&attributes) != 0) return -1;
    if (detached) pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack_bytes) pthread_attr_setstacksize(&attributes, stack_bytes);
    status = pthread_create(thread, &attributes, fn, argument);
    pthread_attr_destroy(&attributes);
    return status;
}

/* 0 when the thread runs; rl_thread_join must follow. `stack_bytes` is a wish, 0 for the usual. */
static inline int rl_thread_start(rl_thread *thread, rl_thread_fn fn, void *argument, size_t stack_bytes) {
    return rl_thread_create(thread, fn, argument, stack_bytes, 0);
}

static inline void rl_thread_join(rl_thread thread) { pthread_join(thread, NULL); }

/* A thread that nobody waits for, and that gets no signal: those belong to Python's threads. */
static inline int rl_thread_start_apart(rl_thread_fn fn, void *argument, size_t stack_bytes) {
    rl_thread thread;
    sigset_t all_signals, before;
    int status;
    sigfillset(&all_signals);
    pthread_sigmask(SIG_SETMASK, &all_signals, &before);
    status = rl_thread_create(&thread, fn, argument, stack_bytes, 1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

static inline void rl_mutex_init(rl_mutex *mutex) { pthread_mutex_init(mutex, NULL); }
static inline void rl_mutex_lock(rl_mutex *mutex) { pthread_mutex_lock(mutex); }
static inline void rl_mutex_unlock(rl_mutex *mutex) { pthread_mutex_unlock(mutex); }
static inline void rl_condition_init(rl_condition *condition) { pthread_cond_init(condition, NULL); }
static inline void rl_condition_wait(rl_condition *condition, rl_mutex *mutex) {
    pthread_cond_wait(condition, mutex);
}
static inline void rl_condition_signal(rl_condition *condition) { pthread_cond_signal(condition); }
static inline void rl_thread_yield(void) { sched_yield(); }

/* Have `fn` called in every forked child before any of its threads runs on. */
static inline void rl_after_fork_in_child(void (*fn)(void)) { pthread_atfork(NULL, NULL, fn); }

#endif

#endif

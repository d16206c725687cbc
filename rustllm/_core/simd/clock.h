/* A clock that never goes back, for measuring how long things take. */
#ifndef RUSTLLM_CLOCK_H
#define RUSTLLM_CLOCK_H

#if !defined(_POSIX_C_SOURCE) && !defined(_WIN32) /* Python.h sets it; -std=c11 alone hides it */
#define _POSIX_C_SOURCE 200112L
#endif

#if defined(_WIN32)

#include <windows.h>

static inline double rl_milliseconds(void) {
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    return (double)ticks.QuadPart * 1e3 / (double)per_second.QuadPart;
}

#else

#include <time.h>

static inline double rl_milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

#endif

#endif

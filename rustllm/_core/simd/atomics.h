/* Atomic operations and the spin-wait hint, named once for Cython. */
#ifndef RUSTLLM_ATOMICS_H
#define RUSTLLM_ATOMICS_H

#include <stdint.h>

static inline int rl_load(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline int rl_load_seq(const int *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void rl_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline void rl_store_seq(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
static inline int rl_fetch_add(int *p, int v) { return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL); }
static inline int rl_swap(int *p, int v) { return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); }

static inline void rl_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif

/* Memory for tables that are read at random: large pages where the system grants them. */
#ifndef RUSTLLM_PAGES_H
#define RUSTLLM_PAGES_H

#if !defined(_DEFAULT_SOURCE) && !defined(_WIN32) /* Python.h sets it; -std=c11 alone hides mmap */
#define _DEFAULT_SOURCE 1
#endif

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

/* Zeroed; given back with rl_pages_free and the same size. NULL if there is none. */
static inline void *rl_pages_new(size_t bytes) {
#if defined(__linux__)
    const size_t large = (size_t)2 << 20;
    size_t room = bytes + large;
    char *raw = (char *)mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *start;
    if (raw == (char *)MAP_FAILED) return NULL;
    start = (char *)(((size_t)raw + large - 1) & ~(large - 1));
    /* Trim to the aligned part, so that freeing needs to know no more than the size. */
    if (start > raw) munmap(raw, (size_t)(start - raw));
    if (raw + room > start + bytes) {
        size_t page = 4096, end = ((size_t)(start + bytes) + page - 1) & ~(page - 1);
        if ((size_t)(raw + room) > end) munmap((char *)end, (size_t)(raw + room) - end);
    }
#ifdef MADV_HUGEPAGE
    if (bytes >= large) (void)madvise(start, bytes, MADV_HUGEPAGE);
#endif
    return start;
#else
    return calloc(bytes, 1);
#endif
}

/* Ask for large pages within memory that was not touched yet. */
static inline void rl_pages_prefer(void *start, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const size_t large = (size_t)2 << 20;
    const size_t from = ((size_t)start + large - 1) & ~(large - 1), to = (size_t)start + bytes;
    if (to > from) (void)madvise((void *)from, (to - from) & ~(size_t)4095, MADV_HUGEPAGE);
#else
    (void)start;
    (void)bytes;
#endif
}

/* Let go of pages of a mapped file, those at the ends too: whoever touches them reads them again. */
static inline void rl_pages_drop(const void *start, size_t bytes) {
#if defined(__linux__)
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), from = (size_t)start & ~(page - 1);
    if (bytes) (void)madvise((void *)from, (size_t)start + bytes - from, MADV_DONTNEED);
#else
    (void)start;
    (void)bytes;
#endif
}

static inline void rl_pages_free(void *start, size_t bytes) {
#if defined(__linux__)
    if (start != NULL) munmap(start, (bytes + 4095) & ~(size_t)4095);
#else
    (void)bytes;
    free(start);
#endif
}

#endif

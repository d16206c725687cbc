/* Preloaded before libc: lets the n-th request for memory, or for a thread, by rustllm's own modules
 * fail, and counts the blocks that they hold. What Python and others request is passed on untouched.
 *
 * A request is rustllm's when its return address lies in one of the shared objects under a folder
 * named rustllm, whose ranges are read when counting begins.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

enum { MAX_RANGES = 256, SLOTS = 1 << 18 };

static struct { uintptr_t from, to; } ranges[MAX_RANGES];
static atomic_int n_ranges;
static atomic_long countdown = -1; /* negative: nothing fails */
static atomic_long n_failed, n_live;
static atomic_flag lock = ATOMIC_FLAG_INIT;
static uintptr_t live[SLOTS]; /* open addressing; 0 is free */

static int is_ours(const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    int n = atomic_load(&n_ranges);
    for (int i = 0; i < n; i++)
        if (at >= ranges[i].from && at < ranges[i].to)
            return 1;
    return 0;
}

/* Whether this request of ours is the one to fail. */
static int fails(void)
{
    if (atomic_load(&countdown) < 0 || atomic_fetch_sub(&countdown, 1) != 0)
        return 0;
    atomic_fetch_add(&n_failed, 1);
    return 1;
}

static size_t slot_of(uintptr_t key) { return (key >> 4) * 0x9E3779B97F4A7C15u >> 46; }

static void note(void *block)
{
    if (block == NULL)
        return;
    while (atomic_flag_test_and_set(&lock)) { }
    size_t at = slot_of((uintptr_t)block);
    while (live[at])
        at = (at + 1) % SLOTS;
    live[at] = (uintptr_t)block;
    atomic_flag_clear(&lock);
    atomic_fetch_add(&n_live, 1);
}

static void forget(void *block)
{
    if (block == NULL || atomic_load(&n_live) == 0)
        return;
    while (atomic_flag_test_and_set(&lock)) { }
    size_t hole = slot_of((uintptr_t)block);
    while (live[hole] && live[hole] != (uintptr_t)block)
        hole = (hole + 1) % SLOTS;
    if (live[hole]) {
        /* What was pushed past the hole moves up, so that every search may end at a free slot. */
        for (size_t at = (hole + 1) % SLOTS; live[at]; at = (at + 1) % SLOTS) {
            size_t home = slot_of(live[at]);
            if ((at + SLOTS - home) % SLOTS >= (at + SLOTS - hole) % SLOTS) {
                live[hole] = live[at];
                hole = at;
            }
        }
        live[hole] = 0;
        atomic_fetch_sub(&n_live, 1);
    }
    atomic_flag_clear(&lock);
}

#define REQUEST(call)                                         \
    int ours = is_ours(__builtin_return_address(0));          \
    if (ours && fails()) {                                    \
        errno = ENOMEM;                                       \
        return NULL;                                          \
    }                                                         \
    void *block = (call);                                     \
    if (ours)                                                 \
        note(block);                                          \
    return block

void *malloc(size_t n) { REQUEST(__libc_malloc(n)); }
void *calloc(size_t n, size_t each) { REQUEST(__libc_calloc(n, each)); }
void *memalign(size_t align, size_t n) { REQUEST(__libc_memalign(align, n)); }
void *aligned_alloc(size_t align, size_t n) { REQUEST(__libc_memalign(align, n)); }

int posix_memalign(void **out, size_t align, size_t n)
{
    int ours = is_ours(__builtin_return_address(0));
    if (ours && fails())
        return ENOMEM;
    *out = __libc_memalign(align, n);
    if (*out == NULL)
        return ENOMEM;
    if (ours)
        note(*out);
    return 0;
}

void *realloc(void *old, size_t n)
{
    int ours = is_ours(__builtin_return_address(0));
    if (ours && fails()) {
        errno = ENOMEM;
        return NULL;
    }
    /* forgotten before it is given back: another thread may be handed the same address */
    int was_live = old != NULL && ours;
    if (was_live)
        forget(old);
    void *block = __libc_realloc(old, n);
    if (block == NULL && was_live)
        note(old);
    else if (ours)
        note(block);
    return block;
}

void free(void *block)
{
    forget(block);
    __libc_free(block);
}

void *mmap(void *where, size_t n, int protection, int flags, int file, off_t offset)
{
    static void *(*next)(void *, size_t, int, int, int, off_t);
    int ours = is_ours(__builtin_return_address(0));
    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "mmap");
    if (ours && fails()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *block = next(where, n, protection, flags, file, offset);
    if (ours && block != MAP_FAILED)
        note(block);
    return block;
}

int munmap(void *block, size_t n)
{
    static int (*next)(void *, size_t);
    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "munmap");
    forget(block);
    return next(block, n);
}

int pthread_create(pthread_t *id, const pthread_attr_t *how, void *(*run)(void *), void *with)
{
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    if (is_ours(__builtin_return_address(0)) && fails())
        return EAGAIN;
    return next(id, how, run, with);
}

static int add_ranges(struct dl_phdr_info *object, size_t size, void *unused)
{
    (void)size, (void)unused;
    int n = atomic_load(&n_ranges);
    if (strstr(object->dlpi_name, "/rustllm/") == NULL)
        return 0;
    for (int i = 0; i < object->dlpi_phnum && n < MAX_RANGES; i++)
        if (object->dlpi_phdr[i].p_type == PT_LOAD && (object->dlpi_phdr[i].p_flags & PF_X)) {
            ranges[n].from = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr;
            ranges[n].to = ranges[n].from + object->dlpi_phdr[i].p_memsz;
            n++;
        }
    atomic_store(&n_ranges, n);
    return 0;
}

/* The modules loaded now are the ones that are watched from here on. Returns how many. */
int failing_watch(void)
{
    atomic_store(&n_ranges, 0);
    dl_iterate_phdr(add_ranges, NULL);
    return atomic_load(&n_ranges);
}

void failing_arm(long n)
{
    atomic_store(&n_failed, 0);
    atomic_store(&countdown, n);
}

/* How many requests have failed since they were armed: 0 or 1. */
long failing_disarm(void)
{
    atomic_store(&countdown, -1);
    return atomic_load(&n_failed);
}

long failing_live(void) { return atomic_load(&n_live); }

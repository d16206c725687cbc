"""Allocation as other people's compiled code does it, in loops without Python; see memory.py."""

from cymem.cymem cimport Pool
from libc.stdlib cimport free, malloc

cdef extern from *:
    # A pointer that anybody might read keeps the compiler from leaving malloc and free out.
    """
    static void *volatile bench_seen;
    """
    void* bench_seen

from rustllm._core.arena cimport Arena
from rustllm._core.pool cimport TokenBlock, TokenPool


def arena(Arena target, size_t n, size_t size):
    cdef size_t _i
    cdef char* data
    with nogil:
        for _i in range(n):
            data = <char*> target.alloc_raw(size, 16)
            data[0] = 1


def arena_shared(Arena target, size_t n, size_t size):
    cdef size_t _i
    cdef char* data
    with nogil:
        for _i in range(n):
            data = <char*> target.alloc_shared(size, 16)
            data[0] = 1


def cymem(Pool target, size_t n, size_t size):
    cdef size_t _i
    cdef char* data
    for _i in range(n):
        data = <char*> target.alloc(1, size)
        data[0] = 1


def malloc_free(target, size_t n, size_t size):
    cdef size_t _i
    cdef char* data
    with nogil:
        for _i in range(n):
            data = <char*> malloc(size)
            data[0] = 1
            bench_seen = data  # no-cython-lint
            free(data)


def token_pool(TokenPool target, size_t n, size_t size):
    cdef size_t _i
    cdef TokenBlock* block
    with nogil:
        for _i in range(n):
            block = target.take(size // 4)
            block.data[0] = 1
            target.give(block)

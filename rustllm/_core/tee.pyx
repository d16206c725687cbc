"""One source for several iterators: a ring of the items that some iterator has still to give.

Each place of the ring counts the branches that have not passed it, and lets its item go with the
last. A branch is a position; reading touches no other branch. Only when the ring is full, or the
bound may be reached, is the slowest looked for.
"""

from types import GenericAlias

from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_get_thread_ident,
    PyThread_release_lock,
    PyThread_type_lock,
)
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from rustllm._core.status cimport CLOSED, LIMIT_REACHED, failure

cdef extern from "pythread.h":
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED
    PyLockStatus PyThread_acquire_lock_timed(
        PyThread_type_lock lock, long long microseconds, int intr_flag
    ) nogil

cdef enum:
    FIRST_PLACES = 64
    # Between two looks for Ctrl-C while another thread reads the source.
    WAIT_MICROSECONDS = 50_000


cdef class Shared:
    """What the branches of one tee have in common."""

    cdef object source  # None after its end
    cdef object error  # what the source raised, for every branch to raise at its place
    cdef list items
    cdef uint32_t *left  # for each place, the branches that have not passed it
    cdef uint64_t mask
    cdef uint64_t head  # items read from the source so far
    cdef uint64_t slowest  # no branch is behind this, nor was any when it was looked for
    cdef uint64_t lag
    cdef uint32_t n_open
    cdef uint64_t *positions
    cdef char *is_open
    cdef Py_ssize_t n
    cdef PyThread_type_lock reading
    cdef unsigned long reader

    def __cinit__(self, source, Py_ssize_t n, uint64_t lag):
        self.source = iter(source)
        self.lag = lag
        self.n = n
        self.n_open = <uint32_t>n
        self.items = [None] * FIRST_PLACES
        self.mask = FIRST_PLACES - 1
        self.left = <uint32_t *>calloc(FIRST_PLACES, sizeof(uint32_t))
        self.positions = <uint64_t *>calloc(n + 1, sizeof(uint64_t))
        self.is_open = <char *>calloc(n + 1, 1)
        self.reading = PyThread_allocate_lock()
        if not (self.left and self.positions and self.is_open and self.reading):
            raise MemoryError()
        for i in range(n):
            self.is_open[i] = 1

    def __dealloc__(self):
        free(self.left)
        free(self.positions)
        free(self.is_open)
        if self.reading != NULL:
            PyThread_free_lock(self.reading)

    cdef Py_ssize_t find_slowest(self) noexcept:
        """Bring `slowest` up to date; return the number of that branch, -1 if none is open."""
        cdef Py_ssize_t i, found = -1
        self.slowest = self.head
        for i in range(self.n):
            if self.is_open[i] and (found < 0 or self.positions[i] < self.slowest):
                found = i
                self.slowest = self.positions[i]
        return found

    cdef int make_room(self) except -1:
        """See to it that one more item is within the bound and has a place."""
        cdef Py_ssize_t branch
        cdef uint64_t at, mask
        cdef uint32_t *left
        cdef list items
        if self.head - self.slowest >= self.lag:
            branch = self.find_slowest()
            if self.head - self.slowest >= self.lag:
                raise failure(
                    LIMIT_REACHED,
                    f"branch {branch} of a tee is {self.head - self.slowest} items behind",
                    {
                        "hint": "read or close the slow branch, or give a larger lag",
                        "branch": branch,
                    },
                )
        if self.head - self.slowest > self.mask:
            self.find_slowest()
        if self.head - self.slowest > self.mask:
            mask = 2 * self.mask + 1
            items = [None] * (mask + 1)
            left = <uint32_t *>calloc(mask + 1, sizeof(uint32_t))
            if left == NULL:
                raise MemoryError()
            for at in range(self.slowest, self.head):
                items[at & mask] = self.items[at & self.mask]
                left[at & mask] = self.left[at & self.mask]
            free(self.left)
            self.left = left
            self.items = items
            self.mask = mask
        return 0

    cdef int read(self) except -1:
        """Read one item for every branch; 1 at the source's end, 2 if another thread did."""
        cdef object item
        if not PyThread_acquire_lock(self.reading, 0):
            if self.reader == PyThread_get_thread_ident():
                raise failure(
                    CLOSED, "the source of a tee asked for the item it was to give", None
                )
            self.wait()
            return 2
        self.reader = PyThread_get_thread_ident()
        try:
            if self.source is None:
                if self.error is not None:
                    raise self.error
                return 1
            self.make_room()
            try:
                item = next(self.source)
            except StopIteration:
                self.source = None
                return 1
            except Exception as error:
                self.source = None
                self.error = error
                raise
            if self.n_open:  # closing is possible while the source runs
                self.items[self.head & self.mask] = item
                self.left[self.head & self.mask] = self.n_open
            self.head += 1
        finally:
            self.reader = 0
            PyThread_release_lock(self.reading)
        return 0

    cdef int wait(self) except -1:
        """Wait, without the GIL, until the thread that reads the source has its item."""
        cdef int got = 0
        while not got:
            with nogil:
                got = PyThread_acquire_lock_timed(
                    self.reading, WAIT_MICROSECONDS, 0
                ) == PY_LOCK_ACQUIRED
            if got:
                PyThread_release_lock(self.reading)
            PyErr_CheckSignals()
        return 0

    cdef object take(self, uint64_t at):
        """Return the item at position `at` to a branch that passes it."""
        cdef uint64_t place = at & self.mask
        cdef object item = self.items[place]
        self.left[place] -= 1
        if self.left[place] == 0:
            self.items[place] = None
        return item


cdef class Branch:
    """One of the iterators that `tee` makes.

    Notes
    -----
    Several threads may read the branches of one tee, and one branch too: an item goes to whoever
    asks first. While one thread waits for the source, others that need a new item wait for it.

    Examples
    --------
    >>> from rustllm import stream
    >>> one, other = stream.tee("ab")
    >>> next(one), next(one), next(other)
    ('a', 'b', 'a')
    """

    cdef Shared shared
    cdef Py_ssize_t index

    def __init__(self):
        raise TypeError("branches are made by rustllm.stream.tee")

    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __iter__(self):
        return self

    def __next__(self):
        cdef Shared shared = self.shared
        cdef uint64_t at
        cdef int found
        if shared is None:
            raise StopIteration
        while True:
            at = shared.positions[self.index]
            if not shared.is_open[self.index]:
                raise StopIteration
            if at < shared.head:
                shared.positions[self.index] = at + 1
                return shared.take(at)
            found = shared.read()
            if found == 1:
                raise StopIteration

    def close(self):
        """End the branch: it holds nothing back any more."""
        cdef Shared shared = self.shared
        cdef uint64_t at
        if shared is None or not shared.is_open[self.index]:
            return
        shared.is_open[self.index] = 0
        shared.n_open -= 1
        # Letting an item go may run any code; what is left to do is in our own position.
        while shared.positions[self.index] < shared.head:
            at = shared.positions[self.index]
            shared.positions[self.index] = at + 1
            shared.take(at)

    def __del__(self):
        self.close()


def branches(source, Py_ssize_t n, uint64_t lag):
    """Return `n` branches of `source`; it must hold that 0 <= `n` < 2**31 and `lag` > 0."""
    cdef Shared shared = Shared(source, n, lag)
    cdef Branch branch
    cdef list made = []
    for i in range(n):
        branch = Branch.__new__(Branch)
        branch.shared = shared
        branch.index = i
        made.append(branch)
    return tuple(made)

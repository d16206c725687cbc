# The one thread pool: a team of threads that runs one function together.

ctypedef void (*team_fn)(void* context, int thread, int n_threads) noexcept nogil

# Run `fn` on up to `n_threads` threads, the caller being thread 0; returns how many ran. Where the
# pool is busy with another caller, or threads cannot be started, fewer run, down to one.
cdef int run_team(team_fn fn, void* context, int n_threads) noexcept nogil

# Wait until all `n_threads` of the running team are here. Only inside `fn`.
cdef void team_barrier(int n_threads) noexcept nogil

cdef int default_threads() except -1

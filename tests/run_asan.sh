#!/bin/sh
# Build a copy of the tree with the address and undefined-behaviour sanitizers and run tests on it.
#
#     tests/run_asan.sh                            # the foundation: memory to plugins
#     tests/run_asan.sh tests/unit/loaders -x      # any others: the arguments are pytest's
#
# The working tree is left alone. PYTHON names the interpreter, RUSTLLM_ASAN_DIR a folder to build in
# and keep (by default a new one under TMPDIR, removed at the end). Arenas and pools poison what they
# have taken back, so that a stale pointer into live memory is found too. Python itself leaks by
# design at exit, so leaks are looked for by the tests (heap_stats), not by the sanitizer.
set -eu
profile=asan
kept=${RUSTLLM_ASAN_DIR:-}
. "$(dirname "$0")/checked_copy.sh"

if [ $# -eq 0 ]; then
    set -- tests/unit/memory tests/unit/test_errors.py tests/unit/test_error_context.py
    set -- "$@" tests/unit/plugins tests/unit/iterators tests/unit/stream
    set -- "$@" tests/unit/test_parallel.py tests/unit/serialize tests/property/test_*_model.py
fi
# A preloaded shell would be checked as well, so the variables are set for Python alone.
env LD_PRELOAD="$(${CC:-gcc} -print-file-name=libasan.so)" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1 \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    PYTHONMALLOC=malloc RUSTLLM_SHARED="${RUSTLLM_SHARED:-$root/../shared}" \
    "$python" -m pytest -q -p no:cacheprovider "$@"

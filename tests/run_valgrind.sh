#!/bin/sh
# Build a copy of the tree with assertions and valgrind's client requests and run tests under memcheck.
#
#     tests/run_valgrind.sh                                  # arenas, pools and slices
#     tests/run_valgrind.sh tests/unit/plugins/test_hooks.py # any others: the arguments are pytest's
#
# It sees what the address sanitizer does not: bytes that are used before they are written. It is some
# fifty times slower, so give it few tests. Needs valgrind and its headers. The working tree is left
# alone; PYTHON names the interpreter, RUSTLLM_VALGRIND_DIR a folder to build in and keep.
set -eu
profile=debug
kept=${RUSTLLM_VALGRIND_DIR:-}
. "$(dirname "$0")/checked_copy.sh"

if [ $# -eq 0 ]; then
    set -- tests/unit/memory/test_arena.py tests/unit/memory/test_pool.py tests/unit/memory/test_view.py
    set -- "$@" -k "not eight_threads and not every_request and not interrupted"
fi
# Errors inside the interpreter or numpy are theirs; a test fails when a frame of ours is in one.
PYTHONMALLOC=malloc RUSTLLM_SHARED="${RUSTLLM_SHARED:-$root/../shared}" valgrind --quiet \
    --trace-children=no --error-limit=no --log-file="$copy/memcheck.log" --num-callers=20 \
    "$python" -m pytest -q -p no:cacheprovider "$@"
if grep -B12 -A12 "rustllm/_core/" "$copy/memcheck.log"; then
    echo "memcheck found fault with a module of rustllm" >&2
    exit 1
fi
echo "memcheck found no fault with a module of rustllm"

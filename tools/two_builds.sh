#!/usr/bin/env bash
# Build one commit twice, in two places under different circumstances, and compare the bytes.
#
#   tools/two_builds.sh [COMMIT]
#
# Makes a source distribution and a wheel of COMMIT (default: HEAD) in two new folders whose paths,
# umask, time zone, hash seed and order of compiling differ, with SOURCE_DATE_EPOCH set to the time of
# the commit, prints the sums and fails where they differ. The switches of docs/building.md hold:
# RUSTLLM_BUILD=debug takes a fraction of the time of a release. Needs Cython, numpy, setuptools and
# a compiler for the interpreter in PYTHON (default: python3).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
commit=$(git rev-parse --verify "${1:-HEAD}^{commit}")
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$commit")
export SOURCE_DATE_EPOCH

# build FOLDER UMASK: both distributions, in FOLDER/dist
build() (
  umask "$2"
  mkdir -p "$1"
  git archive "$commit" | tar xf - -C "$1" -m --no-same-permissions
  cd "$1"
  "$python" -c 'import setuptools.build_meta as b; b.build_sdist("dist"); b.build_wheel("dist")' \
    >build.log 2>&1 || { tail -n 30 build.log >&2; exit 1; }
)

TZ=UTC PYTHONHASHSEED=1 build "$work/one" 022
TZ=Asia/Tokyo PYTHONHASHSEED=2 RUSTLLM_BUILD_JOBS=1 build "$work/another/much longer path" 077

(cd "$work/one/dist" && sha256sum ./*) | tee "$work/sums"
(cd "$work/another/much longer path/dist" && sha256sum -c --quiet "$work/sums")
echo "both builds of ${commit:0:12} are the same, byte for byte"

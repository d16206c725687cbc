#!/usr/bin/env bash
# Compile for aarch64 on another machine and run the tests of the compiled modules under emulation.
#
#   tools/aarch64.sh [FOLDER] [PYTEST ARGUMENTS]
#
# FOLDER (default: build/aarch64) keeps the target's Python and the build for the next time. Needs a
# Debian or Ubuntu with the packages gcc-aarch64-linux-gnu and qemu-user, the arm64 architecture added
# (dpkg --add-architecture arm64 && apt-get update), and Cython, numpy and setuptools in the
# interpreter that runs setup.py. Emulated code is slow: tests that start other processes, or need
# other people's compiled packages, are left out.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mkdir -p "${1:-$root/build/aarch64}" && cd "${1:-$root/build/aarch64}" && pwd)
shift || true
sysroot=$folder/sysroot
python=${PYTHON:-python3}
version=3.11

for tool in aarch64-linux-gnu-gcc qemu-aarch64 apt-get dpkg; do
  command -v "$tool" >/dev/null || { echo "aarch64.sh: $tool is not installed" >&2; exit 2; }
done

if [ ! -x "$sysroot/usr/bin/python$version" ]; then
  echo "== the target's Python"
  mkdir -p "$folder/debs" "$sysroot"
  packages=(python$version-minimal python$version libpython$version-minimal libpython$version-stdlib
    libpython$version-dev libpython$version libc6 libc6-dev libgcc-s1 libstdc++6 zlib1g libexpat1
    libexpat1-dev zlib1g-dev libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libcrypt1
    libncursesw6 libtinfo6 libreadline8)
  (cd "$folder/debs" && apt-get download -q "${packages[@]/%/:arm64}")
  for package in "$folder"/debs/*.deb; do dpkg -x "$package" "$sysroot"; done
  # The loader and the C library lie in /lib, which is a link to usr/lib on a whole system.
  [ -e "$sysroot/lib/ld-linux-aarch64.so.1" ] || cp -a "$sysroot/usr/lib/." "$sysroot/lib/"
fi

site=$folder/site
if [ ! -d "$site/tokenizers" ]; then
  echo "== packages of the target"
  "$python" -m pip install --quiet --target "$site" --only-binary=:all: --python-version $version \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 --platform any \
    numpy pytest hypothesis jinja2 packaging gguf safetensors regex tokenizers tiktoken sentencepiece
fi

echo "== compile"
(
  cd "$root"
  # Of the target only Python's headers are used; the C library's come with the cross compiler.
  mkdir -p "$folder/include/aarch64-linux-gnu"
  ln -sfn "$sysroot/usr/include/aarch64-linux-gnu/python$version" \
    "$folder/include/aarch64-linux-gnu/python$version"
  export CC="aarch64-linux-gnu-gcc -I$sysroot/usr/include/python$version -I$folder/include"
  export LDSHARED="aarch64-linux-gnu-gcc -shared"
  export _PYTHON_HOST_PLATFORM=linux-aarch64
  export SETUPTOOLS_EXT_SUFFIX=.cpython-${version/./}-aarch64-linux-gnu.so
  "$python" setup.py -q build_ext --build-lib "$folder/lib" --build-temp "$folder/temp"
)
# The Python files beside the compiled ones; tests run against this copy.
rm -rf "$folder/tree" && mkdir "$folder/tree"
(cd "$root" && tar cf - --exclude='*.so' --exclude='*.c' --exclude=__pycache__ rustllm tests \
  pyproject.toml README.md examples setup.py docs) | tar xf - -C "$folder/tree"
cp -r "$folder/lib/rustllm" "$folder/tree/"

if [ -d "$root/../shared" ]; then ln -sfn "$(cd "$root/../shared" && pwd -P)" "$folder/shared"; fi

cd "$folder/tree"
export PYTHONPATH=$folder/tree:$site PYTHONDONTWRITEBYTECODE=1

# on CPU LEVEL PYTEST-ARGUMENTS: the tests on a processor for which that level must be the one in use.
on() {
  local cpu=$1 level=$2
  shift 2
  echo "== test on $cpu"
  local emulated=(qemu-aarch64 -cpu "$cpu" -L "$sysroot" "$sysroot/usr/bin/python$version")
  "${emulated[@]}" -c "
import platform, sys, rustllm._core.dispatch as d
print(platform.machine(), 'levels:', *d.available_levels(), '; in use:', d.current_level())
sys.exit(d.current_level() != '$level')"
  "${emulated[@]}" -m pytest -p no:cacheprovider "$@"
}

kernels=(tests/unit/_core/test_linear.py tests/unit/_core/test_attention.py tests/unit/_core/test_sample.py
  tests/unit/ops tests/unit/models/test_transformer.py)
if [ $# -eq 0 ]; then
  set -- "${kernels[@]}" tests/unit/_core tests/unit/memory tests/unit/tokenizers/test_encodings.py \
    tests/unit/tokenizers/test_trainer.py -q
  on max dotprod "$@"
  on cortex-a53 neon "${kernels[@]}" -q # of ARMv8.0: NEON, but no dot products of bytes
else
  on max dotprod "$@"
fi

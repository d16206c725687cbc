#!/usr/bin/env bash
# Compile for Windows on another machine, as setup.py does it there, and run the tests under Wine.
#
#   tools/windows.sh PYTHON [PYTEST ARGUMENTS]
#
# PYTHON is the folder of a 64-bit CPython for Windows: python.exe, python3XX.dll, Lib, Include and
# libs/python3XX.lib, as its installer leaves them. Needs wine, and Cython, numpy, setuptools and
# ziglang in the interpreter that runs setup.py (PYTHON_HERE, default python3). What was built stays
# in build/windows for the next time.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -gt 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
windows=$(cd "$1" && pwd)
shift
folder=$root/build/windows
here=${PYTHON_HERE:-python3}
dll=$(basename "$windows"/python3[0-9]*.dll .dll)
tag=${dll#python}
version=${tag:0:1}.${tag:1}
export WINEPREFIX=${WINEPREFIX:-$folder/wine} WINEDEBUG=${WINEDEBUG:--all}

site=$folder/site-$tag
if [ ! -d "$site/numpy" ]; then
  echo "== packages of the target"
  "$here" -m pip install --quiet --target "$site" --only-binary=:all: --python-version "$version" \
    --platform win_amd64 numpy pytest hypothesis jinja2 packaging colorama
fi

echo "== compile"
(
  cd "$root"
  export CC="$here -m ziglang cc -target x86_64-windows-gnu -I$windows/Include -I$site/numpy/_core/include"
  export _PYTHON_HOST_PLATFORM=win-amd64 SETUPTOOLS_EXT_SUFFIX=.cp$tag-win_amd64.pyd
  "$here" setup.py -q build_ext --build-lib "$folder/lib" --build-temp "$folder/temp" \
    --library-dirs "$windows/libs" --libraries "$dll"
)
# The Python files beside the compiled ones; tests run against this copy.
rm -rf "$folder/tree" && mkdir -p "$folder/tree"
(cd "$root" && tar cf - --exclude='*.so' --exclude='*.c' --exclude=__pycache__ rustllm tests \
  pyproject.toml README.md examples setup.py docs) | tar xf - -C "$folder/tree"
cp -r "$folder/lib/rustllm" "$folder/tree/"
if [ -d "$root/../shared" ]; then ln -sfn "$(cd "$root/../shared" && pwd -P)" "$folder/shared"; fi

cd "$folder/tree"
export PYTHONPATH="Z:${folder//\//\\}\\tree;Z:${site//\//\\}" PYTHONDONTWRITEBYTECODE=1
[ $# -gt 0 ] || set -- tests/unit/_core tests/unit/memory tests/unit/iterators tests/unit/stream \
  tests/unit/plugins tests/unit/loaders tests/unit/tokenizers tests/unit/ops -q
wine "$windows/python.exe" -c "
import platform, rustllm._core.dispatch as d
print(platform.platform(), 'levels:', *d.available_levels(), '; in use:', d.current_level())"
exec wine "$windows/python.exe" -m pytest -p no:cacheprovider "$@"

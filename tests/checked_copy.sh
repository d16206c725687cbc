# Sourced by run_asan.sh and run_valgrind.sh: copies the tree, compiles the copy and goes there.
#
# Takes `profile`, of RUSTLLM_BUILD, and `kept`, a folder to build in and keep, or nothing for one that
# is removed at the end. Gives `root`, `python` and `copy`.
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
if [ -n "$kept" ]; then
    copy=$kept
    mkdir -p "$copy"
else
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
fi

cd "$root"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp -p --parents -t "$copy"
cd "$copy"
RUSTLLM_BUILD=$profile "$python" setup.py -q build_ext --inplace

#!/bin/sh
# embed.sh BUILD: install into a folder, build tests/embed against it by CMake and by pkg-config,
# and run both: two ranks, then one.
set -eu
build=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/usr" >"$work/log"
cmake -S "$here/embed" -B "$work/embed" -DCMAKE_PREFIX_PATH="$work/usr" >>"$work/log" 2>&1 &&
    cmake --build "$work/embed" >>"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
libraries=$(dirname "$(find "$work/usr" -name 'libtwinstream.so')")
export LD_LIBRARY_PATH=$libraries OMP_NUM_THREADS=1
"$here/../launch/mpirun" 2 "$work/embed/embed" --epochs 2 --run "$work/run2" | grep -q '^2 ranks, 4 steps' ||
    { echo "embed: two ranks did not train"; exit 1; }
PKG_CONFIG_PATH=$libraries/pkgconfig
export PKG_CONFIG_PATH
if command -v pkg-config >/dev/null; then
    # the .pc file names the prefix of the build; the test's is elsewhere
    flags=$(pkg-config --define-variable=prefix="$work/usr" --cflags --libs twinstream)
    cc -std=c11 "$here/embed/main.c" -o "$work/by-pkg-config" $flags
    "$work/by-pkg-config" --steps 3 --run "$work/run1" | grep -q '^1 ranks, 3 steps'
fi
[ -s "$work/run2/metrics.jsonl" ] && [ -s "$work/run2/model.safetensors" ]

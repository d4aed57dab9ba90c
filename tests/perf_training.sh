#!/bin/sh
# perf_training.sh BUILD: the benchmarks of training run to their tables, on a small network: perf/sparse,
# perf/unequal --train and, as far as it needs neither long training nor a network lab, perf/family.
perf=$(realpath "$(dirname "$0")/../perf") build=$(realpath "$1")
command -v gnuplot >/dev/null || { echo "gnuplot is missing"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
. "$perf/../tests/expect.sh"
data=synthetic:train=256,test=64,size=8
rows() { grep -Ec '^\| (fp32|topk-1%|ssgd|cocod) \| [0-9]' "$1"; }

expect 2 'no operator topk; there are' "$perf/sparse" $data sparse --build "$build" --operators topk
expect 0 '' "$perf/sparse" $data sparse --build "$build" --model tiny --ranks 2 --epochs 1 --operators topk-1%
[ "$(rows sparse/sparse.md)" = 2 ] && grep -q '</svg>' sparse/sparse.svg && [ -s sparse/sparse.json ] && pass || fail "sparse: its table or picture"
# what is there is not trained again; with another setting it is not what is asked for
expect 0 '' "$perf/sparse" $data sparse --build "$build" --model tiny --ranks 2 --epochs 1 --operators topk-1%
grep -q % out && fail "sparse: trained again"
expect 1 'was made with --epochs 1, not 2' "$perf/sparse" $data sparse --build "$build" --model tiny --ranks 2 --epochs 2 --operators topk-1%
expect 1 'was of 2 ranks, not 3' "$perf/sparse" $data sparse --build "$build" --model tiny --ranks 3 --epochs 1 --operators topk-1%

expect 0 'ssgd       equal        64,64|ssgd       3,1          96,32' "$perf/unequal" unequal --build "$build" --train $data --model tiny \
    --speeds 3,1 --algorithms ssgd --epochs 1
expect 2 'no method ssg; there are' "$perf/family" $data family --build "$build" --methods ssg
mkdir -p family/accuracy family/536mbit && cp -r sparse/fp32 family/accuracy/ssgd
expect 0 'no picture' "$perf/family" $data family --build "$build" --parts table --methods ssgd,cocod
cp -r sparse/fp32 family/536mbit/ssgd
expect 0 '' "$perf/family" $data family --build "$build" --parts table --methods ssgd,cocod
[ "$(rows family/family.md)" = 1 ] && grep -q '</svg>' family/family.svg && pass || fail "family: its table or picture"
verdict

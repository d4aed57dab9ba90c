#!/bin/sh
# perf_echo.sh REGIMES BUILD: the programs of perf/echo and perf_reading, on problems so small that they say nothing.
regimes=$1
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMP_NUM_THREADS=1 TWINSTREAM_BUILD=$2
cd "$dir" || exit 1
. "$here/expect.sh"

# the easy problem's table has its six rows, each with a number of samples and a step size for each K
expect 0 '' "$regimes" synthetic:train=2000,test=4,size=8 --most 3000 --seeds 1 --target 1.15
is "rows of the regimes" "$(grep -Ec '^\| (8|64|1024) (echo|prox) \|( [0-9]+k \|){5} ([0-9.]+(, )?){5} \|$' out)" 6
expect 64 '' "$regimes"

if [ -x "$2/tests/make_pictures" ]; then
    "$2/tests/make_pictures" pictures && "$2/twinstream" pack pictures pictures.records 2>/dev/null
    expect 0 '"size":24,"batch":8,"threads":2,"pictures":24.0' "$2/perf/perf_reading" --device host \
        --data records:pictures.records,size=24 --batch 8 --settle 1 --batches 3
fi
expect 64 'give records:FILE' "$2/perf/perf_reading" --device host --data synthetic:train=64,test=4

command -v python3 >/dev/null || { echo "perf_echo: without python3, half of it"; verdict; exit; }
expect 0 '' "$here/../perf/echo/time_to_accuracy" synthetic:train=256,test=64,size=8 runs --target 5 --echo 1,2,auto --epochs 0.5,1 \
    --speed 2000 -- --model tiny --batch 16 --log-every 4
is "rows of the times" "$(grep -Ec '^\| (1|2|auto) \| 0.05, (0.5|1) \| [0-9.]+ \| [0-9]+ \|' out)" 3
grep -q '"echo": *"2"' runs/echo-2-lr-0.05-epochs-1/run.json && pass || fail "the echo's option"
verdict

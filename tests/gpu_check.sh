#!/bin/sh
# gpu_check.sh BUILD: perf/gpu/check names only programs and options that are there, and without a GPU it
# says so and ends with 77. With a GPU run it itself instead.
build=$1
command -v python3 >/dev/null || { echo "python3 is not there"; exit 77; }
check=$(dirname "$(realpath "$0")")/../perf/gpu/check
command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1 && { echo "there is a GPU here: run perf/gpu/check"; exit 77; }
failed=0
plan=$("$check" --build "$build" --dry-run) || exit 1
[ "$(echo "$plan" | wc -l)" -ge 20 ] || { echo "too few steps: $plan"; failed=1; }
for program in $(echo "$plan" | grep -o "$build/[^ ]*"); do
    [ -x "$program" ] || [ "$program" = "$build" ] || { echo "FAILED: $program is not there"; failed=1; }
done
# the options of a training step, on a machine that can only refuse the device
for options in "$(echo "$plan" | sed -n 's/^ring.*twinstream train //p' | sed 's/--run [^ ]*//')" \
    "$(echo "$plan" | sed -n 's/^accuracy.*twinstream train //p' | sed 's/--run [^ ]*//')"; do
    "$build/twinstream" train $options 2>&1 | grep -q 'no CUDA driver\|no GPU' || { echo "FAILED: train $options"; failed=1; }
done
"$build/perf/perf_gpu_overlap" --help >/dev/null || failed=1
"$(dirname "$check")/against_pytorch" --build "$build" --dry-run | grep -q 'pytorch_step.py --device cuda' || failed=1
"$check" --build "$build" "$(mktemp -d)" 2>/dev/null
[ $? -eq 77 ] || { echo "FAILED: without a GPU it must end with 77"; failed=1; }
exit $failed

#!/bin/sh
# program.sh PROGRAM [MAKE_PICTURES]: training on the emulated CUDA device gives the host's losses, with the captured
# step and without, on one rank and on two; a checkpoint resumes bit for bit; two ranks on one GPU
# are refused unless asked for. PROGRAM is twinstream_emulated, MAKE_PICTURES tests/make_pictures.
program=$1
make_pictures=${2-}
here=$(dirname "$(realpath "$0")")
mpirun=$here/../../launch/mpirun
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0
unset TWINSTREAM_TEST_DEVICE TWINSTREAM_HOST_MEMORY

problem() {
    echo "FAILED: $*"
    [ -z "${log-}" ] || tail -n 20 "$log"
    failed=1
}

# train NAME RANKS OPTION...
train() {
    log=$dir/$1.log
    run=$dir/$1 ranks=$2
    shift 2
    timeout -k 5 120 "$mpirun" "$ranks" "$program" train --model tiny --data synthetic:train=256,test=64 --batch 16 --steps 12 \
        --log-every 1 --learning-rate 0.05 --algorithm cocod --period 3 --run "$run" "$@" >"$log" 2>&1
}

losses() {
    sed -n '/"kind":"window"/s/.*"loss":\([^,}]*\).*/\1/p' "$dir/$1/metrics.jsonl"
}

# near A B TOLERANCE: the losses of two runs
near() {
    losses "$1" >"$dir/a"
    losses "$2" >"$dir/b"
    paste "$dir/a" "$dir/b" | awk -v most="$3" '
        { d = $1 - $2; if (d < 0) d = -d; if (d > most) { print "window " NR ": " $1 " and " $2; bad = 1 } }
        END { exit bad || NR != 12 }' || problem "the losses of $1 and $2 differ by more than $3"
}

for type in fp32 bf16; do
    for ranks in 1 2; do
        train host-$type-$ranks $ranks --device host --ops reference --type $type || problem "host, $type, $ranks ranks"
        train cuda-$type-$ranks $ranks --device cuda --type $type || problem "cuda, $type, $ranks ranks"
        near host-$type-$ranks cuda-$type-$ranks "$([ $type = fp32 ] && echo 0.0001 || echo 0.02)"
    done
done
grep -q 'communicator staged' "$dir/cuda-fp32-2.log" || problem "two ranks without MPI's ring through pinned memory"
train eager 1 --device cuda --type fp32 --graphs no || problem "without a captured step"
near cuda-fp32-1 eager 0

# a run of 6 steps has a checkpoint of step 3; what follows from there is what follows in a whole run
constant="--schedule constant --checkpoint-every 0.375"
train half 2 --device cuda --type bf16 --steps 6 $constant || problem "half of a run"
train whole 2 --device cuda --type bf16 --timeline $constant || problem "a whole run"
train again 2 --device cuda --type bf16 --resume "$dir/half" $constant || problem "a resumed run"
[ "$(losses again | wc -l)" = 9 ] || problem "the resumed run did not begin after step 3"
[ "$(losses whole | tail -n 9)" = "$(losses again)" ] || problem "the resumed run has other losses"
for span in forward comm; do
    grep -Eq "\"name\": ?\"$span\"" "$dir/whole/timeline.json" || problem "the timeline has no $span"
done

# algorithms whose update reads and writes vectors of their own, in a captured step
for options in "od --synchronous-steps 3" "overlap-local --period 2 --post-local 0.5" \
    "cocod --period 3 --fragments 2 --slow-momentum 0.5"; do
    name=${options%% *}
    train host-$name 2 --device host --ops reference --type fp32 --algorithm $options || problem "host, $options"
    train cuda-$name 2 --device cuda --type fp32 --algorithm $options || problem "cuda, $options"
    near host-$name cuda-$name 0.0005 # momentum of the outer model adds to what rounding does
done

# compressed exchanges; a decision that falls the other way moves a loss a little
for options in "ssgd --compress topk --density 0.1" "ssgd --compress dgc --density 0.1 --density-warmup 0" \
    "cocod --period 2 --compress qsgd" "cocod --period 2 --compress bf16"; do
    name=$(echo "$options" | tr -d ' -')
    train host-$name 2 --device host --ops reference --type fp32 --algorithm $options || problem "host, $options"
    train cuda-$name 2 --device cuda --type fp32 --algorithm $options || problem "cuda, $options"
    near host-$name cuda-$name 0.02
done
# rank 1's few pictures are soon done: it repeats them, by a captured step, while its average is late
train late 2 --device cuda --type fp32 --period 1 --shares 15,1 --echo auto --log-every 12 || problem "an echo while averages are late"
grep -q '"echo_steps": [1-9]' "$dir/late/run.json" || problem "no step was made while an average was late"
grep -q '"compute_s":-' "$dir/late/metrics.jsonl" && problem "a step's time is less than its waits"
# echoed and staged batches: the host's losses; a fixed echo's resume is bit for bit
train host-echo 2 --device host --ops reference --type fp32 --echo 2.5
train cuda-echo 2 --device cuda --type fp32 --echo 2.5 --input-rate 1e9 || problem "an echo behind a gate"
near host-echo cuda-echo 0.0001
if [ -n "$make_pictures" ]; then
    "$make_pictures" "$dir/pictures" && "$program" pack "$dir/pictures" "$dir/packed" 2>/dev/null || problem "pack"
    records="--data records:$dir/packed,size=32 --batch 8 --type fp32 --echo 1.5 $constant"
    train host-records 2 --device host --ops reference $records || problem "records on the host device"
    train cuda-records 2 --device cuda $records || problem "records"
    near host-records cuda-records 0.0001
    train half-records 2 --device cuda $records --steps 6 --checkpoint-every 0.5 || problem "half of a run on records"
    train more-records 2 --device cuda $records --resume "$dir/half-records" || problem "a resumed run on records"
    # of 4.5 steps an epoch the half's checkpoint is that of step 5
    [ "$(losses more-records | wc -l)" = 7 ] || problem "the run resumed on records did not begin after step 5"
    [ "$(losses cuda-records | tail -n 7)" = "$(losses more-records)" ] || problem "records: other losses"
    train auto-records 1 --device cuda $records --echo auto --input-rate 500 || problem "an automatic echo"
fi

# one GPU for both
export TWINSTREAM_EMULATED_GPU=7
train one 2 --device cuda && problem "two ranks on one GPU were taken"
grep -q 'ranks 0 and 1 of host .* have the same GPU 0' "$log" || problem "no word about the one GPU"
TWINSTREAM_SHARE_GPU=1 train shared 2 --device cuda || problem "two ranks that may share a GPU"
exit $failed

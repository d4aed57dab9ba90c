#!/bin/bash
# slurm.sh PROGRAM: the job scripts and the doctor on a real SLURM of 4 nodes x 4 pretend GPUs
# (slurmlab): 16 ranks stopped by their time limit go on where they were, a sweep is resubmitted, and
# the doctor names what is wrong in one line. PROGRAM's folder is the build's.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$here/..
TWINSTREAM_BUILD=$(dirname "$1") NETLAB=sj$$
export TWINSTREAM_BUILD NETLAB
# many ranks on few cores; Open MPI 4 under a loaded machine now and then fails to open its shared memory
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl=tcp,self
work=$(mktemp -d)
failed=0
"$here/slurmlab" up 4 4 || exit $?
trap '"$here/slurmlab" down 4; rm -rf "$work"' EXIT
cd "$top" || exit 1
on_login() { timeout 240 "$here/slurmlab" run "$@"; }
fail() {
    failed=$((failed + 1))
    echo "FAILED: $1"
    sed 's/^/  | /' "$2" | tail -n 30
}
# has FILE WHAT PATTERN...: lines of FILE match every PATTERN
has() {
    local file=$1 what=$2 pattern
    shift 2
    for pattern in "$@"; do grep -qE -- "$pattern" "$file" || { fail "$what: no [$pattern]" "$file"; return 1; }; done
    echo "passed: $what"
}
# doctor FILE NODES [VARIABLE=VALUE ...]: in an allocation of that many nodes
doctor() {
    local file=$1 nodes=$2
    shift 2
    on_login env "$@" salloc -Q -N "$nodes" --ntasks-per-node=4 launch/doctor >"$file" 2>&1
}

# ---- the doctor ----
ln -s "$TWINSTREAM_BUILD" "$work/a build"
doctor "$work/d" 4 TWINSTREAM_BUILD="$work/a build" || fail "the doctor on a sound cluster" "$work/d"
has "$work/d" "doctor: PMIx" '^SLURM +ok .*with PMIx' '^network +ok +eth0 ' '^start +ok +pmix: 4 MB' '^(GPU +none .*(driver|without CUDA)|GPU +ok)'
for node in 1 2 3 4; do # a second network, which joins nobody
    ip -n "$NETLAB-$node" link add aside type bridge
    ip -n "$NETLAB-$node" address add "10.99.0.$node/24" dev aside
    ip -n "$NETLAB-$node" link set aside up
done
doctor "$work/d" 2 TWINSTREAM_INTERFACE=aside && fail "the doctor on an interface that joins nobody" "$work/d"
has "$work/d" "doctor: interface" '^network +BAD +aside .*eth0 does: unset TWINSTREAM_INTERFACE'
doctor "$work/d" 2 TWINSTREAM_INTERFACE=none9 && fail "the doctor on an interface that is not there" "$work/d"
has "$work/d" "doctor: no such interface" '^network +BAD .*no interface none9.*eth0'
# /dev/shm is each node's own: the second node gets another build, the login node the first
there=/dev/shm/build-$NETLAB
mkdir "$there" && cp "$1" "$there/"
on_login srun -N 4 --ntasks-per-node=1 --mpi=none sh -c \
    "mkdir $there && cp '$1' $there/ && case \$(hostname) in *-2) echo >>$there/twinstream ;; esac" >/dev/null 2>&1
doctor "$work/d" 2 TWINSTREAM_BUILD="$there" && fail "the doctor on two builds" "$work/d"
has "$work/d" "doctor: two builds" "^program +BAD +$NETLAB-2 has .*$NETLAB-1 has .*one build on every node"
rm -rf "$there"

# ---- 16 ranks, stopped by the time limit half way ----
options="--model tiny --data synthetic:train=2048,test=64,size=8 --batch 4 --steps 300 --log-every 10
    --evaluate-every 4 --algorithm cocod --period 3 --export no"
# shellcheck disable=SC2086
on_login env RUN="$work/limited" sbatch --wait --output="$work/limited.log" --time=1 --signal=B:USR1@50 \
    launch/slurm/train.sbatch $options --pace 0.16 >"$work/sbatch" 2>&1 || fail "the job with a time limit" "$work/limited.log"
# shellcheck disable=SC2086
on_login env RUN="$work/whole" sbatch --wait --output="$work/whole.log" \
    launch/slurm/train.sbatch $options >"$work/sbatch" 2>&1 || fail "the job without a limit" "$work/whole.log"
has "$work/limited.log" "requeued" 'stopped after local step' 'requeued' 'resuming .* after local step' 'done: test accuracy' '16 ranks'
has "$work/limited/doctor.txt" "what the job ran on" '^start +ok' 'NumNodes=4' 'Model name'
curve() { sed 's/,"images_per_second".*//; s/,"seconds".*//' "$1/metrics.jsonl"; }
curve "$work/whole" >"$work/whole.curve"
curve "$work/limited" >"$work/limited.curve"
if [ "$(wc -l <"$work/whole.curve")" -ge 30 ] && cmp -s "$work/whole.curve" "$work/limited.curve"; then
    echo "passed: the same curve, $(wc -l <"$work/whole.curve") lines"
else
    diff "$work/whole.curve" "$work/limited.curve" >"$work/d"
    fail "the interrupted run has another curve" "$work/d"
fi

# ---- cancelled: saved and over; submitted again it goes on ----
# shellcheck disable=SC2086
job=$(on_login env RUN="$work/cancelled" sbatch --parsable --output="$work/cancelled.log" \
    launch/slurm/train.sbatch $options --pace 0.04)
for _ in $(seq 100); do grep -qs 'step 20/' "$work/cancelled.log" && break || sleep .2; done
on_login scancel "$job"
for _ in $(seq 100); do
    on_login scontrol show job "$job" >"$work/state"
    grep -q 'JobState=CANCELLED' "$work/state" || grep -q 'resuming' "$work/cancelled.log" && break || sleep .3
done
has "$work/state" "a cancelled job is over" 'JobState=CANCELLED' 'Restarts=0'
has "$work/cancelled.log" "a cancelled job says how to go on" 'stopped after local step' \
    "not requeued: .*To go on, submit it again .*$work/cancelled"
grep -q '; requeued' "$work/cancelled.log" && fail "a cancelled job says that it is requeued" "$work/cancelled.log"
# shellcheck disable=SC2086
on_login env RUN="$work/cancelled" sbatch --wait --output="$work/again.log" \
    launch/slurm/train.sbatch $options >"$work/sbatch" 2>&1 || fail "the cancelled job, submitted again" "$work/again.log"
curve "$work/cancelled" >"$work/cancelled.curve"
cmp -s "$work/whole.curve" "$work/cancelled.curve" || fail "the cancelled run has another curve" "$work/cancelled.curve"

# ---- a sweep, submitted twice ----
sweep() {
    on_login env OUT="$work/sweep" SWEEP="--models tiny --ranks 1,4 --periods 2" SBATCH_OPTIONS="--wait --nodes=1" \
        launch/slurm/speedup.sbatch --data synthetic:train=512,test=64,size=8 --batch 8 --steps 20 --log-every 5 \
        --evaluate-every 0 --export no --pace 0.02 >"$work/sbatch" 2>&1
    cat "$work"/sweep/job-*.log >"$work/sweep.log"
}
sweep || fail "the sweep" "$work/sweep.log"
if command -v gnuplot >/dev/null && command -v python3 >/dev/null; then
    has "$work/sweep/report.html" "the sweep's report" 'Time speedup' 'CoCoD-SGD' '6 runs'
fi
rm -f "$work"/sweep/job-*.log "$work/sweep/tiny-cocod-k2-n4/run.json"
sweep || fail "the sweep again" "$work/sweep.log"
has "$work/sweep.log" "what is finished is skipped" 'tiny-ssgd-n4 is finished: skipped' 'resuming|done: test'
[ "$(grep -c skipped "$work/sweep.log")" -eq 5 ] || fail "5 of 6 runs should be skipped" "$work/sweep.log"

# ---- a cluster without PMIx; told to stop by a preemption ----
"$here/slurmlab" down 4
SLURMLAB_PMIX=no "$here/slurmlab" up 4 4 || exit $?
doctor "$work/d" 2 || fail "the doctor without PMIx" "$work/d"
has "$work/d" "doctor: no PMIx" '^SLURM +ok .*without PMIx' '^start +ok +mpirun: 4 MB'
# shellcheck disable=SC2086
job=$(on_login env RUN="$work/preempted" sbatch --parsable --output="$work/preempted.log" \
    launch/slurm/train.sbatch $options --pace 0.04)
for _ in $(seq 100); do grep -qs 'step 20/' "$work/preempted.log" && break || sleep .2; done
on_login scancel --batch --signal=TERM "$job"
for _ in $(seq 200); do grep -qs '^done' "$work/preempted.log" && break || sleep .3; done
has "$work/preempted.log" "preempted, by mpirun" 'start +ok +mpirun' 'requeued' 'resuming' 'done: test accuracy'
curve "$work/preempted" >"$work/preempted.curve"
cmp -s "$work/whole.curve" "$work/preempted.curve" || fail "the preempted run has another curve" "$work/preempted.curve"
[ $failed -eq 0 ]

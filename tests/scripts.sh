#!/bin/bash
# scripts.sh PROGRAM: what the scripts around the program do that needs neither a cluster nor root nor the
# network: the job scripts' options, with a srun that starts one rank here.
set -u
program=$1
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export OMP_NUM_THREADS=1
. "$top/tests/expect.sh"
stub() { # stub NAME: an executable bin/NAME of the lines on stdin
    mkdir -p bin
    { echo '#!/bin/sh' && cat; } >"bin/$1"
    chmod +x "bin/$1"
}

# ---- a job's run: saved after each epoch, unless told otherwise ----
stub scontrol <<'EOF'
echo "TaskPlugin = task/affinity"
EOF
stub srun <<'EOF'
while case $1 in --*) ;; *) false ;; esac; do shift; done
exec "$@"
EOF
job() { # job RUN [--option value ...]
    env PATH="$work/bin:$PATH" SLURM_JOB_ID=7 SLURM_CPUS_PER_TASK=3 TWINSTREAM_START=pmix \
        TWINSTREAM_BUILD="$(dirname "$program")" bash -c '. "$0" && job_train 1 "$@"' "$top/launch/slurm/job.sh" \
        "$@" --model tiny --data synthetic:train=64,test=16,size=8 --batch 16 --export no
}
of() { sed -n "s/^$2 = //p" "$1/config"; }
expect 0 'saved|done' job run1 --epochs 2
is "epochs between checkpoints" "$(of run1 checkpoint-every)" 1
expect 0 'done' job run2 --epochs 2 --checkpoint-every 0.5 --loader-threads 2
is "epochs between checkpoints, as an option" "$(of run2 checkpoint-every)" 0.5
is "loader threads, as an option" "$(of run2 loader-threads)" 2
TWINSTREAM_CHECKPOINT_EVERY=0 TWINSTREAM_LOADER_THREADS=1 expect 0 'done' job run3 --epochs 2
is "epochs between checkpoints, in the environment" "$(of run3 checkpoint-every)" 0
is "loader threads, in the environment" "$(of run3 loader-threads)" 1
# ---- saved before its end: back into the queue, unless SLURM is ending the job; of an array, this element alone ----
stub srun <<'EOF'
exit 75
EOF
stub scontrol <<'EOF'
echo "$*" >>asked
case $1 in show) echo "JobState=${STATE:-RUNNING}" ;; requeue) [ -z "${DISABLED:-}" ] || { echo "disabled" && exit 1; } ;; esac
EOF
expect 75 'job 7: saved before its end; requeued' job run4
is "what is requeued" "$(tail -n 1 asked)" "requeue Incomplete 7"
SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=3 expect 75 'job 7_3: saved before its end; requeued' job run4
is "which element is requeued" "$(tail -n 1 asked)" "requeue Incomplete 7_3"
STATE=COMPLETING expect 75 'not requeued: SLURM has ended it|submit it again with the same options|run4' job run4
DISABLED=yes expect 75 'not requeued: disabled|submit it again' job run4

# ---- a run that is finished: skipped when it is the one that is asked for ----
expect 0 'run2 is finished: skipped' job run2 --epochs=2.0 --checkpoint-every 7 --checkpoint-every 5e-1 --seed 1 \
    --no-timeline --shuffle --flip on --loader-threads auto --config unused
expect 64 'run2 is finished, with --epochs 2, not 10|another folder' job run2 --epochs 10
expect 64 'run2 is finished, with --timeline no, not yes' job run2 --epochs 2 --timeline
OUT=sweep SWEEP="--models tiny --ranks 1 --periods 2"
export OUT SWEEP
mkdir -p tree/launch/slurm sweep && cp "$top"/launch/sweep tree/launch && cp "$top"/launch/slurm/* tree/launch/slurm
mv run1 sweep/tiny-alone-n1 && mv sweep tree
sed -i 's/^algorithm = .*/algorithm = ssgd/' tree/sweep/tiny-alone-n1/config
stub sbatch <<'EOF'
echo "submitted $*"
EOF
expect 0 'submitted --array=0-0' env PATH="$work/bin:$PATH" tree/launch/slurm/speedup.sbatch --epochs 2
expect 64 'sweep/tiny-alone-n1 is finished, with --epochs 2, not 10' env PATH="$work/bin:$PATH" tree/launch/slurm/speedup.sbatch --epochs 10
# ---- first contact: help does nothing, what is missing is named ----
for script in quickstart build setup get-data sweep mpirun doctor slurm/speedup.sbatch; do
    expect 0 "launch/$script" "$top/launch/$script" --help
done
expect 64 'launch/build FOLDER' "$top/launch/build"
expect 64 'launch/setup KIND' "$top/launch/setup"
expect 64 'launch/setup KIND' "$top/launch/setup" bild
expect 64 'launch/get-data FOLDER' "$top/launch/get-data"
for option in --models --ranks --periods --algorithms; do
    expect 64 "$option needs a list" "$top/launch/sweep" $option
done
expect 64 '[--models LIST]' "$top/launch/sweep" --model
for option in --hosts --nodes; do expect 64 "$option needs a value" "$top/launch/mpirun" $option; done
expect 64 'how many ranks of which program' "$top/launch/mpirun" 2
mkdir bare
for tool in sh dirname grep sed tail; do ln -s "$(command -v $tool)" bare/; done
expect 70 'no cmake here: launch/setup build|no ninja here|no cc here' env -u CC PATH="$work/bare" "$top/launch/build" "$work/never"
# ---- perf/gpu/pack leaves its file where it was asked for ----
mkdir -p tree/perf/gpu && cp "$top/perf/gpu/pack" tree/perf/gpu
cat >tree/launch/build <<'EOF'
#!/bin/sh
mkdir -p "$1/perf" "$1/tests" && cd "$1" && cp /bin/true twinstream && cp twinstream perf/perf_allreduce
for name in perf/perf_gpu_bench $(sed -n '/^for test/,/do$/p' "$OLDPWD/tree/perf/gpu/pack" | grep -o '\(contract\|test\)_[a-z_]*' |
    sed 's,^,tests/,'); do cp twinstream "$name"; done
EOF
chmod +x tree/launch/build
expect 0 "$work/packed.tar.gz" tree/perf/gpu/pack packed.tar.gz
expect 0 'build-gpu/twinstream|build-gpu/tests/test_golden' tar -tzf packed.tar.gz
verdict

# shellcheck shell=bash
# launch/slurm/job.sh - what the job scripts share: bash functions, sourced inside a SLURM job that was
# submitted from the checkout's folder.

# Enter the checkout and find out how ranks start here; the findings go to FILE too. Ends the job when
# nothing works.
job_begin() { # FILE
    cd "${SLURM_SUBMIT_DIR:?this is a job script: sbatch $0}" || exit 70
    if [ ! -x launch/doctor ]; then
        echo "$SLURM_SUBMIT_DIR has no launch/doctor: submit the job from the checkout's folder" >&2
        exit 70
    fi
    job_folder=$(dirname "$1")
    mkdir -p "$job_folder"
    local found
    found=$(launch/doctor --shell 2> >(tee "$1" >&2)) || exit $?
    eval "$found"
    {
        scontrol show job "$SLURM_JOB_ID"
        lscpu | grep -E '^(Model name|Socket|Core|CPU\(s\)|NUMA node)'
        ! command -v nvidia-smi >/dev/null || nvidia-smi topo -m
    } >>"$1" 2>&1
    export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
}

job_is_finished() { # RUN
    grep -qs '"state": "finished"' "$1/run.json"
}

# A finished run is the one that is asked for, or this fails: each option of the command line is as in its config.
# An auto, which the config holds as the number that was found, fits any.
job_check_same() { # RUN [--option value ...]
    local run=$1 key value had
    local -A given=()
    shift
    while [ $# -gt 0 ]; do # as `twinstream train` reads them: the last of a key counts
        key=${1#--} value=yes
        case $key in
        *=*) value=${key#*=} key=${key%%=*} ;;
        no-*) key=${key#no-} value=no ;;
        *) [[ ${2---} = --* ]] || { value=$2 && shift; } ;;
        esac
        shift
        given[$key]=$value
    done
    for key in "${!given[@]}"; do
        value=${given[$key]}
        had=$(grep -s "^$key = " "$run/config") || continue
        had=${had#"$key = "}
        case $had:$value in *:auto | yes:on | yes:true | yes:1 | no:off | no:false | no:0) continue ;; esac
        # numbers are equal however they are written
        awk -v a="$had" -v b="$value" 'BEGIN { exit a != b }' && continue
        echo "$run is finished, with --$key $had, not $value: give that, or another folder (RUN, or OUT of a" \
            "sweep), or remove it" >&2
        return 64
    done
}

# Start ranks on as few nodes as hold them, the ranks of a node neighbours in the ring.
job_start() { # RANKS COMMAND ...
    local ranks=$1 per_node=${SLURM_NTASKS_PER_NODE:-1} nodes bind=()
    shift
    nodes=$(((ranks + per_node - 1) / per_node))
    case $TWINSTREAM_START in
    pmix | tcp)
        local mpi=pmix
        # each rank on cores of its own, where SLURM's plug-ins can bind
        if scontrol show config | grep -q '^TaskPlugin.*\(affinity\|cgroup\)'; then
            bind=(--cpu-bind=cores)
        fi
        if [ "$TWINSTREAM_START" = tcp ]; then
            mpi=none
            export TWINSTREAM_RENDEZVOUS=$TWINSTREAM_ADDRESS:$((10000 + (SLURM_JOB_ID * 7 + RANDOM) % 20000))
        fi
        exec srun --mpi=$mpi --kill-on-bad-exit=0 --nodes="$nodes" --ntasks="$ranks" --distribution=block \
            --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${bind[@]}" "$@"
        ;;
    mpirun)
        scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n "$nodes" | sed "s/\$/ slots=$per_node/" >"$job_folder/hosts"
        exec launch/mpirun --hosts "$job_folder/hosts" "$ranks" "$@"
        ;;
    esac
}

# Back into the queue; says so, or why not and what to do. A job that SLURM is ending already stays ended: plain
# `scontrol requeue` would bring back what was cancelled, and with Incomplete it tells of no failure then.
job_requeue() { # WHAT RUN
    local why="SLURM has ended it (scancel, time limit), or puts it back itself (preemption, lost node)"
    # the id of an array's last element stands for the whole array too
    local job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    job=${job:-$SLURM_JOB_ID}
    trap '' TERM # which the requeue sends, maybe before the words are out
    if scontrol show job "$job" | grep -q 'JobState=RUNNING' &&
        why=$(scontrol requeue Incomplete "$job" 2>&1); then
        echo "job $job: $1; requeued"
        return 0
    fi
    echo "job $job: $1; not requeued: $why. To go on, submit it again with the same options" \
        "and the run's folder, $2 (RUN, or OUT of a sweep)"
    return 1
}

# Train, or go on training; a run that is finished, with these options, is left alone. Told to stop (USR1
# before the time limit, TERM at a preemption) the ranks finish their step, save and end with 75: the job
# then goes back into the queue and takes the run up where it was. So it does after a fault (a lost node, a rank
# that died), from the last checkpoint, JOB_RETRIES times at most; a wrong option or file ends it. A
# checkpoint is made each epoch unless an option or TWINSTREAM_CHECKPOINT_EVERY says otherwise.
job_train() { # RANKS RUN [--option value ...]
    local ranks=$1 run=$2 child code retries=${JOB_RETRIES:-2}
    shift 2
    if job_is_finished "$run"; then
        job_check_same "$run" "$@" || return
        echo "$run is finished: skipped"
        return 0
    fi
    job_start "$ranks" "${TWINSTREAM_BUILD:-build}/twinstream" train --run "$run" --resume auto \
        --checkpoint-every "${TWINSTREAM_CHECKPOINT_EVERY:-1}" "$@" &
    child=$!
    trap 'kill -USR1 $child 2>/dev/null' USR1 TERM
    while :; do # a trap ends wait, the child goes on
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    trap - USR1 TERM
    case $code in
    0 | 64 | 65) return $code ;;
    75) job_requeue "saved before its end" "$run" ;;
    *)
        local faults
        faults=$(cat "$run/faults" 2>/dev/null || echo 0)
        if [ "$faults" -ge "$retries" ]; then
            echo "job $SLURM_JOB_ID: exit code $code, after $faults retries (JOB_RETRIES)"
            return $code
        fi
        job_requeue "exit code $code, fault $((faults + 1)) ($retries are retried)" "$run" &&
            echo $((faults + 1)) >"$run/faults"
        ;;
    esac
    return $code
}

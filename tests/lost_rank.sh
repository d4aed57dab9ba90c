#!/bin/sh
# lost_rank.sh PROGRAM: a rank of a training job that stops or dies ends the job within seconds, with
# a message that names it and its host, and leaves the last checkpoint whole. PROGRAM is twinstream.
program=$1
here=$(dirname "$(realpath "$0")")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

pid_of_rank() { # of the job in $folder/$1
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/exe")" = "$(realpath "$program")" ] &&
            tr '\0' '\n' <"$process/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$2" &&
            tr '\0' '\n' <"$process/cmdline" | grep -qx "$folder/$1" && echo "${process#/proc/}"
    done
}

# lose SIGNAL CODES COMMUNICATOR: rank 1 of 3 gets the signal once the job has saved a checkpoint
lose() {
    signal=$1 codes=$2 run=$folder/$1.$3 out=$folder/$1.$3.out
    timeout -k 5 110 "$here/../launch/mpirun" 3 "$program" train --model tiny --batch 16 --epochs 100000 \
        --data synthetic:train=256,test=64,size=8 --algorithm cocod --period 3 --evaluate-every 0 \
        --communicator "$3" --checkpoint-every 5 --timeout 3 --run "$run" >"$out" 2>&1 &
    job=$!
    for _ in $(seq 400); do
        grep -q '^saved' "$out" && break
        sleep 0.1
    done
    begin=$(date +%s)
    kill -"$signal" "$(pid_of_rank "$signal.$3" 1)"
    wait $job
    rc=$?
    seconds=$(($(date +%s) - begin))
    problem=
    echo "$rc" | grep -Eqx "$codes" || problem="exit code $rc, not $codes"
    [ "$seconds" -le 20 ] || problem="$problem; took $seconds s"
    grep -aEq 'rank 1 .*(does not answer|exited on)' "$out" || problem="$problem; rank 1 is not named"
    "$program" eval --model tiny --data synthetic:train=256,test=64,size=8 --weights "$(ls -d "$run"/checkpoints/step-???????? | tail -n 1)" >>"$out" 2>&1 ||
        problem="$problem; the checkpoint is not whole"
    if [ -n "$problem" ]; then
        echo "FAILED $signal, $3: $problem"
        cat "$out"
        failed=1
    else
        echo "ok $signal, $3: $seconds s: $(grep -a -m 1 'rank 1 .*\(does not answer\|exited on\)' "$out")"
    fi
}

lose STOP 70 ring
lose STOP 70 mpi # which cannot be freed from outside: the watchdog ends the job
lose KILL '70|137' ring
exit $failed

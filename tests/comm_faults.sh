#!/bin/sh
# comm_faults.sh PROGRAM: a rank that stops or dies in the middle of an all-reduce ends the job
# within seconds, with a message that names it. PROGRAM is comm_faults.
program=$1
here=$(dirname "$(realpath "$0")")
out=$(mktemp)
trap 'rm -f "$out"' EXIT
failed=0

# expect NAME HOW CODE MPIRUN-OPTIONS... : rank 1 of 3 is lost
expect() {
    name=$1 how=$2 code=$3
    shift 3
    begin=$(date +%s)
    timeout -k 5 40 "$here/../launch/mpirun" 3 "$@" "$program" "$how" 1 >"$out" 2>&1
    rc=$?
    seconds=$(($(date +%s) - begin))
    problem=
    echo "$rc" | grep -Eqx "$code" || problem="exit code $rc, not $code"
    [ "$seconds" -le 12 ] || problem="$problem; took $seconds s"
    grep -aEq 'rank 1 .*(does not answer|exited on)' "$out" || problem="$problem; rank 1 is not named"
    # Rank 1 may say what it sees when it runs on; the others must blame it alone.
    if grep -av 'error on rank 1' "$out" | grep -aEq '(rank [02] \(host [^)]*\)(,| does?) |because rank [02] )'; then problem="$problem; a living rank is named"; fi
    if [ -n "$problem" ]; then
        echo "FAILED $name: $problem"
        cat "$out"
        failed=1
    else
        echo "ok $name: $seconds s: $(grep -a -m 1 'rank 1 .*\(does not answer\|exited on\)' "$out")"
    fi
}

expect "a rank that stops" stop 70
# With --enable-recovery Open MPI 4's mpirun ends with 0 whatever its ranks do, Open MPI 5's with
# theirs; comm_faults itself says what it ends with.
expect "a rank that dies, the others run on" kill '0|70' --enable-recovery
grep -aq 'aborts with 70' "$out" || { echo "FAILED: the others did not end with 70"; failed=1; }
# mpirun itself ends with the code of the rank that died: 128 + SIGKILL. Open MPI 5 names that rank
# itself and leaves the others no time to.
expect "a rank that dies, mpirun ends the others" kill 137
exit $failed

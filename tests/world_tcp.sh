#!/bin/sh
# world_tcp.sh PROGRAM: the worlds' contract among processes that find each other by sockets, and
# what they say when a rank is missing, is told another size, or dies. PROGRAM is test_world.
program=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

# start N PLACE [VARIABLE=VALUE]...: ranks 0 to N-1, logs in $dir/log.RANK; fails with any
start() {
    n=$1 TWINSTREAM_SIZE=$1 TWINSTREAM_RENDEZVOUS=$2
    export TWINSTREAM_SIZE TWINSTREAM_RENDEZVOUS
    pids= code=0 rank=0
    while [ $rank -lt "$n" ]; do
        TWINSTREAM_RANK=$rank timeout -k 5 60 "$program" >"$dir/log.$rank" 2>&1 &
        pids="$pids $!"
        rank=$((rank + 1))
    done
    for pid in $pids; do wait "$pid" || code=$?; done
    return $code
}

problem() {
    echo "FAILED $1"
    cat "$dir"/log.*
    failed=1
}

for n in 1 2 3; do
    start $n "file:$dir/place" || problem "$n ranks by a file"
    [ ! -e "$dir/place" ] || problem "the file of $n ranks is left over"
done
port=$((15000 + $$ % 15000)) # below the ports that the system hands out
start 4 "127.0.0.1:$port" || problem "4 ranks by host and port"

start 2 "nowhere" && problem "a place that is none was taken"
grep -q 'it is host:port or file:PATH' "$dir/log.0" || problem "no word about the place"
: >"$dir/old"
start 1 "file:$dir/old" && problem "a file that was there already was taken"
grep -q 'is there already' "$dir/log.0" || problem "no word about the file"

# rank 1 believes that there are three
TWINSTREAM_RENDEZVOUS=file:$dir/place
TWINSTREAM_RANK=0 TWINSTREAM_SIZE=2 timeout -k 5 60 "$program" >"$dir/log.0" 2>&1 &
TWINSTREAM_RANK=1 TWINSTREAM_SIZE=3 timeout -k 5 60 "$program" >"$dir/log.1" 2>&1 && problem "another size was taken"
wait $! && problem "another size was taken by rank 0"
grep -q 'says it is rank 1 of 3; this job has 2 ranks' "$dir/log.0" || problem "no word about the size"
grep -q 'rank 0 .*has gone' "$dir/log.1" || problem "rank 1 does not say that rank 0 has gone"
exit $failed

#!/bin/sh
# netlab_comm.sh PROGRAM: the communicators' contract between two hosts at 1 Gbit/s. PROGRAM is
# contract_comm; its largest all-reduce alone must send 12 MB over each link.
program=$1
lab=$(dirname "$(realpath "$0")")/netlab
NETLAB=ts$$
export NETLAB
"$lab" up 2 || exit $?
trap '"$lab" down 2' EXIT
"$lab" rate 2 1gbit || exit $?
before=$("$lab" bytes 1)
timeout -k 5 100 "$lab" mpirun 2 "$program" || exit 1
sent=$(($("$lab" bytes 1) - before))
echo "host 1 sent $sent bytes over its link"
[ "$sent" -ge 12000000 ]

#!/bin/sh
# hosts.sh PROGRAM: launch/mpirun with a host file: two hosts of two ranks train as four ranks of one
# host do, to the last bit; what is wrong with a host file is said.
program=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
NETLAB=ho$$ OMP_NUM_THREADS=1
export NETLAB OMP_NUM_THREADS
"$here/netlab" up 2 || exit $?
trap '"$here/netlab" down 2; rm -rf "$work"' EXIT
cd "$work" || exit 1
train="--model tiny --data synthetic:train=256,test=64,size=8 --batch 16 --steps 10 --algorithm cocod --period 2"
printf '# two hosts\n10.78.0.1 slots=2\n10.78.0.2 slots=2\n' >'two hosts'
# shellcheck disable=SC2086
timeout 60 "$here/netlab" on 1 "$here/../launch/mpirun" --hosts 'two hosts' 4 "$program" train $train --run "$work/far" >far.log 2>&1 || {
    cat far.log
    exit 1
}
# shellcheck disable=SC2086
timeout 60 "$here/../launch/mpirun" 4 "$program" train $train --run "$work/near" >near.log 2>&1 || {
    cat near.log
    exit 1
}
cmp far/model.safetensors near/model.safetensors || exit 1
[ "$("$here/netlab" bytes 2)" -gt 20000 ] || { echo "nothing crossed the link"; exit 1; }
"$here/../launch/mpirun" --hosts nowhere 2 true 2>why
[ $? -eq 65 ] && grep -q 'no host file nowhere' why

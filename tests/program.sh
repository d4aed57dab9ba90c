#!/bin/sh
# program.sh PROGRAM [MAKE_PICTURES]: what a user meets when something is wrong: the exit code and a message that
# says what, where and what to do; and that nothing is lost.
set -u
program=$1
make_pictures=${2-}
here=$(cd "$(dirname "$0")" && pwd)
mpirun=$here/../launch/mpirun
work=$(mktemp -d)
disk=
trap '[ -z "$disk" ] || umount "$disk"; rm -rf "$work"' EXIT
cd "$work" || exit 1
export OMP_NUM_THREADS=1
data=synthetic:train=256,test=64,size=8
quick="--model tiny --data $data --batch 16 --log-every 2 --evaluate-every 0"

. "$here/expect.sh"

# ---- usage ----
expect 64 'usage: twinstream' "$program"
expect 0 'train|eval|info|plan' "$program" --help
expect 0 'cocod|ssgd, qsgd|400 Gbit/s|Assumed' "$program" plan --step 0.01 --ranks 2,64 --link-gbps 400
expect 0 'of which latency|as tree it would take|when training: NCCL_ALGO=Tree' \
    "$program" plan --step 0.005 --ranks 4096 --per-host 8 --link-gbps 400 --latency-us 10
expect 0 "use ssgd --compress qsgd|use cocod, k 3|its drift hurts accuracy: dasgd, k 3, d 1, --fragments 3 --merge corrected --mix 0|encoded in no time" \
    "$program" plan --step 0.234 --ranks 16 --link-gbps 1
expect 0 'use cocod, k 4096|no period hides it|none hides' "$program" plan --step 0.001 --ranks 16 --link-gbps 0.001
expect 64 'more averages in flight|--period to 7' "$program" plan --step 1 --period 4 --delay 100
expect 64 'period|or auto' "$program" plan --step 1 --period many
expect 0 '"algorithm":"dasgd"|"algorithm":"pipe"|"algorithm":"od"|"algorithm":"overlap-local"' "$program" plan --step 0.01 --json
expect 0 'cocod|8, P 4' "$program" plan --step 0.01 --ranks 16 --period 8 --fragments 4
expect 64 'how long is a local step' "$program" plan
expect 64 'is not a list of sizes' "$program" plan --step 1 --ranks 4,x
expect 0 '--learning-rate|TWINSTREAM_LEARNING_RATE|cocod' "$program" train --help
expect 64 'did you mean "train"' "$program" trian
expect 64 'did you mean "period"' "$program" train --perod 4
expect 64 'did you mean "cocod"' "$program" train --algorithm cocd
expect 64 'no model "resnt18": did you mean "resnet18"' "$program" train --model resnt18
expect 64 'period|within 1' "$program" train $quick --algorithm cocod --period 0
expect 64 'period|within 1' "$program" train $quick --algorithm local --period -3
expect 64 'delay' "$program" train $quick --algorithm dasgd --delay 0
expect 64 'delay' "$program" train $quick --algorithm dasgd --delay -1
expect 64 'period|whole number or auto' "$program" train $quick --algorithm cocod --period atuo
expect 64 'delay|whole number or auto' "$program" train $quick --algorithm dasgd --delay some
expect 64 'mix' "$program" train $quick --algorithm dasgd --mix 1.5
expect 64 'pull' "$program" train $quick --algorithm overlap-local --pull 0
expect 64 'pull' "$program" train $quick --algorithm overlap-local --pull 1
expect 64 'would lose all progress|--merge corrected' "$mpirun" 2 "$program" train $quick --algorithm dasgd --period 2 --delay 4 --mix 0
expect 64 'slow-momentum|within 0' "$program" train $quick --algorithm local --slow-momentum 1
expect 64 'slow-rate' "$program" train $quick --algorithm local --slow-momentum 0.5 --slow-rate 0
expect 64 'did you mean "corrected"' "$program" train $quick --algorithm dasgd --merge correct
expect 64 'fragments|within 1 and 64' "$program" train $quick --algorithm cocod --period 80 --fragments 65
expect 64 '5 fragments do not fit into a period of 4|--fragments' "$program" train $quick --algorithm cocod --period 4 --fragments 5
expect 64 'give --period, as it is found without --fragments' "$program" train $quick --algorithm cocod --period auto --fragments 2
expect 64 'one average in flight at a time, but delay 4 exceeds period 2' "$program" train $quick --algorithm dasgd --period 2 --delay 4 --slow-momentum 0.5
expect 64 'with 3 averages in flight|raise --mix to 0.39' "$program" train $quick --algorithm dasgd --period 2 --delay 6 --merge corrected
expect 64 'synchronous-steps' "$program" train $quick --algorithm pipe --synchronous-steps -1
expect 64 'post-local is for algorithms that average models; od' "$program" train $quick --algorithm od --post-local 0.5
expect 64 'must be a whole number' "$program" train --batch 12x
expect 0 '--pull 0.3 has no effect with --algorithm cocod: it is for overlap-local|--levels 1 has no effect with --compress bf16' \
    "$program" train $quick --steps 1 --algorithm cocod --pull 0.3 --compress bf16 --levels 1
expect 0 '--momentum-policy zero has no effect with --algorithm ssgd: it is for local, cocod, dasgd, overlap-local' \
    "$program" train $quick --steps 1 --algorithm ssgd --momentum-policy zero
expect 0 '' "$program" train $quick --steps 1 --algorithm dasgd --delay 2
grep -q 'has no effect' out && fail "dasgd reads --delay" || pass
expect 64 'TWINSTREAM_BATCH' env TWINSTREAM_BATCH=none "$program" train
expect 64 'batch|256' "$program" train $quick --batch 300
echo "perod = 3" >bad.conf
expect 64 'bad.conf line 1|did you mean "period"' "$program" train --config bad.conf
expect 65 'cannot open missing.conf' "$program" train --config missing.conf

# ---- data ----
expect 65 'nowhere' "$program" train --data cifar10:nowhere
mkdir cifar
for i in 1 2 3 4 5; do head -c $((3073 * 20)) /dev/zero >cifar/data_batch_$i.bin; done
head -c $((3073 * 20)) /dev/zero >cifar/test_batch.bin
expect 0 'done' "$program" train --model tiny --data cifar10:cifar --batch 10 --steps 2 --run r0
head -c 5000 /dev/zero >cifar/data_batch_3.bin
expect 65 'data_batch_3.bin|5000|3073' "$program" train --model tiny --data cifar10:cifar
rm cifar/data_batch_3.bin
expect 65 'data_batch_3.bin' "$program" train --model tiny --data cifar10:cifar
head -c $((3073 * 20)) /dev/zero | tr '\0' '\377' >cifar/data_batch_3.bin
expect 65 'data_batch_3.bin|label' "$program" train --model tiny --data cifar10:cifar

# ---- a loss that is not finite ----
expect 70 'not finite|--learning-rate' "$program" train $quick --steps 20 --learning-rate 1e6 --run r1

# ---- ranks of two builds ----
# the beginning of the commit only: its end may be another string's
commit=$("$program" --version | sed 's/.*(\([0-9a-f]\{8\}\).*/\1/')
sed "s/$commit/ffffffff/g" "$program" >other
chmod +x other
expect 64 'rank 1|ffffffff|one build' "$mpirun" 1 "$program" train $quick --steps 2 --run r4 : -np 1 ./other train $quick --steps 2 --run r4

# ---- checkpoints: bit-exact resume, and every way one can be bad ----
steps="--steps 12 --checkpoint-every 0.5 --keep 1 --algorithm cocod --period 3"
expect 0 'done' "$mpirun" 2 "$program" train $quick $steps --run whole
expect 0 'done' "$mpirun" 2 "$program" train $quick $steps --run again --resume whole
same "a resumed run ends with another model" whole/model.safetensors again/model.safetensors
# what a run that was killed has done after its checkpoint is done, and told, once
curve() { sed 's/,"images_per_second".*//; s/,"seconds".*//' "$1/metrics.jsonl"; }
curve whole >uninterrupted
printf '{"kind":"window","step":14' >>whole/metrics.jsonl
expect 0 'done' "$mpirun" 2 "$program" train $quick $steps --run whole --resume whole
curve whole >resumed
if cmp -s uninterrupted resumed && grep -q train_loss resumed; then pass; else
    fail "a run resumed in its folder has another curve"; diff uninterrupted resumed; fi
newest=$(ls -d whole/checkpoints/step-* | tail -n 1)
copy() { rm -rf bad; mkdir bad; cp -r "$newest" bad/; file=bad/$(basename "$newest")/rank-00000.safetensors; }
resume="$mpirun 2 $program train $quick $steps --run r2 --resume bad/$(basename "$newest")"
copy; head -c 4000 "$file" >cut; mv cut "$file"
expect 65 'rank-00000.safetensors' $resume
copy; printf 'XXXXXXXX' | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") - 900)) conv=notrunc 2>/dev/null
expect 65 'rank-00000.safetensors|corrupt' $resume
copy; sed -i 's/"version":"[0-9]*"/"version":"9"/' "$file"
expect 65 'version' $resume
copy
expect 65 'tiny|mlp' "$mpirun" 2 "$program" train $quick $steps --model mlp --run r2 --resume "bad/$(basename "$newest")"
expect 65 '2 ranks' "$program" train $quick $steps --run r2 --resume "bad/$(basename "$newest")"
expect 65 'nowhere' "$program" train $quick --run r2 --resume nowhere
expect 0 'test accuracy' "$program" eval --model tiny --data $data --weights whole/model.safetensors
expect 0 'test accuracy' "$program" eval --model tiny --data $data --weights "$newest"
judged() { "$program" eval --model tiny --data $data --weights "$1" 2>/dev/null | grep -o 'accuracy [0-9.]*'; }
expect 0 'resuming|done: test accuracy' "$mpirun" 2 "$program" train $quick --steps 8 --algorithm cocod --period 3 --run r7 --resume "$newest"
is "accuracy of a run that was resumed at its end" "$(judged r7/model.safetensors)" "$(judged "$newest")"
is "accuracy of a run's folder" "$(judged whole)" "$(judged whole/model.safetensors)"
mkdir unexported && cp -r whole/checkpoints unexported
is "accuracy of a run's folder without a model" "$(judged unexported)" "$(judged "$newest")"
expect 65 'cifar holds no model.safetensors|give the folder of a run' "$program" eval --model tiny --data $data --weights cifar
copy; rm "bad/$(basename "$newest")/rank-00001.safetensors"
expect 65 'rank-00001.safetensors is missing|of 2 ranks' "$program" eval --model tiny --data $data --weights "bad/$(basename "$newest")"
expect 65 'mlp|fc1.weight' "$program" eval --model mlp --data $data --weights whole/model.safetensors
expect 64 '--weights' "$program" eval --model tiny --data $data

# ---- the other algorithms: a run, and its second half again ----
halves() { # halves RUN OPTION...: on two ranks; the second half from the checkpoint ends as the whole
    run=$1
    shift
    options="$quick --steps 12 --checkpoint-every 0.75 --keep 9 $*"
    expect 0 'done' "$mpirun" 2 "$program" train $options --run "$run"
    expect 0 'resuming|after local step 6' "$mpirun" 2 "$program" train $options --run "$run-again" \
        --resume "$run/checkpoints/step-00000006"
    same "resumed with $options, another model" "$run/model.safetensors" "$run-again/model.safetensors"
}
number=0
expect 0 'all 12 local steps of this run are synchronous' "$program" train $quick --steps 12 --algorithm pipe --run r7
for options in '--algorithm pipe --synchronous-steps 4' '--algorithm od --synchronous-steps 4' \
    '--algorithm overlap-local --period 3' '--algorithm dasgd --period 2 --post-local 0.5' \
    '--algorithm pipe --synchronous-steps 20' '--algorithm local --period 2 --post-local 0.8' \
    '--algorithm local --period 2 --slow-momentum 0.5' \
    '--algorithm cocod --period 4 --fragments 3 --slow-momentum 0.5 --momentum-policy average --statistics average' \
    '--algorithm dasgd --period 4 --delay 6 --merge corrected --fragments 4 --post-local 0.1'; do
    number=$((number + 1))
    halves other$number $options
done
expect 0 'done' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm ssgd --overlap no --run ssgd
same "Pipe-SGD that is synchronous to the end is not S-SGD" ssgd/model.safetensors other5/model.safetensors
expect 0 'done' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm cocod --period 3 --momentum-policy average --run plain
expect 0 'done' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm dasgd --period 3 --delay 3 --mix 0 --merge corrected --momentum-policy average --run corrected
same "DaSGD that corrects, keeps nothing and waits a period is not CoCoD-SGD" plain/model.safetensors corrected/model.safetensors
expect 65 'counts.fragments3|options' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm cocod --period 3 --fragments 3 --run r6 --resume whole
halves other10 --algorithm dasgd --period 4 --delay 3
expect 0 'resuming|done' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm dasgd --period 4 --delay 1 --run shorter \
    --resume other10/checkpoints/step-00000006 # where an average is under way that is overdue
expect 65 'algorithm.steps2|give the options' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm dasgd --period 4 --delay 8 \
    --run shorter --resume other10/checkpoints/step-00000006
expect 0 'resuming|done' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm pipe --synchronous-steps 9 --run longer \
    --resume other1/checkpoints/step-00000006 # with a gradient under way
expect 0 'leave 25 % of the progress|--merge corrected' "$mpirun" 2 "$program" train $quick --steps 1 --algorithm dasgd --period 2 --delay 2 --run little
differ "OD-SGD takes no local steps" other1/model.safetensors other2/model.safetensors
expect 65 'algorithm.begun|options' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm cocod --post-local 0.5 --run r6 --resume whole
expect 65 'holds algorithm.begun|would not take up' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm dasgd --period 2 --run r6 --resume other4
cp other1/config kept
expect 64 'is there already, of a later step|--run' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm pipe --synchronous-steps 4 --momentum 0.5 --run other1
expect 65 'give --algorithm pipe' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm local --run other1 --resume other1
same "a refused run has left its options in a run's folder" kept other1/config
expect 64 'rank 1 differs|learning-rate = 0.05' "$mpirun" 1 "$program" train $quick --run r5 : -np 1 "$program" train $quick --learning-rate 0.06 --run r5
expect 64 'rank 1 differs|timeline = yes' "$mpirun" 1 "$program" train $quick --timeline --run r5 : -np 1 "$program" train $quick --run r5
expect 64 'the samples and their labels' "$mpirun" 1 "$program" train $quick --run r5 : -np 1 "$program" train $quick --data $data,seed=2 --run r5
expect 64 'rank 1 differs|weights = (given)' "$mpirun" 1 "$program" train $quick --weights whole/model.safetensors --run r5 : -np 1 "$program" train $quick --run r5
expect 0 'done' "$mpirun" 2 "$program" train $quick --steps 7 --settle 5 --log-every 4 --timeline --run timed
is "steps of both ranks in the timeline" "$(grep -c '"name":"step"\|"name": "step"' timed/timeline.json)" 14
is "windows, of which one ends where --settle does" "$(grep -c '"kind":"window"' timed/metrics.jsonl)" 3
grep -q '"step": 0\.[0-9]*[1-9]' timed/run.json && pass || fail "--settle 5 of 7 steps leaves none"
[ -e timed/model.safetensors ] && touch -d '1 hour ago' timed/model.safetensors
expect 0 'done' "$mpirun" 2 "$program" train $quick --steps 3 --checkpoint-every 0.25 --export no --run timed
[ -e timed/timeline.json ] && fail "the timeline of another run stays" || pass
expect 0 'weights of timed/checkpoints/step-' "$program" eval --model tiny --data $data --weights timed
touch timed/model.safetensors
expect 0 'weights of timed/model.safetensors' "$program" eval --model tiny --data $data --weights timed
expect 64 'at most' "$program" train $quick --steps 1 --run "$(printf '%0500d' 0)"
expect 0 'S-SGD for 6 local steps, then every k steps' "$program" train $quick --steps 12 --algorithm cocod --post-local 0.5 --run r5
expect 0 'done' "$program" train $quick --steps 12 --algorithm od --synchronous-steps 2 --run alone-od
expect 0 'done' "$program" train $quick --steps 12 --algorithm ssgd --run alone-ssgd
same "OD-SGD on one rank is not SGD" alone-od/model.safetensors alone-ssgd/model.safetensors

# ---- compression: what travels, a run and its second half again, what makes no sense ----
bytes() { # bytes FOLDER: that a local step sends
    sed -n 's/.*"sent_bytes": *\([0-9.]*\).*/\1/p' "$1/run.json"
}
sent() { # sent FOLDER BYTES: of a local step
    is "bytes that $1 sends" "$(bytes "$1")" "$2"
}
case $("$program" info) in # padding channels travel too: of blocks of 16, or of 8; matrix tiles need none
*amx_bf16*) all=18432 ;;
*avx512*) all=24320 ;;
*) all=18432 ;;
esac
sent ssgd $all.0
expect 0 'done' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm ssgd --evaluate-every 0.25 --run judged
sent judged $all.0 # evaluations are no step's
number=0
for options in 'ssgd --compress bf16' 'ssgd --compress qsgd --error-feedback yes' \
    'ssgd --compress terngrad --overlap no --scope global' 'ssgd --compress dgc --density 0.05 --density-warmup 0.5' \
    'cocod --period 3 --compress topk --density 0.1' 'local --period 2 --compress randomk --density 0.1' \
    'dasgd --period 2 --post-local 0.5 --compress topk --density 0.1' 'pipe --compress qsgd' \
    'dasgd --period 2 --delay 3 --merge corrected --mix 0.6 --compress topk --density 0.1' \
    'cocod --period 3 --fragments 2 --slow-momentum 0.5 --compress topk --density 0.1' 'ssgd --compress qsgd --exchange scatter'; do
    number=$((number + 1))
    halves small$number --algorithm $options
done
sent small1 $((all / 2)).0
for options in auto gather; do # on 5 ranks the sum is scattered, which sends less
    expect 0 'done' "$mpirun" 5 "$program" train $quick --batch 2 --steps 2 --algorithm ssgd --compress qsgd \
        --exchange $options --run five-$options
done
auto=$(bytes five-auto) gather=$(bytes five-gather)
is 'whether 5 ranks scatter' "$([ "${auto%.*}" -lt "${gather%.*}" ] && echo yes)" yes
sent small3 $((all / 16 + 16)).0 # 2 bits an element, and a norm
if grep -q '"kind":"window".*"sent_bytes":'$((all / 2)) small1/metrics.jsonl; then passed=$((passed + 1)); else
    failed=$((failed + 1)); echo "FAILED: no sent_bytes in metrics.jsonl"; fi
expect 0 'done' "$program" train $quick --steps 12 --algorithm ssgd --compress dgc --run alone-dgc
expect 0 'lower --density-warmup' "$mpirun" 2 "$program" train $quick --steps 12 --algorithm ssgd --compress dgc --run warm-dgc
same "DGC on one rank is not SGD" alone-dgc/model.safetensors alone-ssgd/model.safetensors
expect 64 'did you mean "topk"' "$program" train $quick --compress top
expect 64 'multiple of 64' "$program" train $quick --compress qsgd --block 100
two="$mpirun 2 $program train $quick --steps 12 --run r8"
expect 64 'dgc corrects the momentum of gradients|--algorithm ssgd' $two --algorithm cocod --compress dgc
expect 64 '--scope global|add --overlap no' $two --bucket-kib 1 --algorithm ssgd --compress topk --scope global
expect 64 'error feedback does not go with momentum|--error-feedback no' $two --algorithm overlap-local --compress topk --error-feedback yes
expect 64 'error feedback does not go with momentum|--anchor-momentum 0' $two --algorithm overlap-local --compress randomk
expect 0 'send all their encodings to each other|times what fp32 sends' "$mpirun" 2 "$program" train $quick --steps 1 \
    --algorithm ssgd --compress topk --density 0.9 --run more
expect 64 '--scope global|--fragments 1' $two --algorithm cocod --period 4 --fragments 2 --compress topk --scope global
expect 65 'compress topk|give --compress topk' $two --algorithm cocod --period 3 --resume small5
expect 65 'compress none|give --compress none' $two --algorithm cocod --period 3 --compress topk --resume whole
expect 0 'with k' "$mpirun" 2 "$program" train $quick --steps 6 --algorithm cocod --period auto --compress qsgd --run r9

# ---- --period auto: a number is chosen and saved, and the run is the one with that number given ----
chosen() { sed -n "s/^$2 = \([1-9][0-9]*\)$/\1/p" "$1/config"; }
expect 0 'period auto: one rank' "$program" train $quick --steps 2 --algorithm cocod --period auto --run tuned0
# a period above 1 where steps are short beside an average (mlp), 1 where they are long
for run in 'cocod tiny 16' 'dasgd mlp 1' 'overlap-local mlp 1' 'local mlp 1'; do
    set -- $run
    auto="--algorithm $1 --period auto --delay auto"
    options="$quick --model $2 --batch $3 --momentum-policy average --statistics average --steps 16"
    options="$options --checkpoint-every $([ "$3" = 16 ] && echo 0.5 || echo 0.0625) --keep 9"
    expect 0 'period auto: a local step takes|an average|with k|of a step' \
        "$mpirun" 2 "$program" train $options $auto --run "tuned-$1"
    k=$(chosen "tuned-$1" period) d=$(chosen "tuned-$1" delay)
    grep -q "\"period\": *\"$k\"" "tuned-$1/run.json" || k=wrong
    expect 0 'done' "$mpirun" 2 "$program" train $options --algorithm "$1" --period "$k" --delay "$d" --run "given-$1"
    same "$1 with --period auto is not the run with period $k" "tuned-$1/model.safetensors" "given-$1/model.safetensors"
    expect 0 'done' "$mpirun" 2 "$program" train --config "tuned-$1/config" --run "config-$1"
    same "$1: the saved config is of another run" "tuned-$1/model.safetensors" "config-$1/model.safetensors"
    first=$(ls -d "tuned-$1"/checkpoints/step-* | head -n 1)
    expect 0 "k $k, as the checkpoint" "$mpirun" 2 "$program" train $options $auto --run "resumed-$1" --resume "$first"
    same "$1: resumed with --period auto, another model" "tuned-$1/model.safetensors" "resumed-$1/model.safetensors"
done
expect 0 'as the checkpoint' "$mpirun" 2 "$program" train $options $auto --run tuned-local --resume auto
# k 1 would hide it, but leave four averages in flight
expect 0 'with k 4 DaSGD, d 4, waits for less|done' "$mpirun" 2 "$program" train $quick --pace 0.02 --steps 16 \
    --algorithm dasgd --period auto --delay 4 --merge corrected --mix 0 --run tuned-corrected

# ---- ranks of unequal speed: rank 1 takes twice as long ----
unequal() { # unequal OPTION...: on two ranks
    env TWINSTREAM_PACE=0.15 "$mpirun" 1 "$program" train $quick "$@" : \
        -np 1 env TWINSTREAM_PACE=0.3 "$program" train $quick "$@"
}
expect 64 'shares = "2,x"|one for each rank, such as 2,1' "$program" train $quick --shares 2,x
expect 64 'shares = "measurd"|equal, measured, or' "$program" train $quick --shares measurd
expect 64 '2 speeds for 1 rank' "$program" train $quick --shares 2,1
expect 64 '3 speeds for 2 ranks' "$mpirun" 2 "$program" train $quick --shares 3,2,1
expect 64 'rank 1 differs' "$mpirun" 1 "$program" train $quick --shares 2,1 --run r5 : -np 1 "$program" train $quick --shares 1,2 --run r5
expect 64 'rank 1 differs' "$mpirun" 1 "$program" train $quick --shares 2,1 --run r5 : -np 1 "$program" train $quick --shares measured --run r5
expect 0 '2 ranks x batch 21,11, 3 local steps, 8 an epoch|done' "$mpirun" 2 "$program" train $quick --shares 2,1 --steps 3 --run r6
options="--shares measured --period auto --steps 12 --checkpoint-every 1"
expect 0 "rank 1's local step, the slowest|period auto: a local step|2 ranks x batch" unequal $options --run measured
expect 0 "as the checkpoint's run|done" unequal $options --run measured2 --resume measured
same 'resumed with --shares measured, another model' measured/model.safetensors measured2/model.safetensors
expect 0 "after local step 8: rank 1's steps took|longer than the mean|batches 16,16 are now" \
    unequal --rebalance yes --steps 12 --run drifted

# ---- data echoing: steps and fresh samples are counted, a fixed echo resumes bit for bit ----
expect 64 'echo|within 1' "$program" train $quick --echo 0.5
expect 64 'echo|a number or auto' "$program" train $quick --echo atuo
expect 64 'echo-at|did you mean "batch"' "$program" train $quick --echo-at bach
field() { tail -n 1 "$1/metrics.jsonl" | sed "s/.*\"$2\":\([^,}]*\).*/\1/"; }
echoing="--algorithm cocod --period 3 --checkpoint-every 0.25 --keep 9"
expect 0 '16 local steps, 16 an epoch' "$mpirun" 2 "$program" train $quick --epochs 1 --echo 2 --run twice
is "fresh samples of two uses each" "$(field twice fresh_samples)" 272 # 15 half batches and a whole one, on 2 ranks
is "samples of two uses each" "$(field twice samples)" 512
for at in example augmented batch; do
    expect 0 '20 local steps, 20 an epoch' "$mpirun" 2 "$program" train $quick $echoing --epochs 1 --echo 2.5 \
        --echo-at $at --run "echo-$at"
    expect 0 'done' "$mpirun" 2 "$program" train $quick $echoing --epochs 1 --echo 2.5 --echo-at $at \
        --run "again-$at" --resume "echo-$at/checkpoints/step-00000010"
    same "echo at $at: a resumed run ends with another model" "echo-$at/model.safetensors" "again-$at/model.safetensors"
done
differ "augmented anew, the same model" echo-example/model.safetensors echo-augmented/model.safetensors
expect 0 'done' "$program" train $quick --steps 20 --run plain
expect 0 'done' "$program" train $quick --steps 20 --input-rate 1e9 --run gated
same "a gate that is always open" plain/model.safetensors gated/model.safetensors
expect 0 'done' "$program" train $quick --steps 20 --input-rate 1e9 --echo auto --run gated-auto
same "an automatic echo with a fast input" plain/model.safetensors gated-auto/model.safetensors
expect 0 'done' "$program" train $quick --steps 20 --echo auto --run auto
same "an automatic echo without an input" plain/model.safetensors auto/model.safetensors
# an average that is late because rank 1 is slow: rank 0 makes steps that are not counted
is "steps while no average is late" "$(grep -c '"echo_steps": 0' plain/run.json)" 1
expect 0 'used again while an average is late|done' unequal --period 2 --echo auto --steps 12 --log-every 12 --checkpoint-every 1 --run late
is "steps while averages were late" "$(grep -c '"echo_steps": [1-9]' late/run.json)" 1
is "a step's time holds its waits" "$(grep -c '"compute_s":-' late/metrics.jsonl)" 0
is "no more pictures a second than rank 1, and a period ahead of it, could" "$(sed -n 's/.*"images_per_second": \([0-9]*\).*/\1/p' late/run.json | awk '{ print ($1 <= 170) }')" 1
expect 0 'step 12|done' unequal --period 2 --echo auto --steps 12 --log-every 12 --run later --resume late/checkpoints/step-00000008
# an input of 4 batches a second: 2 s for 8 steps, which are mostly a wait, and the wait is told
expect 0 'done' "$program" train $quick --steps 8 --log-every 8 --input-rate 64 --timeline --run slow
is "the wait for a slow input" "$(tail -n 2 slow/metrics.jsonl | head -n 1 | sed 's/.*"input_s":\([^,]*\),.*/\1/' |
    awk '{ print ($1 > 0.1) }')" 1
is "its spans" "$(grep -c '"name": "input"' slow/timeline.json)" 8

# ---- records: a folder of JPEG files, packed, trained on, resumed, damaged ----
if [ -n "$make_pictures" ]; then
    "$make_pictures" pictures || exit 1
    expect 64 'pack FOLDER OUT' "$program" pack pictures
    expect 64 'did you mean "skip-bad"' "$program" pack pictures unused --skip-bed
    expect 0 'skip-bad|train/CLASS' "$program" pack --help
    expect 65 'nowhere|train' "$program" pack nowhere unused
    expect 0 '48 training and 16 test pictures of 2 classes' "$program" pack pictures packed
    records="--model tiny --data records:packed,size=24 --batch 8 --log-every 2 --algorithm cocod --period 3"
    for threads in 1 3; do
        expect 0 'done' "$mpirun" 2 "$program" train $records --epochs 3 --checkpoint-every 1 --keep 9 \
            --loader-threads $threads --prefetch $threads --run "records-$threads"
    done
    same "records: the run depends on its threads" records-1/model.safetensors records-3/model.safetensors
    first=$(ls -d records-1/checkpoints/step-* | head -n 1)
    expect 0 'done' "$mpirun" 2 "$program" train $records --epochs 3 --run records-again --resume "$first"
    same "records: a resumed run ends with another model" records-1/model.safetensors records-again/model.safetensors
    expect 0 'test accuracy' "$program" eval $records --weights records-1/model.safetensors
    for at in example augmented batch; do
        expect 0 'done' "$program" train $records --epochs 2 --echo 1.5 --echo-at $at --run "records-$at"
    done
    expect 0 'done' "$program" train $records --steps 12 --period auto --echo auto --input-rate 200 --run records-auto
    expect 0 "longer than the mean|are now|done" unequal --data records:packed,size=24 --batch 8 --epochs 4 --echo 1.5 \
        --rebalance yes --run drifted-records
    expect 0 "the slowest|done" unequal --data records:packed,size=24 --batch 8 --epochs 2 --echo auto --shares measured \
        --input-rate 300 --run measured-records
    expect 64 'size|within 8' "$program" train --data records:packed,size=4
    mkdir shelf
    expect 0 'shelf/pictures.records' "$program" pack pictures shelf
    expect 0 'done' "$program" train --model tiny --data records:shelf,size=16 --batch 8 --steps 2 --run records-shelf
    echo "no picture" >pictures/train/tall/99.jpg
    expect 65 'tall/99.jpg is no JPEG' "$program" pack pictures unused
    expect 0 '99.jpg|48 training|1 pictures could not' "$program" pack pictures unused --skip-bad
    head -c 9000 packed >cut
    expect 65 'cut|cut off' "$program" train --data records:cut
    expect 65 'config|does not begin with TWRECORD' "$program" train --data records:plain/config
    # a byte of the third training picture: 64 tables into its file
    at=$(od -An -t u8 -j 32 -N 8 packed) at=$(od -An -t u8 -j $((at + 48)) -N 8 packed)
    cp packed damaged
    printf 'XXXX' | dd of=damaged bs=1 seek=$((at + 300)) conv=notrunc 2>/dev/null
    expect 65 'picture 2 of damaged|checksum' "$program" train $records --data records:damaged,size=24 --steps 6 --run r5
else
    expect 70 'without libjpeg|libjpeg-dev' "$program" train --data records:packed
    expect 70 'without libjpeg|libjpeg-dev' "$program" pack . unused
fi

# ---- told to stop: saved, exit code 75, resumable ----
"$program" train $quick --epochs 100000 --algorithm local --run stopped >out 2>&1 &
pid=$!
for _ in $(seq 100); do [ -s stopped/metrics.jsonl ] && break; sleep 0.1; done
kill -TERM $pid
wait $pid
got=$?
if [ $got -eq 75 ] && grep -q -- '--resume stopped' out && ls stopped/checkpoints/step-* >/dev/null; then
    pass; else fail "SIGTERM: exit code $got"; cat out; fi

# ---- a full disk while saving: exit code 70, the previous checkpoint is intact ----
disk=$work/disk
mkdir "$disk"
if mount -t tmpfs -o size=400k tmpfs "$disk" 2>/dev/null; then
    expect 0 'done' "$program" train $quick --steps 12 --checkpoint-every 0.5 --export no --run "$disk/run"
    kept=$(ls -d "$disk"/run/checkpoints/step-* | tail -n 1)
    head -c 10m /dev/zero >"$disk/filler" 2>/dev/null
    expect 70 'No space left|previous checkpoint' "$program" train $quick --steps 100 --checkpoint-every 0.5 \
        --export no --run "$disk/run" --resume "$disk/run"
    rm "$disk/filler"
    expect 0 'done' "$program" train $quick --steps 16 --export no --run r3 --resume "$kept"
else
    disk=
    echo "full disk: skipped, it needs root to mount a small tmpfs"
fi

# ---- one rank of several fails: its message once, with its name ----
expect 65 'nowhere' "$mpirun" 2 "$program" train --data cifar10:nowhere
if [ "$(grep -c 'twinstream: error' out)" = 1 ]; then pass; else
    fail "two ranks described one failure twice"; cat out; fi

verdict

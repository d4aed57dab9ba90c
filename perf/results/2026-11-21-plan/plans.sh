#!/bin/sh
# plans.sh PROGRAM: the plans of README.md, one file each for the papers and for H200 clusters.
# Needs no network and no GPU; a minute and a half.
set -eu
program=$1
cd "$(dirname "$0")"

# plan TITLE OPTIONS...: the command, then what it says
plan() {
    printf '## %s\n$ twinstream plan %s\n' "$1" "$(echo "$*" | cut -c $((${#1} + 2))-)"
    shift
    "$program" plan "$@" | sed '/^$/,$d' # what follows repeats the options
    echo
}

# what the papers' own reckonings leave out is left out: stragglers, contention, latency
closed="--spread 0 --contention 0 --latency-us 0 --inner-latency-us 0"
{
    for link in 56 17.8 8.9; do
        plan "CoCoD-SGD: ResNet-18, $link Gbit/s" --step 0.0377 --bytes 44695848 --ranks 16 --per-host 3 \
            --link-gbps $link --inner-gbps 96 $closed
    done
    for link in 56 41.5 20.7; do
        plan "CoCoD-SGD: VGG-16, $link Gbit/s" --step 0.0213 --bytes 58896168 --ranks 16 --per-host 3 \
            --link-gbps $link --inner-gbps 96 $closed
    done
    plan "CoCoD-SGD: ResNet-18, the line rate, with what plan assumes by itself" --step 0.0377 --ranks 16 \
        --per-host 3 --link-gbps 56 --latency-us 5 --inner-gbps 96
    plan "Overlap-Local-SGD: 34.6 % as S-SGD's" --step 0.0484 --ranks 16 --link-gbps 40 --latency-us 0 --period 2
    plan "Overlap-Local-SGD: 34.6 % as that of k 2" --step 0.0242 --ranks 16 --link-gbps 40 --latency-us 0 --period 2
    plan "CO2: k 48" --step 1 --bytes 62.5e9 --ranks 128 --link-gbps 80 --period 48 $closed
    plan "CO2: k 12" --step 1 --bytes 62.5e9 --ranks 128 --link-gbps 80 --period 12 $closed
    for link in 70 25 10; do
        plan "DaSGD: $link Gbit/s, ring" --step 0.403 --bytes 102.2e6 --ranks 256 --per-host 8 --link-gbps $link \
            --inner-gbps 2400 --period 4 --delay 1 $closed
    done
    # the cost model's tree moves 5.029 times as much as plan's 2 (n - 1) / n bytes
    plan "DaSGD: 10 Gbit/s, the time of its own tree" --step 0.403 --bytes 515.9e6 --ranks 256 --per-host 8 \
        --link-gbps 10 --inner-gbps 2400 --period 4 --delay 1 $closed
    plan "DaSGD: the same, k and d by plan" --step 0.403 --bytes 515.9e6 --ranks 256 --per-host 8 \
        --link-gbps 10 --inner-gbps 2400 $closed
} >papers.txt

sizes="--ranks 16,256,4096 --per-host 8 --inner-gbps 3600 --inner-latency-us 3 --latency-us 10"
{
    # name, bytes, the step at 10 and at 30 % of the peak
    while read -r name bytes slow fast; do
        for step in $slow $fast; do
            for link in 400 3200; do
                for shape in ring tree hierarchical; do
                    plan "$name, step $step s, $link Gbit/s a host, $shape" --step "$step" --bytes "$bytes" \
                        $sizes --link-gbps $link --all-reduce $shape
                done
            done
        done
    done <<'MODELS'
ResNet-18@32 44695848 0.00863 0.00288
VGG-16@32 58896168 0.00486 0.00162
ResNet-50@224 102228128 0.0635 0.0212
VGG-16@224 553430176 0.240 0.0801
MODELS
    for latency in 5 30; do
        for shape in ring tree; do
            plan "latency $latency us: ResNet-18 (32x32), $shape" --step 0.00863 --bytes 44695848 $sizes \
                --latency-us $latency --link-gbps 3200 --all-reduce $shape
        done
    done
} >h200.txt

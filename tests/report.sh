#!/bin/sh
# report.sh [PROGRAM]: launch/report on runs made by hand, whose numbers are known: the sections, the
# tables' values, a page that is whole, needs no network and runs nothing, and what it says when
# something is wrong. With PROGRAM a real run is reported too.
set -u
program=${1:-}
here=$(cd "$(dirname "$0")" && pwd)
report=$here/../launch/report
for tool in python3 gnuplot; do
    command -v $tool >/dev/null || { echo "report: skipped, there is no $tool"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
. "$here/expect.sh"
most_lines=1

# holds FILE TEXT..., lacks FILE TEXT...
holds() { file=$1; shift; for text in "$@"; do
    if grep -qF -- "$text" "$file"; then pass; else fail "$file has no [$text]"; fi; done; }
lacks() { file=$1; shift; for text in "$@"; do
    if grep -qiF -- "$text" "$file"; then fail "$file has [$text]"; else pass; fi; done; }

# page.py FILE: is it well-formed, its ids all different? page.py FILE COLUMN CELL: of the tables with that column, what stands in the row
# that begins with, or else has, that cell
cat >page.py <<'EOF'
import sys, xml.etree.ElementTree as tree
text = lambda node: "".join(node.itertext())
root = tree.parse(sys.argv[1]).getroot()
names = [node.get("id") for node in root.iter() if node.get("id")]
if len(names) > len(set(names)):
    sys.exit("two parts of the page have one id")
found = []
for table in root.iter("table") if len(sys.argv) > 3 else ():
    head = [text(cell) for cell in table.find("thead/tr")]
    for row in table.find("tbody") if sys.argv[2] in head else ():
        cells = [text(cell) for cell in row]
        if sys.argv[3] in cells:
            found.append(cells[head.index(sys.argv[2])])
print(" ".join(dict.fromkeys(found)))
EOF
value() { # FILE COLUMN CELL EXPECTED
    got=$(python3 page.py "$1" "$2" "$3")
    if [ "$got" = "$4" ]; then pass; else fail "$1: \"$2\" of $3 is [$got], not [$4]"; fi
}
whole() {
    if python3 page.py "$1" >/dev/null; then pass; else fail "$1 is not well-formed"; fi
    lacks "$1" '<script' 'javascript:' '@import' 'src=' 'data:'
}

# run FOLDER RANKS ALGORITHM OVERLAP STEP WAIT COMM IMAGES/S LABEL: batch 10, 20 steps in two windows of
# 0.1 and 0.2 s a step
run() {
    mkdir -p "$1"
    printf 'model = tiny\ntype = fp32\nbatch = 10\nalgorithm = %s\noverlap = %s\nperiod = 4\ndelay = 1\nresume = \nlog-every = 10\nlabel = %s\n' \
        "$3" "$4" "$9" >"$1/config"
    for window in "10 0.5 2.5 $(($2 * 100))" "20 1 1.5 $(($2 * 50))"; do
        printf '{"kind":"window","step":%s,"epoch":%s,"samples":0,"loss":%s,"accuracy":0.1,"learning_rate":0.1,"images_per_second":%s,"compute_s":0.1,"exposed_s":0.01,"comm_s":0.05,"hidden":null}\n' $window
    done >"$1/metrics.jsonl"
    printf '{"kind":"evaluation","step":20,"epoch":1,"samples":0,"test_loss":1.2,"test_accuracy":0.625,"seconds":1}\n' >>"$1/metrics.jsonl"
    printf '{"state":"finished","started":1795219870,"commit":"abc","ranks":%s,"machine":{"host":"h","device":"d"},"versions":{"twinstream":"1"},"model":{"name":"tiny","type":"fp32"},"seconds_per_step":{"step":%s,"wait":%s,"comm":%s},"totals":{"steps":20,"seconds":%s,"images_per_second":%s,"test_accuracy":0.625,"hidden":0.8,"contention":null}}\n' \
        "$2" "$5" "$6" "$7" "$(awk "BEGIN { print $2 * 200 / $8 }")" "$8" >"$1/run.json"
}
run one 1 ssgd yes 0.1 0 0 100 ''
run block 2 ssgd no 0.16 0.06 0.06 120 ''
run cocod 2 cocod yes 0.13 0.01 0.05 150 ''
run four 4 cocod yes 0.2 0.05 0.05 250 ''

# a run that says what it sent, and travelled compressed
run few 2 cocod yes 0.13 0.01 0.05 150 ''
printf 'compress = topk\ndensity = 0.01\n' >>few/config
sed -i 's/"hidden":0.8/"sent_bytes":1250000.0,&/' few/run.json

# ---- the numbers ----
expect 0 '' "$report" one block cocod four -o page.html --title 'Made by <hand>'
whole page.html
lacks page.html http
holds page.html 'Made by &lt;hand&gt;' '<h2>Summary' '<h2>Curves' '<h2>Time of a step' '<h2>Time speedup' \
    'Speedup over blocking S-SGD' '<h2>Differences' '4 runs of tiny on 1, 2 and 4 ranks' '<details>' '<figcaption>' \
    'S-SGD, no overlap' 'CoCoD-SGD, k 4'
lacks page.html '<h2>Timeline' 'forecast' 'class="warning"'
value page.html speedup four '' # the tables name runs by what they are, the summary by their folders
value page.html 'images/s' cocod 150.0
value page.html 'test accuracy %' cocod 62.50
value page.html seconds cocod 3.000
value page.html 'hidden %' cocod 80.0
value page.html speedup 150.0 1.500
value page.html 'of ideal %' 150.0 75.0
value page.html 'over blocking S-SGD' 150.0 1.250
value page.html speedup 250.0 2.500
value page.html 'contention ms' 'CoCoD-SGD, k 4, 2 ranks' 20.00
value page.html 'compute ms' 'CoCoD-SGD, k 4, 2 ranks' 100.0
value page.html 'exposed ms' 'CoCoD-SGD, k 4, 2 ranks' 10.00
value page.html 'hidden ms' 'CoCoD-SGD, k 4, 2 ranks' 40.00
lacks page.html 'MB a step'
expect 0 '' "$report" cocod few -o sent.html
whole sent.html
value sent.html 'sent MB a step' few 1.250
value sent.html 'sent MB a step' cocod –
holds sent.html 'CoCoD-SGD, k 4, topk 0.01'
run lean 2 ssgd no 0.16 0.06 0.06 600 '' # compressed, so not the base, though it is named first
printf 'compress = topk\ndensity = 0.01\n' >>lean/config
expect 0 '' "$report" lean one block cocod few -o lean.html
value lean.html algorithm few 'CoCoD-SGD, k 4, topk 0.01'
value lean.html 'over blocking S-SGD' 'CoCoD-SGD, k 4, topk 0.01' 1.250
value lean.html 'over blocking S-SGD' 'S-SGD, no overlap, topk 0.01' 5.000
expect 0 '' "$report" lean one cocod -o lean.html # none of them is the base
lacks lean.html 'Speedup over blocking S-SGD'
run slow 2 ssgd no 0.24 0.14 0.14 80 '' # several are: their mean
expect 0 '' "$report" one block slow cocod -o slow.html
value slow.html 'over blocking S-SGD' 'CoCoD-SGD, k 4' 1.500
holds slow.html 'ran more than once'
value page.html 'standard deviation' 'CoCoD-SGD, k 4, 2 ranks' 70.71
value page.html 'accuracy %' 20 62.50
value page.html seconds 0.500 1.000

lacks page.html 'waiting for input' 'input ms'

# ---- a slow input: a part of the step, and not of compute ----
cp -r cocod fed
sed -i 's/"wait":0.01/"wait":0.01,"input":0.02/' fed/run.json
expect 0 '' "$report" one block fed -o fed.html
whole fed.html
value fed.html 'compute ms' 'CoCoD-SGD, k 4' 100.0
value fed.html 'contention ms' 'CoCoD-SGD, k 4' 0.000
value fed.html 'input ms' 'CoCoD-SGD, k 4' 20.00
holds fed.html 'waiting for input'
rm fed/run.json # then the windows tell it
sed -i 's/"exposed_s":0.01/"input_s":0.03,"exposed_s":0.01/; s/"samples":0/"samples":400/' fed/metrics.jsonl
expect 0 '' "$report" fed -o fed.html
value fed.html 'input ms' 'CoCoD-SGD, k 4' 30.00

# runs that differ in what their method was told
cp -r cocod parts
printf 'fragments = 4\nslow-momentum = 0.5\nslow-rate = 1\n' >>parts/config
expect 0 '' "$report" cocod parts -o told.html
holds told.html 'CoCoD-SGD, k 4, fragments 4, slow-momentum 0.5'
lacks told.html 'slow-rate 1'
cp -r cocod both # a name tells all of it, also where a part would do
printf 'fragments = 4\ncompress = terngrad\n' >>both/config
expect 0 '' "$report" cocod both -o told.html
value told.html 'hidden ms' 'CoCoD-SGD, k 4, fragments 4, terngrad' 40.00
run fast-1 2 local yes 0.11 0.005 0.005 180 'in a network whose name is longer than a chart has room for, 1'
run fast-2 2 local yes 0.12 0.005 0.005 180 'in a network whose name is longer than a chart has room for, 2'
expect 0 '' "$report" fast-1 fast-2 -o long.html # what is cut is not what tells them apart
holds long.html 'for, 1</text>' 'for, 2</text>'

# ---- many methods: each can be told from the others ----
many=
for levels in 1 2 3 4 5 6 7 8 9 10 11 12; do
    run many$levels 2 cocod yes 0.13 0.01 0.05 $((140 + levels)) ''
    printf 'compress = qsgd\nlevels = %s\n' $levels >>many$levels/config
    many="$many many$levels"
done
expect 0 '' "$report" one block $many -o many.html
whole many.html
holds many.html '2 ranks, part 2 of 2' 'Time speedup over one rank: part 2 of 2' 'as blocking S-SGD' 'qsgd 12'
lacks many.html 'part 3'
for n in 1 2 3 4 5 6 7 8 9; do # more than a chart has, all of one loss
    cp -r cocod flat$n
    grep -m 1 '"kind":"window"' cocod/metrics.jsonl >flat$n/metrics.jsonl
done
expect 0 '' "$report" flat? -o flat.html
whole flat.html
expect 0 '' "$report" block many1 many2 many3 -o few.html
lacks few.html 'part 1' 'as blocking S-SGD'
cat >looks.py <<'EOF'
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from report_lib.charts import styles
names = [(f"{kind} {n}", kind) for kind in ("ssgd", "cocod", "one", "two", "three", "four", "five") for n in range(9)]
sys.exit(len(set(styles(names).values())) < len(names))
EOF
if python3 looks.py "$here/../launch"; then pass; else fail "two methods look alike"; fi

# ---- a forecast ----
printf '{"model":"tiny","label":"","ranks":2,"algorithm":"cocod","overlap":false,"period":4,"delay":0,"step_s":0.143}\n{"model":"tiny","label":"","ranks":2,"algorithm":"cocod","overlap":false,"period":8,"delay":0,"step_s":9}\n' >plan.jsonl
expect 0 '' "$report" one block cocod few --plan plan.jsonl -o plan.html
value plan.html 'forecast ms a step' few –
expect 0 '' "$report" one block cocod --plan plan.jsonl -o plan.html --picture plan.svg
whole plan.html
value plan.html 'forecast ms a step' cocod 143.0
value plan.html 'off by %' cocod 10.0
value plan.html 'off by %' 150.0 10.0
value plan.html 'forecast speedup' 150.0 1.399
value plan.html 'forecast ms a step' block –
if python3 page.py plan.svg >/dev/null; then pass; else fail "plan.svg is not well-formed"; fi

# ---- labels: the run on one rank serves them all; text is only text ----
run fast 2 local yes 0.11 0.005 0.005 180 '<b>`touch pwned`'\''&"$(touch pwned)'
expect 0 '' "$report" one block fast -o label.html
whole label.html
value label.html speedup 180.0 1.800
lacks label.html '<b>'
[ ! -e pwned ] && pass || fail "a label was run"

# ---- no several sizes: no speedup over one rank; the picture is that of the curves ----
expect 0 '' "$report" cocod -o alone.html --picture alone.svg
lacks alone.html '<h2>Time speedup' '<h2>Differences' 'contention ms</th></tr>'
holds alone.svg 'training loss, by seconds'

# ---- runs that differ or are not whole ----
cp -r cocod other
sed -i 's/"abc"/"def"/; s/"finished"/"stopped"/' other/run.json
expect 0 '' "$report" cocod other -o other.html
holds other.html 'The runs differ in their commit' 'is not finished' 'CoCoD-SGD, k 4, other'
cp -r cocod killed
rm killed/run.json
printf '{"kind":"window","step":30,"ep' >>killed/metrics.jsonl
sed -i 's/"samples":0/"samples":400/' killed/metrics.jsonl
expect 0 '' "$report" killed -o killed.html
holds killed.html 'line 4 is half written' 'unfinished: no run.json'
value killed.html ranks killed 2
cp -r cocod again # resumed from step 10: what came after it is made again
sed '1!d; s/"step":10/"step":15/' cocod/metrics.jsonl >>again/metrics.jsonl
sed '1d; s/"loss":1.5/"loss":1.25/' cocod/metrics.jsonl >>again/metrics.jsonl
sed -i 's/"seconds":[0-9.]*,"images_per_second":150/"seconds":0.5,"images_per_second":200/' again/run.json # of its last 5 steps
expect 0 '' "$report" again -o again.html
value again.html loss 20 1.250
value again.html seconds 20 2.500
value again.html 'images/s' again 160.0

# ---- what the accuracies are of ----
lacks page.html 'best test accuracy'
holds page.html 'tested on data that were not recorded'
for name in cocod block; do
    cp -r $name $name-real
    echo 'data = cifar10:DIR' >>$name-real/config
    cp -r $name $name-made
    echo 'data = synthetic:train=64,test=16' >>$name-made/config
done
expect 0 '' "$report" block-real cocod-real -o data.html
holds data.html 'tested on cifar10:DIR.' 'best test accuracy, 62.50 %'
lacks data.html 'made by the program'
expect 0 '' "$report" block-made cocod-made -o data.html
holds data.html 'tested on synthetic:train=64,test=16. Synthetic pictures are made by the program'
lacks data.html 'best test accuracy'
expect 0 '' "$report" block-made cocod-real -o data.html
holds data.html 'tested on cifar10:DIR; synthetic:train=64,test=16. Synthetic'
lacks data.html 'best test accuracy'

# ---- a speed that was set ----
cp -r cocod paced
echo 'pace = 1.5' >>paced/config
expect 0 '' "$report" block paced -o paced.html
holds paced.html 'In 1 of 2 runs forward and backward were set to take 1.5 s'
lacks page.html '--pace'

# ---- a timeline: two rounds of two steps ----
python3 - >cocod/timeline.json <<'EOF'
import json
events = []
for rank in range(2):
    for row, name in enumerate(("compute", "comm")):
        events.append({"ph": "M", "pid": rank, "tid": row, "name": "thread_name", "args": {"name": name}})
    add = lambda row, name, at, ms: events.append(
        {"ph": "X", "pid": rank, "tid": row, "name": name, "ts": at * 1e3, "dur": ms * 1e3})
    for step in range(7):
        at = 10 * step
        add(0, "step", at, 10), add(0, "forward", at, 3), add(0, "backward", at + 3, 5), add(0, "update", at + 8, 1)
        if step % 2:
            add(0, "wait", at + 9, 0.25), add(0, "merge", at + 9.25, 0.5), add(1, "comm", at + 9.5, 4)
json.dump({"traceEvents": events}, __import__("sys").stdout)
EOF
expect 0 '' "$report" cocod -o timeline.html
whole timeline.html
holds timeline.html '<h2>Timeline' 'two rounds, merge to merge: 4 of the 7 steps'
value timeline.html ms wait 0.250
value timeline.html 'begin ms' merge '19.250 39.250'

# ---- what is wrong, said in one line ----
expect 64 'which runs' "$report"
expect 64 '--colour' "$report" one --colour red
expect 64 'same file' "$report" one -o x.svg --picture x.svg
expect 0 '' "$report" one # to report.html
holds report.html '<h2>Summary'
expect 65 'nowhere is no run' "$report" nowhere
mkdir -p empty
expect 65 'empty is no run' "$report" one empty
cp -r one bad
sed -i '2s/.*/{"kind":"window","step":/' bad/metrics.jsonl
echo before >kept.html
expect 65 'bad/metrics.jsonl line 2' "$report" one bad -o kept.html
holds kept.html before
cp one/metrics.jsonl bad/
sed -i '1s/"loss":2.5,//' bad/metrics.jsonl
expect 65 'bad/metrics.jsonl line 1 has no number "loss"' "$report" bad
cp one/metrics.jsonl bad/
echo '{' >bad/run.json
expect 65 'bad/run.json' "$report" bad
cp one/run.json bad/
echo '{"traceEvents": 3}' >bad/timeline.json
expect 65 'bad/timeline.json' "$report" bad
echo '{"step_s": 1}x' >plan.bad
echo '{}' >>plan.bad
expect 65 'plan.bad line 1' "$report" one --plan plan.bad
expect 65 'missing.jsonl' "$report" one --plan missing.jsonl
expect 70 'cannot write' "$report" one -o nofolder/page.html
expect 70 'cannot write' "$report" one -o empty
mkdir path
printf '#!/bin/sh\nexec %s "$@"\n' "$(python3 -c 'import sys; print(sys.executable)')" >path/python3
chmod +x path/python3
expect 70 'install gnuplot-nox' env PATH="$work/path" "$report" one
ls -a | grep -q '\.tmp$' && fail "a temporary file was left" || pass

# ---- a real run ----
if [ -n "$program" ]; then
    OMP_NUM_THREADS=1 "$program" train --model tiny --data synthetic:train=256,test=64,size=8 --batch 16 --steps 8 \
        --log-every 2 --timeline yes --run real >out 2>&1 || { fail "train"; cat out; }
    expect 0 '' "$report" real -o real.html
    whole real.html
    holds real.html '<h2>Timeline' 'The last 8 of the 8 steps'
fi

verdict

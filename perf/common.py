"""What benchmarks of training share.

Lab is a network lab: hosts on this machine behind rate-capped links (tests/netlab; needs root), where a worker has a
given speed (`twinstream train --pace`), since so many share few cores. train_to_accuracy trains at the machine's own
speed, for benchmarks of accuracy. Both leave runs' folders, and a run that is finished is not run again. program_of,
peer_python and beside are for benchmarks beside PyTorch.
"""
import json, os, re, statistics, subprocess, sys

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
TOOL = os.path.join(TOP, "tests", "netlab")
EPOCH = 64  # steps, of the lab's synthetic pictures
WARM = 0.2  # the share of a training in which dgc's density comes down
# Multiply-adds of a picture's forward pass and parameters, from `twinstream train`'s run.json.
MODELS = {"resnet18": (555422720, 11173962), "vgg16": (313201664, 14724042)}


class Lab:
    """Hosts, up while this is open."""

    def __init__(self, hosts, build):
        self.hosts = hosts
        self.build = os.path.abspath(build)
        self.environment = dict(os.environ, NETLAB="perf", OMP_NUM_THREADS="1")

    def __enter__(self):
        code = subprocess.run([TOOL, "up", str(self.hosts)], env=self.environment).returncode
        if code:
            sys.exit(code)
        return self

    def __exit__(self, *_):
        subprocess.run([TOOL, "down", str(self.hosts)], env=self.environment)

    def rate(self, mbit):
        subprocess.run([TOOL, "rate", str(self.hosts), f"{mbit:.0f}mbit"], env=self.environment, check=True)

    def mpirun(self, ranks, program, *options):
        command = [TOOL, "mpirun", str(ranks), os.path.join(self.build, program), *options]
        return output(command, self.environment)

    def train(self, run, ranks, pace_s, batch, settle, steps, *options):
        """Steps of paced workers on synthetic pictures, `settle` more before them left out; returns run.json."""
        options = ["--batch", str(batch), "--pace", f"{pace_s:.6g}", "--data",
                   f"synthetic:train={batch * ranks * EPOCH},test={ranks}", "--settle", str(settle), "--steps",
                   str(settle + steps), *options]
        if not finished(run):
            self.mpirun(ranks, "twinstream", "train", "--log-every", "1", "--evaluate-every", "0", "--export", "no",
                        "--learning-rate", "0.01", "--scale-learning-rate", "no", "--run", run, *options)
        record = read_record(run)
        check_same(run, record, ranks, options)
        print(f"{run}: {record['seconds_per_step']['step']:.4f} s a step", file=sys.stderr, flush=True)
        return record


def output(command, environment):
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{sys.argv[0]}: exit code {done.returncode} of {' '.join(command)}:\n{done.stderr[-2000:]}")
    return done.stdout


def program_of(build):
    """BUILD's twinstream; without it this is the end."""
    program = os.path.join(build, "twinstream")
    if not os.path.exists(program):
        sys.exit(f"{sys.argv[0]}: {program} is missing: build first (launch/build {build}), or give --build")
    return program


def beside(pairs, ours, peer, key):
    """Measure ours() and peer() in turn, so that a busy moment of the machine meets both. A record of all that they
    returned, and both medians of what is under `key`; the ratio is that of the medians."""
    sides = list(zip(*((ours(), peer()) for _ in range(pairs))))
    rates = [[m[key] for m in side] for side in sides]
    medians = [statistics.median(side) for side in rates]
    return {"ratio": medians[0] / medians[1], "ratio_of_pairs": [o / p for o, p in zip(*rates)],
            "twinstream": sides[0], "pytorch": sides[1]}, *medians


def peer_python(build, *packages):
    """A Python with these packages from PyPI, in BUILD/pytorch."""
    home = os.path.join(build, "pytorch")
    python = os.path.join(home, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
    found = subprocess.run([python, "-m", "pip", "show", "-q", *packages], stderr=subprocess.DEVNULL).returncode == 0
    if not found:
        print(f"installing {', '.join(packages)} from PyPI into {home}", file=sys.stderr)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return python


class Diverged(SystemExit):
    """A training whose loss is not finite, which its folder remembers: the end, for a benchmark that has no use for it."""


def train_to_accuracy(build, ranks, run, *options):
    """Train to the end with a one-cycle schedule from seed 1 (--option value ...); returns run.json."""
    diverged = os.path.join(run, "diverged")
    if os.path.exists(diverged):
        with open(diverged) as f:
            raise Diverged(f"{run}: {f.read().strip()}")
    if not finished(run):
        command = [os.path.join(TOP, "launch", "mpirun"), str(ranks), os.path.join(build, "twinstream"), "train", "--schedule",
                   "one-cycle", "--seed", "1", "--export", "no", "--run", run, *options]
        threads = str(max(1, os.cpu_count() // ranks))
        try:
            output(command, dict(os.environ, OMP_NUM_THREADS=threads))
        except SystemExit as end:
            why = re.search("the loss of .* was not finite in local steps [0-9]+ to [0-9]+", str(end))
            if not why:
                raise
            with open(diverged, "w") as f:
                f.write(why[0] + "\n")
            raise Diverged(f"{run}: {why[0]}") from None
        print(f"{run}: {accuracy_of(run):.2f} %", file=sys.stderr, flush=True)
    record = read_record(run)
    check_same(run, record, ranks, options)
    return record


def check_same(run, record, ranks, options):
    """A run that was there is the one that is asked for, or this is the end."""
    if record["ranks"] != ranks:
        sys.exit(f"{sys.argv[0]}: {run} was of {record['ranks']} ranks, not {ranks}: remove it")
    for key, value in dict(zip(options[::2], options[1::2])).items():
        had = record["config"].get(key[2:])
        if key == "--data" and not value.startswith("synthetic"):  # where a set of pictures lies may change
            had, value = had.split(":")[0], value.split(":")[0]
        if had != value and as_number(had) != as_number(value):
            sys.exit(f"{sys.argv[0]}: {run} was made with {key} {had}, not {value}: remove it")


def as_number(text):
    """Equal numbers are equal however they are written; other texts equal nothing."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")


def accuracy_of(run):
    """Per cent of the test pictures; NaN for a run that is not finished."""
    return 100 * read_record(run)["totals"]["test_accuracy"] if finished(run) else float("nan")


def read_record(run):
    with open(os.path.join(run, "run.json")) as f:
        return json.load(f)


def finished(run):
    try:
        return read_record(run)["state"] == "finished"
    except FileNotFoundError:
        return False


def rate_mbit(ranks, step_s, ratio):
    """The link on which ResNet18's all-reduce takes `ratio` of that step, as the link would carry it: 2 (n - 1) / n
    bytes / rate."""
    return 2 * (ranks - 1) / ranks * MODELS["resnet18"][1] * 4 * 8e-6 / (ratio * step_s)

"""A network lab for benchmarks: hosts on this machine behind rate-capped links (tests/netlab; needs root), where a
worker has a given speed (`twinstream train --pace`), since so many share few cores."""
import json, os, subprocess, sys

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
TOOL = os.path.join(TOP, "tests", "netlab")
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
        done = subprocess.run(command, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode:
            sys.exit(f"{sys.argv[0]}: exit code {done.returncode} of {' '.join(command)}:\n{done.stderr[-2000:]}")
        return done.stdout

    def train(self, run, ranks, pace_s, batch, settle, steps, *options):
        """Steps of paced workers on synthetic pictures, `settle` more before them left out; returns run.json. A run
        that is finished is not run again."""
        if not finished(run):
            self.mpirun(ranks, "twinstream", "train", "--type", "bf16", "--batch", str(batch), "--pace", f"{pace_s:.6g}",
                        "--data", f"synthetic:train={batch * ranks * 64},test={ranks}", "--settle", str(settle),
                        "--steps", str(settle + steps), "--log-every", "1", "--evaluate-every", "0", "--export", "no",
                        "--learning-rate", "0.01", "--scale-learning-rate", "no", "--run", run, *options)
        record = read_record(run)
        print(f"{run}: {record['seconds_per_step']['step']:.4f} s a step", file=sys.stderr, flush=True)
        return record


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

"""What the folders of runs hold, read and checked; runtime/train/metrics.c writes them.

A window of metrics.jsonl has no time stamp: its seconds are its steps times batch * ranks / images_per_second,
summed up from the run's begin, so that evaluations take no time. What is unknown is NaN throughout.
"""
import json, math, os, re, statistics
from dataclasses import dataclass, field

NAN = math.nan
# how an algorithm is called, and the options of its own that its name tells; the order of all legends
ALGORITHMS = {
    "blocking": ("S-SGD, no overlap", ()),
    "ssgd": ("S-SGD", ()),
    "pipe": ("Pipe-SGD", ()),
    "od": ("OD-SGD", ()),
    "local": ("Local-SGD", ("period",)),
    "cocod": ("CoCoD-SGD", ("period",)),
    "dasgd": ("DaSGD", ("period", "delay")),
    "overlap-local": ("Overlap-Local-SGD", ("period",)),
}
LETTERS = {"period": "k", "delay": "d"}
# what methods that average models may be told beyond that, and how it is when it is not told
TOLD = {"fragments": "1", "merge": "blend", "slow-momentum": "0", "slow-rate": "1", "post-local": "0"}
LINES = {
    "window": ("step", "epoch", "samples", "loss", "images_per_second", "compute_s", "exposed_s", "comm_s"),
    "evaluation": ("step", "epoch", "test_accuracy"),
}


def listed(*parts):
    """Those that are not empty."""
    return ", ".join(filter(None, parts))


class BadData(Exception):
    """A folder or a file is not what it should be."""


@dataclass
class Run:
    folder: str
    config: dict
    record: dict  # run.json, {} without
    windows: list = field(default_factory=list)
    evaluations: list = field(default_factory=list)
    timeline: list = None
    name: str = ""  # tells it from the other runs of the report
    forecast_s: float = NAN
    ranks: int = 1
    batch: int = 1
    step_s: float = NAN
    wait_s: float = NAN
    input_s: float = 0.0  # compute waits for samples; records of earlier versions do not tell it
    comm_s: float = NAN
    spread_s: float = NAN  # standard deviation of the windows' step times
    seconds: float = NAN
    rate: float = NAN  # images/s
    accuracy: float = NAN

    @property
    def model(self):
        return clean(self.record.get("model", {}).get("name") or self.config.get("model", "?"))

    @property
    def type(self):
        return clean(self.record.get("model", {}).get("type") or self.config.get("type", "?"))

    @property
    def label(self):
        return self.config.get("label", "")

    @property
    def task(self):
        return self.model, self.type, self.batch

    @property
    def kind(self):
        return kind_of(self.config.get("algorithm", "?"), self.config.get("overlap"))

    @property
    def options(self):
        return tuple(self.config.get(key, "?") for key in ALGORITHMS.get(self.kind, ("", ()))[1])

    @property
    def algorithm(self):
        return algorithm_name(self.kind, self.options)

    @property
    def variant(self):
        """Of the options that are not in its algorithm's name those that were told."""
        if "period" not in ALGORITHMS.get(self.kind, ("", ()))[1]:
            return ""
        return ", ".join(f"{key} {value}" for key, plain in TOLD.items() if (value := self.config.get(key, plain)) != plain)

    @property
    def compression(self):
        """What travels where it is not fp32: the compressor, the option that says how much it leaves and how
        it travels if that was told."""
        name = self.config.get("compress", "none")
        how = {"qsgd": "levels", "topk": "density", "randomk": "density", "dgc": "density"}.get(name)
        travels = self.config.get("exchange", "auto") if name in ("qsgd", "terngrad") else "auto"
        return "" if name == "none" else " ".join(
            filter(None, (name, how and self.config.get(how), travels != "auto" and travels)))

    @property
    def told(self):
        """What its algorithm's name leaves out."""
        return listed(self.variant, self.compression)

    @property
    def method(self):
        return listed(self.algorithm, self.told)

    @property
    def state(self):
        return clean(self.record.get("state", "unfinished: no run.json"))

    @property
    def contention(self):
        """Compute's slow-down beside comm; a fit that is well below 0 measured something else."""
        value = self.total("contention")
        return value if value >= -0.05 else NAN

    def total(self, key):
        value = self.record.get("totals", {}).get(key)
        return float(value) if isinstance(value, (int, float)) and abs(value) < 1e300 else NAN


def clean(text):
    """Text in one line, without what XML and gnuplot cannot hold."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+", " ", str(text))


def kind_of(algorithm, overlap):
    return "blocking" if algorithm == "ssgd" and overlap in ("no", False) else algorithm


def algorithm_name(kind, options=()):
    title, keys = ALGORITHMS.get(kind, (kind, ()))
    return ", ".join([title] + [f"{LETTERS[key]} {value}" for key, value in zip(keys, options)])


def ranks_text(n):
    return f"{n} rank" if n == 1 else f"{n} ranks"


def kind_order(run):
    """Legends and bars stand in the order of ALGORITHMS, then by size."""
    kinds = list(ALGORITHMS)
    return kinds.index(run.kind) if run.kind in kinds else len(kinds), run.kind


# ---- files ----


def read_bytes(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as problem:
        raise BadData(f"cannot read {path}: {problem.strerror}") from None


def parse(where, text):
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError) as problem:
        raise BadData(f"{where} is not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise BadData(f"{where} is not a JSON object")
    return value


def read_lines(path, notes):
    """(where, object) of each line; a last line that was cut while it was written is left out."""
    lines = read_bytes(path).split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield f"{path} line {number}", parse(f"{path} line {number}", line)
        except BadData:
            if number < len(lines):
                raise
            notes.append(f"{path} line {number} is half written; it is left out.")


def number(where, record, key):
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise BadData(f'{where} has no number "{key}"')
    return float(value)


def read_config(folder, record):
    config = {}
    path = os.path.join(folder, "config")
    if os.path.exists(path):
        for line in read_bytes(path).decode(errors="replace").splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.lstrip().startswith("#"):
                config[clean(key).strip()] = clean(value).strip()
    if isinstance(record.get("config"), dict):
        config.update({clean(key): clean(value) for key, value in record["config"].items()})
    return config


def whole(where, what, value):
    try:
        n = int(value)
    except (TypeError, ValueError):
        n = 0
    if n < 1:
        raise BadData(f"{where}: {what} is {value!r}, not a whole number of at least 1")
    return n


# ---- a run ----


def read_run(folder, notes):
    at = {name: os.path.join(folder, name) for name in ("metrics.jsonl", "run.json", "config", "timeline.json")}
    if not os.path.isfile(at["metrics.jsonl"]):
        raise BadData(f"{folder} is no run's folder: it has no metrics.jsonl")
    record = parse(at["run.json"], read_bytes(at["run.json"])) if os.path.exists(at["run.json"]) else {}
    for key in ("model", "totals", "seconds_per_step", "machine", "versions"):
        if not isinstance(record.setdefault(key, {}), dict):
            raise BadData(f'{at["run.json"]}: "{key}" is not an object')
    run = Run(folder, read_config(folder, record), record)
    run.batch = whole(folder, "its option batch", run.config.get("batch"))
    for where, line in read_lines(at["metrics.jsonl"], notes):
        take_line(run, where, line)
    if "ranks" in record:
        run.ranks = whole(at["run.json"], "ranks", record["ranks"])
    elif run.windows:
        run.ranks = max(1, round(run.windows[-1]["samples"] / run.windows[-1]["step"] / run.batch))
    set_clock(run)
    set_totals(run, at["run.json"])
    if os.path.exists(at["timeline.json"]):
        run.timeline = read_timeline(at["timeline.json"])
    return run


def take_line(run, where, line):
    if line.get("kind") not in LINES:
        return
    row = {key: number(where, line, key) for key in LINES[line["kind"]]}
    window = line["kind"] == "window"
    if window:
        row["input_s"] = number(where, line, "input_s") if "input_s" in line else 0.0
    if not row["step"] > 0 or window and not row["images_per_second"] > 0:
        raise BadData(f"{where}: its step or images_per_second is not above 0")
    # a run that is resumed from an earlier checkpoint makes some steps again: the later line holds
    for rows in (run.windows, run.evaluations) if window else (run.evaluations,):
        while rows and rows[-1]["step"] >= row["step"]:
            rows.pop()
    (run.windows if window else run.evaluations).append(row)


def set_clock(run):
    """Seconds and step times of the windows; an evaluation stands at the end of the window before it."""
    before, clock = 0, 0.0
    if run.windows and run.config.get("resume") and run.config.get("log-every", "").isdigit():
        before = max(0, run.windows[0]["step"] - int(run.config["log-every"]))  # its begin lies in another folder
    for window in run.windows:
        window["step_s"] = run.batch * run.ranks / window["images_per_second"]
        window["steps"] = window["step"] - before
        clock += window["steps"] * window["step_s"]
        before, window["seconds"] = window["step"], clock
    for evaluation in run.evaluations:
        evaluation["seconds"] = max((w["seconds"] for w in run.windows if w["step"] <= evaluation["step"]), default=0)
    times = [w["step_s"] for w in settled(run)]
    if len(times) > 1:
        run.spread_s = statistics.stdev(times)


def settled(run):
    """Its windows without those of --settle, which its own times leave out."""
    settle = run.config.get("settle", "")
    return [w for w in run.windows if w["step"] > (int(settle) if settle.isdigit() else 0)]


def set_totals(run, path):
    """From run.json; from its windows where there is none, or where it tells of the last process of a resumed run."""
    windows = settled(run)
    steps = sum(window["steps"] for window in windows)
    mean = lambda key: sum(w[key] * w["steps"] for w in windows) / steps if steps else NAN
    parts = run.record["seconds_per_step"]
    guessed = windows and windows[0] is run.windows[0] and windows[0]["steps"] < windows[0]["step"]  # by set_clock
    known = steps - (windows[0]["steps"] if guessed else 0)
    last = run.total("images_per_second") * run.total("seconds") < 0.99 * run.batch * run.ranks * known
    if parts and not last:
        run.step_s, run.wait_s, run.comm_s = (number(path, parts, key) for key in ("step", "wait", "comm"))
        run.input_s = number(path, parts, "input") if "input" in parts else 0.0
    else:
        run.wait_s, run.comm_s, run.input_s = mean("exposed_s"), mean("comm_s"), mean("input_s")
        run.step_s = mean("compute_s") + run.wait_s + run.input_s
    run.seconds = run.windows[-1]["seconds"] if run.windows else run.total("seconds")
    run.rate = NAN if last else run.total("images_per_second")
    if not run.rate > 0:
        run.rate = run.batch * run.ranks * steps / sum(w["steps"] * w["step_s"] for w in windows) if steps else NAN
    run.accuracy = run.total("test_accuracy")
    if math.isnan(run.accuracy) and run.evaluations:
        run.accuracy = run.evaluations[-1]["test_accuracy"]


def read_timeline(path):
    """(rank, stream, kind, begin, end) of each span, in ms, as runtime/train/timeline.c writes them."""
    events = parse(path, read_bytes(path)).get("traceEvents")
    try:
        names = {(e["pid"], e["tid"]): clean(e["args"]["name"]) for e in events if e.get("name") == "thread_name"}
        return [(int(e["pid"]), names.get((e["pid"], e["tid"]), f"stream {e['tid']}"), clean(e["name"]),
                 float(e["ts"]) * 1e-3, (e["ts"] + e["dur"]) * 1e-3) for e in events if e["ph"] == "X"]
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as problem:
        raise BadData(f"{path} is not a timeline of twinstream: {type(problem).__name__} {problem}") from None


# ---- several runs ----


def read_runs(folders, notes):
    different = {os.path.realpath(folder): folder for folder in reversed(folders)}
    runs = [read_run(folder, notes) for folder in reversed(different.values())]
    runs.sort(key=lambda run: (run.model, run.type, run.batch, run.label, run.ranks, kind_order(run),
                              [(len(option), option) for option in run.options]))
    names = names_of(runs)
    for run in runs:
        run.name = names[id(run)]
    return runs


def names_of(runs):
    """{id of a run: name}: its method; where runs share that, what else tells them apart."""
    names = {id(run): run.method for run in runs}
    more = (lambda run: ranks_text(run.ranks), lambda run: run.model, lambda run: run.label, lambda run: run.type,
            lambda run: f"batch {run.batch}", lambda run: os.path.basename(os.path.realpath(run.folder)),
            lambda run: run.folder)
    for text in more:
        same = {}
        for run in runs:
            same.setdefault(names[id(run)], []).append(run)
        for group in same.values():
            if len({text(run) for run in group}) > 1:
                for run in group:
                    names[id(run)] = clean(listed(names[id(run)], text(run)))
    return names


def one_rank(runs, run):
    """The run on one rank that a run is held against: same model, type and batch; its label, else none."""
    fits = [r for r in runs if r.ranks == 1 and r.task == run.task and r.label in (run.label, "") and r.rate > 0]
    return min(fits, key=lambda r: (r.label != run.label, r.kind != run.kind), default=None)


def blocking(runs, run):
    """Runs of S-SGD without overlap, in fp32, of the same task, label and size."""
    fits = [r for r in runs if (r.task, r.label, r.ranks) == (run.task, run.label, run.ranks) and not r.compression]
    return [r for r in fits if r.kind == "blocking" and r.rate > 0]


def read_plan(path, runs, notes):
    """Give each run the forecast of its step; of compression the plan knows too little, of --post-local nothing."""
    for where, line in read_lines(path, notes):
        step_s = number(where, line, "step_s")
        kind = kind_of(line.get("algorithm"), line.get("overlap"))
        if line.get("compress", "none") != "none":
            continue
        for run in runs:
            keys = ALGORITHMS.get(run.kind, ("", ()))[1]
            mine = dict(zip(keys, run.options), model=run.model, label=run.label, ranks=run.ranks,
                        fragments=run.config.get("fragments", "1"))
            if run.compression or float(run.config.get("post-local", 0)):
                continue
            if kind == run.kind and all(str(line.get(key, value)) == str(value) for key, value in mine.items()):
                run.forecast_s = step_s if step_s > 0 else NAN
    if all(math.isnan(run.forecast_s) for run in runs):
        notes.append(f"No line of {path} fits one of the runs.")


def differ(runs, value):
    """{value: names of its runs} where the runs do not agree, else {}."""
    groups = {}
    for run in runs:
        groups.setdefault(value(run), []).append(run.name)
    return groups if len(groups) > 1 else {}


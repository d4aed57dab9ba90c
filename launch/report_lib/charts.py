"""The charts, each drawn by gnuplot as SVG, with the numbers it draws as tables.

Colours hold for all charts: one for each algorithm, one for each part of a step; both can be told apart by
the colour-blind. Runs of one algorithm differ in shade and dashes.
"""
import itertools, math, re, shutil, statistics, subprocess
from dataclasses import dataclass, field

from report_lib.runs import ALGORITHMS, NAN, algorithm_name, blocking, clean, kind_order, names_of, one_rank, ranks_text

WIDTH = 1080
# colour and gnuplot's filled point; the open one is the number before
KINDS = {"blocking": ("#4d4d4d", 5), "ssgd": ("#0072b2", 7), "local": ("#e69f00", 9), "cocod": ("#009e73", 13),
         "dasgd": ("#d55e00", 11)}
OTHERS = [("#cc79a7", 15), ("#56b4e9", 5), ("#7a5195", 7), ("#8c6d31", 9)]
DASHES = ["solid", "(10,4)", "(3,3)", "(12,3,3,3)", "(6,2)"]
PARTS = {"forward": "#a6c8e4", "backward": "#4c7fb0", "update": "#eedd88", "merge": "#aa4499", "wait": "#bb5566",
         "comm": "#44aa99", "data": "#777777", "evaluate": "#bbbbbb"}
COMPUTE, CONTENTION = "#7f9fbf", "#ddaa33"
MOST_POINTS, MOST_LINES, MOST_BARS, MOST_PANELS = 200, 8, 24, 6
STEPS, MOST_STEPS, MOST_RANKS = 8, 40, 4  # of a timeline


class Fault(Exception):
    """gnuplot is missing or failed."""


@dataclass
class Figure:
    title: str
    caption: str
    svg: str
    tables: list = field(default_factory=list)  # (heading, names of the columns, rows)


# ---- gnuplot ----

numbers = itertools.count(1)  # makes the names inside the drawings of a page unique


def gnuplot(title, width, height, script):
    if not shutil.which("gnuplot"):
        raise Fault("gnuplot is missing: install gnuplot-nox")
    mark = f"c{next(numbers)}"
    head = f"""set terminal svg size {width:.0f},{height:.0f} noenhanced font "sans-serif,12" background "white" name "{mark}"
set encoding utf8
set border 3 lc rgb "#888888"
set tics nomirror scale 0.5 textcolor rgb "#333333"
set grid lc rgb "#e4e4e4" lt 1 lw 0.6
set key noautotitle
"""
    done = subprocess.run(["gnuplot", "-d"], input=(head + script).encode(), capture_output=True)
    svg = done.stdout.decode(errors="replace")
    if done.returncode or "</svg>" not in svg:
        raise Fault(f"gnuplot failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    svg = re.sub(r"(id=|href=|url\()(['\"]?)(#?)(gp|textbox|greybox)", rf"\1\2\3{mark}\4", svg)
    svg = re.sub(rf"<title>{mark}_plot_\w+</title>", "", svg)  # would be shown where a mouse rests
    svg = re.sub(r"<title>\w+</title>\s*<desc>[^<]*</desc>", f"<title>{escape(title)}</title>", svg, count=1)
    return svg[svg.index("<svg"):].replace("<svg", '<svg role="img"', 1)


def escape(text):
    return clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def quote(text):
    """In single quotes gnuplot reads nothing but the doubled quote."""
    return "'" + clean(text).replace("'", "''") + "'"


def block(name, rows):
    lines = [" ".join("NaN" if isinstance(x, float) and not math.isfinite(x) else f"{x:.9g}" for x in row) for row in rows]
    return f"${name} << EOD\n" + "\n".join(lines) + "\nEOD\n"


def tics(axis, highest, most=5):
    """At most so many round steps up to the highest value: labels then have room."""
    rough = max(highest, 1e-9) / most
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * f for f in (1, 2, 2.5, 5, 10) if unit * f >= rough * 0.999)
    return f"set {axis}tics {step:.9g}\n"


def short(text, most=44):
    return text if len(text) <= most else text[: most - 1] + "…"


def legend(entries, width, height, top):
    """A strip of its own below `top` (a share of the height): entries are (how it is drawn, name)."""
    rows = legend_rows(entries, width)
    plots = ", ".join(f"keyentry {style} title {quote(short(name))}" for style, name in entries)
    return f"""unset title; unset xlabel; unset ylabel; unset tics; unset border; unset grid; unset logscale
set lmargin at screen 0; set rmargin at screen 1; set bmargin at screen 0; set tmargin at screen {top:.4f}
set key at screen 0.5,{top / 2:.4f} center center vertical maxrows {rows} Left reverse samplen 3 width 1
set xrange [0:1]; set yrange [0:1]
plot NaN notitle, {plots}
"""


def legend_rows(entries, width):
    longest = max(len(short(name)) for _, name in entries)
    return math.ceil(len(entries) / max(1, int(width / (longest * 8.3 + 66))))


def styles(members):
    """How each (name, kind) is drawn: colour, point and dashes."""
    unknown = sorted({kind for _, kind in members if kind not in KINDS})
    found, seen = {}, {}
    for name, kind in members:
        colour, point = KINDS[kind] if kind in KINDS else OTHERS[unknown.index(kind) % len(OTHERS)]
        n = seen[kind] = seen.get(kind, -1) + 1
        found[name] = (shade(colour, (0, 0.45, -0.35, 0.25, -0.6)[n % 5]), point, DASHES[n % 5])
    return found


def shade(colour, share):
    """Lighter (share above 0) or darker."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(p + (255 - p) * share if share > 0 else p * (1 + share)):02x}" for p in parts)


def text(value, digits=4):
    """So many significant digits, at most three decimals; a dash for what is unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{decimals(value, digits)}f}".replace("-", "−")


def fixed(value, places=1):
    return f"{value:.{places}f}".replace("-", "−") if math.isfinite(value) else "–"


def decimals(value, digits=4):
    return min(3, max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0)))


def chunks(items, most):
    return [items[i : i + most] for i in range(0, len(items), most)]


def grouped(runs, key):
    groups = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.items())


def parted(runs, key, most):
    """[(key, runs)] for charts that can show so many; a run on one rank stands beside all that it serves."""
    if len(runs) <= most:
        return [((), runs)] if runs else []
    ones = [run for run in runs if run.ranks == 1]
    serves = lambda one, members: any(one.task == run.task and one.label in ("", run.label) for run in members)
    groups = [(k, [one for one in ones if serves(one, members)] + members)
              for k, members in grouped([run for run in runs if run.ranks > 1], key)]
    return groups + grouped([one for one in ones if not any(one in members for _, members in groups)], key)


def off(run):
    """The forecast in ms, and by how many per cent it misses the measured step."""
    forecast = run.forecast_s * 1e3
    return [text(forecast), fixed(100 * (run.forecast_s / run.step_s - 1)) if run.step_s > 0 else "–"]


OFF = ["forecast ms a step", "off by %"]

# ---- curves ----


def thin(windows):
    """Means of neighbouring windows where there are more than a line can show."""
    n = math.ceil(len(windows) / MOST_POINTS)
    return [dict(part[-1], loss=statistics.fmean(w["loss"] for w in part)) for part in chunks(windows, n or 1)]


def curves(runs):
    runs = [run for run in runs if run.windows]
    title = "Training loss and test accuracy"
    for key, members in parted(runs, lambda run: (run.model, run.label, ranks_text(run.ranks)), MOST_LINES):
        yield curves_figure(members, ": ".join(filter(None, (title, ", ".join(filter(None, key))))))


def curves_figure(runs, title):
    names = names_of(runs)
    style = styles([(names[id(run)], run.kind) for run in sorted(runs, key=lambda run: run.ranks == 1)])
    lines = [thin(run.windows) for run in runs]
    script, rows = "", ["training loss"]
    for i, run in enumerate(runs):
        script += block(f"w{i}", [[w[key] for key in ("epoch", "step", "seconds", "loss")] for w in lines[i]])
        if run.evaluations:
            script += block(f"e{i}", [[e[key] for key in ("epoch", "step", "seconds")] + [100 * e["test_accuracy"]]
                                      for e in run.evaluations])
            rows = ["training loss", "test accuracy, %"]
    entries = [(f"with linespoints lw 1.6 ps 0.6 lc rgb '{c}' pt {p} dt {d}", name) for name, (c, p, d) in style.items()]
    strip = 18 * legend_rows(entries, WIDTH) + 14
    panel = 280
    height = panel * len(rows) + strip
    script += "set multiplot\n"
    ends = {axis: max(run.windows[-1][axis] for run in runs) for axis in ("epoch", "step", "seconds")}
    accuracies = [100 * e["test_accuracy"] for run in runs for e in run.evaluations]
    for row, label in enumerate(rows):
        y_range = span(accuracies) if row else "[*:*]"
        for column, axis in enumerate(("epoch", "step", "seconds")):
            left, top = WIDTH / 3 * column, height - panel * row
            script += f"""set lmargin at screen {(left + 58) / WIDTH:.4f}; set rmargin at screen {(left + WIDTH / 3 - 16) / WIDTH:.4f}
set tmargin at screen {(top - 28) / height:.4f}; set bmargin at screen {(top - panel + 54) / height:.4f}
set title '{label}, by {axis}' offset 0,-0.5; set xlabel '{axis}' offset 0,0.4
set xrange [0:{1.02 * ends[axis]:.9g}]; set yrange {y_range}
""" + tics("x", ends[axis])
            plots = [f"${'w' if row == 0 else 'e'}{i} using {column + 1}:4 with {'lines' if row == 0 else 'linespoints'} "
                     f"lw 1.6 ps 0.6 lc rgb '{style[names[id(run)]][0]}' pt {style[names[id(run)]][1]} dt {style[names[id(run)]][2]}"
                     for i, run in enumerate(runs) if row == 0 or run.evaluations]
            script += "plot " + ", ".join(plots) + "\n"
    script += legend(entries, WIDTH, height, strip / height) + "unset multiplot\n"
    caption = ("Training loss is the mean over a window of steps, test accuracy that of the consensus model. Seconds count "
               "from the run’s begin and are reckoned from the windows’ images/s: the time of evaluations is left out.")
    if any(len(line) < len(run.windows) for line, run in zip(lines, runs)):
        caption += f" Where a run has more than {MOST_POINTS} windows, a point is the mean of several."
    return Figure(title, caption, gnuplot(title, WIDTH, height, script),
                  [curve_table(run, names[id(run)], line) for run, line in zip(runs, lines)])


def span(values):
    """A range of at least 10 around values that hardly differ."""
    middle, half = (min(values) + max(values)) / 2, (max(values) - min(values)) / 2
    return f"[{max(0, middle - 5):.9g}:{max(0, middle - 5) + 10:.9g}]" if half < 4 else "[*:*]"


def curve_table(run, name, line):
    at = {w["step"]: [w["epoch"], w["seconds"], w["loss"], NAN] for w in line}
    for e in run.evaluations:
        at.setdefault(e["step"], [e["epoch"], e["seconds"], NAN, NAN])[3] = 100 * e["test_accuracy"]
    rows = [[f"{step:.0f}", text(v[0]), text(v[1]), text(v[2]), fixed(v[3], 2)] for step, v in sorted(at.items())]
    return name, ["step", "epoch", "seconds", "loss", "accuracy %"], rows


# ---- the time of a step ----


def parts_of(runs, run):
    """Compute, contention, exposed and hidden communication, in ms a step; contention is NaN without its one-rank run."""
    base = one_rank(runs, run)
    own = run.step_s - run.wait_s
    alone = base.step_s - base.wait_s if base and run.ranks > 1 else NAN
    return [1e3 * t for t in (own if math.isnan(alone) else alone, own - alone, run.wait_s, max(0, run.comm_s - run.wait_s))]


def step_times(runs, planned):
    several = len({run.task for run in runs}) > 1
    for task, members in grouped([run for run in runs if run.step_s > 0], lambda run: run.task):
        for label, part in parted(members, lambda run: (run.label,), MOST_BARS):
            what = ", ".join([*task[:2], f"batch {task[2]}"] * several + [name for name in label if name])
            for bars in chunks(part, MOST_BARS):
                yield step_figure(runs, bars, "Time of a step" + (what and f": {what}"), planned)


def step_figure(runs, members, title, planned):
    names = names_of(members)
    bars, hidden, ends, forecasts, rows = {"compute": [], "contention": [], "exposed": []}, [], [], [], []
    for i, run in enumerate(members):
        compute, contention, exposed, behind = parts_of(runs, run)
        whole, spread = run.step_s * 1e3, run.spread_s * 1e3
        slower = max(0, contention) if math.isfinite(contention) else 0
        left = 0
        for name, length in (("compute", whole - exposed - slower), ("contention", slower), ("exposed", exposed)):
            bars[name].append((0, 0, left, left + length, i - 0.34, i + 0.1))
            left += length
        hidden.append((0, 0, 0, behind, i + 0.14, i + 0.34))
        ends.append((whole, i - 0.12, spread, whole + (0 if math.isnan(spread) else spread)))
        if run.forecast_s > 0:
            forecasts.append((run.forecast_s * 1e3, i + 0.24))
        rows.append([names[id(run)], text(whole), text(spread), text(compute), text(contention), text(exposed), text(behind)]
                    + (off(run) if planned else []))
    contended = any(row[4] != "–" for row in rows)
    margin = 7 * max(len(short(name)) for name in names.values()) + 20
    highest = max([end[3] for end in ends] + [x for x, _ in forecasts] + [h[3] for h in hidden])
    fills = [("compute", COMPUTE, "solid 1"), ("contention", CONTENTION, "solid 1"), ("exposed", PARTS["wait"], "solid 1")]
    entries = [(f"with boxes fs {fs} noborder fc rgb '{c}'", {"compute": "compute", "contention": "contention",
               "exposed": "exposed communication"}[n]) for n, c, fs in fills if n != "contention" or contended]
    entries.append((f"with boxes fs pattern 4 border fc rgb '{PARTS['comm']}'", "hidden communication"))
    script = "".join(block(name, bars[name]) for name in bars) + block("hidden", hidden) + block("ends", ends)
    plots = [f"$%s using 1:2:3:4:5:6 with boxxyerror fs {fs} noborder fc rgb '{c}'" % n for n, c, fs in fills]
    plots.append(f"$hidden using 1:2:3:4:5:6 with boxxyerror fs pattern 4 border fc rgb '{PARTS['comm']}'")
    plots.append("$ends using 1:2:3 with xerrorbars pt 0 lw 1.2 lc rgb '#222222'")
    plots.append(f"$ends using 4:2:(sprintf('%.{decimals(highest)}f ms', $1)) with labels left offset 0.6,0 tc rgb '#222222'")
    if forecasts:
        script += block("forecasts", forecasts)
        plots.append("$forecasts using 1:2 with points pt 12 ps 1.1 lw 1.4 lc rgb '#000000'")
        entries.append(("with points pt 12 ps 1.1 lw 1.4 lc rgb '#000000'", "forecast"))
    strip = 18 * legend_rows(entries, WIDTH) + 14
    height = 34 * len(members) + 60 + strip
    rows_of = ", ".join(f"{quote(short(names[id(run)]))} {i}" for i, run in enumerate(members))
    script += f"""set multiplot
set lmargin at screen {margin / WIDTH:.4f}; set rmargin at screen {1 - 20 / WIDTH:.4f}
set tmargin at screen {1 - 8 / height:.4f}; set bmargin at screen {(strip + 46) / height:.4f}
set ytics ({rows_of}) scale 0; set grid noytics; set xlabel 'ms a step' offset 0,0.4
set xrange [0:{1.12 * highest:.9g}]; set yrange [{len(members) - 0.5}:-0.5]
{tics("x", highest, 10)}plot {", ".join(plots)}
{legend(entries, WIDTH, height, strip / height)}unset multiplot
"""
    caption = ("A step’s length is compute, contention and exposed communication (the time that compute waits for comm); the whisker "
               "is the standard deviation over the windows. The hatched bar is communication hidden beside compute: it "
               "adds nothing to the step.")
    if contended:
        caption += (" Compute is the step without waits of the run on one rank of the same model, type and batch; contention "
                    "is by how much the run’s own is longer than that. Where it is shorter, it is drawn as it was.")
    else:
        caption += " Without a run on one rank among them contention cannot be told apart: it is part of compute."
    columns = ["run", "step ms", "standard deviation", "compute ms", "contention ms", "exposed ms", "hidden ms"]
    return Figure(title, caption, gnuplot(title, WIDTH, height, script),
                  [("", columns + (OFF if planned else []), rows)])


# ---- speedup ----


def series(runs):
    """{id of a run: name of its line}: the algorithm, with its options where they are one set or are compared."""
    names = {}
    for kind, members in grouped(runs, lambda run: run.kind):
        places = [(run.task, run.label, run.ranks) for run in members]
        compared = any(len({r.options for r, at in zip(members, places) if at == place}) > 1 for place in set(places))
        told = compared or len({run.options for run in members}) == 1
        names.update({id(run): run.algorithm if told else algorithm_name(kind) for run in members})
    return names


def series_styles(runs, names):
    return styles(sorted({names[id(run)]: run.kind for run in runs}.items(), key=lambda s: names_order(runs, names, s[0])))


def names_order(runs, names, name):
    return next((kind_order(run), [(len(o), o) for o in run.options]) for run in runs if names[id(run)] == name)


def place(run):
    return run.task, run.label


def place_name(runs, at):
    """What tells a model (and a network: its label) from the others drawn."""
    (model, kind, batch), label = at
    tasks = {run.task for run in runs}
    parts = [model, label]
    parts += [kind] if len({t[1] for t in tasks}) > 1 else []
    parts += [f"batch {batch}"] if len({t[2] for t in tasks}) > 1 else []
    return ", ".join(filter(None, parts))


def mean(values):
    values = [value for value in values if math.isfinite(value)]
    return statistics.fmean(values) if values else NAN


def forecast_rate(run):
    return run.ranks * run.batch / run.forecast_s


def sized(runs):
    """Runs on several ranks that have a run on one rank to be held against."""
    return [run for run in runs if run.ranks > 1 and run.rate > 0 and one_rank(runs, run)]


def speedups(runs, planned):
    groups = grouped(sized(runs), place)
    for number, part in enumerate(chunks(groups, MOST_PANELS)):
        yield speedup_figure(runs, part, "Time speedup over one rank" + (f" ({number + 1})" if number else ""), planned)


def speedup_figure(runs, groups, title, planned):
    drawn = [run for _, members in groups for run in members]
    names = series(drawn)
    style = series_styles(drawn, names)
    columns = 2 if len(groups) in (2, 4) else min(len(groups), 3)
    width = WIDTH if columns > 1 else 640
    panel = 400 if columns == 1 else 360
    entries = [(f"with linespoints lw 1.8 ps 0.8 lc rgb '{c}' pt {p}", name) for name, (c, p, _) in style.items()]
    entries.append(("with lines dt (2,3) lw 1.2 lc rgb '#888888'", "ideal"))
    foreseen = any(run.forecast_s > 0 for run in drawn)
    if foreseen:
        entries.append(("with linespoints dt (6,4) lw 1.2 ps 0.9 lc rgb '#333333' pt 6", "forecast (open)"))
    strip = 18 * legend_rows(entries, width) + 14
    height = panel * math.ceil(len(groups) / columns) + strip
    script, rows = "", []
    for g, (at, members) in enumerate(groups):
        sizes = sorted({1} | {run.ranks for run in members})
        ratios = [run.rate / one_rank(runs, run).rate for run in members]
        highest, lowest = max([max(sizes)] + ratios), 0.9 * min([1] + ratios)
        left, top = width / columns * (g % columns), height - panel * (g // columns)
        plots = ["x with lines dt (2,3) lw 1.2 lc rgb '#888888'"]
        for n, name in enumerate(style):
            own = [run for run in members if names[id(run)] == name]
            if not own:
                continue
            measured, forecast = [(1, 1)], [(1, 1)]
            for size in sorted({run.ranks for run in own}):
                there = [run for run in own if run.ranks == size]
                base = one_rank(runs, there[0]).rate
                measured.append((size, mean(run.rate for run in there) / base))
                forecast.append((size, mean(forecast_rate(run) for run in there) / base))
            colour, point, _ = style[name]
            script += block(f"m{g}_{n}", measured)
            plots.append(f"$m{g}_{n} using 1:2 with linespoints lw 1.8 ps 0.8 lc rgb '{colour}' pt {point}")
            forecast = [f for f in forecast if math.isfinite(f[1])]
            if len(forecast) > 1:
                script += block(f"f{g}_{n}", forecast)
                plots.append(f"$f{g}_{n} using 1:2 with linespoints dt (6,4) lw 1.2 ps 0.9 lc rgb '{colour}' pt {point - 1}")
        logarithmic = max(sizes) > 16
        script += ("set multiplot\n" if not g else "") + f"""{"set logscale xy 2" if logarithmic else "unset logscale"}
set lmargin at screen {(left + 58) / width:.4f}; set rmargin at screen {(left + width / columns - 18) / width:.4f}
set tmargin at screen {(top - 28) / height:.4f}; set bmargin at screen {(top - panel + 48) / height:.4f}
set title {quote(short(place_name(drawn, at), 60))} offset 0,-0.5
set xlabel 'ranks' offset 0,0.4; set ylabel 'speedup over one rank' offset 1.5,0
set xrange [{1 if len(sizes) > 1 else 0}:{max(sizes) * 1.04:.9g}]; set yrange [{lowest if logarithmic else 0}:{highest * 1.04:.9g}]
set xtics ({", ".join(map(str, sizes))}); set ytics autofreq
plot {", ".join(plots)}
"""
        rows += [speedup_row(runs, run, drawn, planned) for run in members]
    script += legend(entries, width, height, strip / height) + "unset multiplot\n"
    caption = ("Images/s over those of the run on one rank of the same model, type and batch. The dotted line is a speedup "
               "equal to the number of ranks.")
    if "\nset logscale" in script:
        caption += " Axes are logarithmic where there are more than 16 ranks."
    if foreseen:
        caption += " Dashed lines with open points are the forecast, over the same measured run on one rank."
    return Figure(title, caption, gnuplot(title, width, height, script), [("", SPEEDUP + (
        ["forecast speedup", "ms a step"] + OFF if planned else []), rows)])


SPEEDUP = ["model", "ranks", "algorithm", "images/s", "on one rank", "speedup", "of ideal %", "over blocking S-SGD"]


def over_blocking(runs, run):
    base = blocking(runs, run)
    return run.rate / base.rate if base else NAN


def speedup_row(runs, run, drawn, planned):
    base = one_rank(runs, run)
    ratio = run.rate / base.rate if base else NAN
    row = [place_name(drawn, place(run)), str(run.ranks), run.algorithm, text(run.rate), text(base.rate if base else NAN),
           text(ratio), fixed(100 * ratio / run.ranks), text(over_blocking(runs, run))]
    return row + [text(forecast_rate(run) / base.rate if base else NAN), text(run.step_s * 1e3), *off(run)] if planned else row


def gains(runs, planned):
    """Speedup over blocking S-SGD where that ran on most ranks, a group of bars for each model and label."""
    largest = []
    for at, members in grouped([run for run in runs if run.ranks > 1 and run.rate > 0], place):
        size = max((run.ranks for run in members if run.kind == "blocking"), default=0)
        there = [run for run in members if run.ranks == size]
        if len(there) > 1:
            largest.append((at, there))
    if not largest:
        return
    bars = len({run.algorithm for _, members in largest for run in members})
    for number, part in enumerate(chunks(largest, max(1, 28 // bars))):
        yield gain_figure(runs, part, "Speedup over blocking S-SGD" + (f" ({number + 1})" if number else ""), planned)


def gain_figure(runs, groups, title, planned):
    drawn = [run for _, members in groups for run in members]
    names = series(drawn)
    style = series_styles(drawn, names)
    width = max(480, min(WIDTH, 90 + len(groups) * (len(style) * 44 + 40)))
    bar = 0.84 / len(style)
    script, plots, tops, foreseen, labels, rows = "", [], [], [], [], []
    data = {name: [] for name in style}
    for g, (at, members) in enumerate(groups):
        base = blocking(runs, members[0]).rate
        base_forecast = mean(forecast_rate(run) for run in members if run.kind == "blocking")
        labels.append('."\\n".'.join(quote(short(part, int(width / len(groups) / 7))) for part in
                                     (place_name(drawn, at), ranks_text(members[0].ranks))) + f" {g}")
        for n, name in enumerate(style):
            own = [run for run in members if names[id(run)] == name]
            if not own:
                continue
            x, height = g - 0.42 + bar * (n + 0.5), mean(run.rate for run in own) / base
            forecast = mean(forecast_rate(run) for run in own) / base_forecast
            data[name].append((x, height, bar * 0.9))
            tops.append((x, max(height, forecast if math.isfinite(forecast) else 0), height))
            if math.isfinite(forecast):
                foreseen.append((x, forecast))
        rows += [speedup_row(runs, run, drawn, planned) for run in members]
    for n, name in enumerate(style):
        script += block(f"b{n}", data[name])
        plots.append(f"$b{n} using 1:2:3 with boxes fs solid 1 noborder fc rgb '{style[name][0]}'")
    entries = [(f"with boxes fs solid 1 noborder fc rgb '{style[name][0]}'", name) for name in style]
    script += block("tops", tops)
    plots.append("$tops using 1:2:(sprintf('%.2f', $3)) with labels offset 0,0.8 font 'sans-serif,11' tc rgb '#222222'")
    if foreseen:
        script += block("foreseen", foreseen)
        plots.append("$foreseen using 1:2 with points pt 12 ps 1.1 lw 1.4 lc rgb '#000000'")
        entries.append(("with points pt 12 ps 1.1 lw 1.4 lc rgb '#000000'", "forecast"))
    strip = 18 * legend_rows(entries, width) + 14
    height = 330 + strip
    script += f"""set multiplot
set lmargin at screen {58 / width:.4f}; set rmargin at screen {1 - 12 / width:.4f}
set tmargin at screen {1 - 12 / height:.4f}; set bmargin at screen {(strip + 48) / height:.4f}
set xtics ({", ".join(labels)}) scale 0; set grid noxtics; set ylabel 'speedup over blocking S-SGD' offset 1.5,0
set xrange [-0.5:{len(groups) - 0.5}]; set yrange [0:{1.15 * max(top for _, top, _ in tops):.9g}]
set arrow from graph 0, first 1 to graph 1, first 1 nohead dt (2,3) lc rgb '#888888' back
plot {", ".join(plots)}
unset arrow
{legend(entries, width, height, strip / height)}unset multiplot
"""
    caption = "Images/s over those of S-SGD without overlap on the same number of ranks, the largest on which it ran."
    if foreseen:
        caption += " A diamond is the forecast, over the forecast of blocking S-SGD."
    return Figure(title, caption, gnuplot(title, width, height, script), [("", SPEEDUP + (
        ["forecast speedup", "ms a step"] + OFF if planned else []), rows)])


# ---- timelines ----


def last_rounds(timeline, first_rank):
    """(begin, end, steps, of how many, whether they are rounds): the last two rounds, merge to merge; the last
    steps where nothing is merged, or rounds are too long to draw."""
    own = sorted((s for s in timeline if s[0] == first_rank), key=lambda s: s[3])
    steps = [(begin, end) for _, _, kind, begin, end in own if kind == "step"]
    merges = [(begin, end) for _, _, kind, begin, end in own if kind == "merge"]
    waits = [(begin, end) for _, _, kind, begin, end in own if kind == "wait"]
    within = lambda spans, step: any(step[0] <= s[0] and s[1] <= step[1] for s in spans)
    merging = [i for i, step in enumerate(steps) if within(waits, step) and within(merges, step)]
    if len(merging) > 1:
        last = merging[-1]
        first = merging[-3] + 1 if len(merging) > 2 else 0
        rounds = last - first < MOST_STEPS
        first = first if rounds else last - STEPS + 1
    else:
        last, first, rounds = len(steps) - 1, max(0, len(steps) - STEPS), False
    return steps[first][0], steps[last][1], last - first + 1, len(steps), rounds


def timelines(runs):
    for run in runs:
        if run.timeline and any(span[2] == "step" for span in run.timeline):
            yield timeline_figure(run)


def timeline_figure(run):
    all_ranks = sorted({span[0] for span in run.timeline})
    ranks = all_ranks[:MOST_RANKS]
    begin, end, n, of, rounds = last_rounds(run.timeline, next(s[0] for s in run.timeline if s[2] == "step"))
    spans = [s for s in run.timeline if s[0] in ranks and s[2] != "step" and s[4] > begin and s[3] < end]
    streams = sorted({(s[0], s[1]) for s in spans}, key=lambda s: (s[0], s[1] != "compute", s[1]))
    rows = {stream: i + 0.4 * ranks.index(stream[0]) for i, stream in enumerate(streams)}
    kinds = [k for k in PARTS if any(s[2] == k for s in spans)] + sorted({s[2] for s in spans} - set(PARTS))
    colours = {kind: PARTS.get(kind, "#000000") for kind in kinds}
    entries = [(f"with boxes fs solid 1 noborder fc rgb '{colours[k]}'", k) for k in kinds]
    bottom = max(rows.values()) + 1
    height = 30 * bottom + 92
    script, plots = "", []
    for n_kind, kind in enumerate(kinds):
        script += block(f"k{n_kind}", [(0, 0, max(s[3], begin) - begin, min(s[4], end) - begin, rows[s[:2]] - 0.42,
                                        rows[s[:2]] + 0.42) for s in spans if s[2] == kind])
        plots.append(f"$k{n_kind} using 1:2:3:4:5:6 with boxxyerror fs solid 1 noborder fc rgb '{colours[kind]}'")
    names = ", ".join(f"{quote(f'rank {rank} {stream}')} {rows[rank, stream]}" for rank, stream in streams)
    title = f"Timeline: {run.name}"
    script += f"""set multiplot
set lmargin at screen {130 / WIDTH:.4f}; set rmargin at screen {1 - 20 / WIDTH:.4f}
set tmargin at screen {1 - 8 / height:.4f}; set bmargin at screen {76 / height:.4f}
set ytics ({names}) scale 0; set grid noytics; set xlabel 'ms' offset 0,0.4
set xrange [0:{end - begin:.9g}]; set yrange [{bottom - 0.4}:-0.6]
{tics("x", end - begin, 10)}plot {", ".join(plots)}
{legend(entries, WIDTH, height, 34 / height)}unset multiplot
"""
    caption = (f"The last {'two rounds, merge to merge: ' if rounds else ''}{n} of the {of} steps recorded, both streams of each rank"
               + (f"; the first {MOST_RANKS} of {len(all_ranks)} ranks" if len(all_ranks) > MOST_RANKS else "") + ".")
    tables = []
    for rank in ranks:
        listed = sorted((s for s in spans if s[0] == rank), key=lambda s: (s[1] != "compute", s[3]))
        tables.append((f"rank {rank}", ["stream", "kind", "begin ms", "ms"],
                       [[s[1], s[2], text(s[3] - begin, 6), text(s[4] - s[3])] for s in listed]))
    return Figure(title, caption, gnuplot(title, WIDTH, height, script), tables)


# ---- one picture ----


def picture(runs):
    groups = grouped(sized(runs), place)
    figure = (speedup_figure(runs, groups, "Time speedup over one rank", False) if groups else next(curves(runs), None))
    if not figure:
        raise Fault("--picture: the runs have neither several sizes nor a window of steps to draw")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + figure.svg

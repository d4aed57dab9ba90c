"""What is drawn: each figure with its caption and the numbers behind it as tables.

Colours hold for all charts: one for each algorithm, one for each part of a step, chosen so that the colour-blind
can tell them apart. Runs of one algorithm differ in shade, dashes and point. What one chart could not show so that each
can be told from the others is drawn in several.
"""
import math, statistics
from dataclasses import dataclass

from report_lib.drawing import Drawing, Fault, named_tics, quote, round_step, shade, short, tics
from report_lib.runs import NAN, algorithm_name, blocking, kind_order, listed, names_of, one_rank, ranks_text

WIDTH = 1080
# colour and gnuplot's filled point; the open one is the number before
KINDS = {"blocking": ("#4d4d4d", 5), "ssgd": ("#0072b2", 7), "local": ("#e69f00", 9), "cocod": ("#009e73", 13),
         "dasgd": ("#d55e00", 11), "pipe": ("#56b4e9", 5), "od": ("#7a5195", 7), "overlap-local": ("#cc79a7", 15)}
OTHERS = [("#8c6d31", 9), ("#882255", 15), ("#999933", 5), ("#332288", 7)]
SHADES = [0, 0.45, -0.35, 0.25, -0.6]
DASHES = ["solid", "(10,4)", "(3,3)", "(12,3,3,3)", "(6,2)"]
POINTS = [5, 9, 15, 11, 7, 13]
PARTS = {"input": "#882255", "data": "#777777", "forward": "#a6c8e4", "backward": "#4c7fb0", "update": "#eedd88", "merge": "#aa4499",
         "wait": "#bb5566", "comm": "#44aa99", "evaluate": "#bbbbbb"}
COMPUTE, CONTENTION = "#7f9fbf", "#ddaa33"
FORECAST = "with points pt 12 ps 1.1 lw 1.4 lc rgb '#000000'"
IDEAL = "with lines dt (2,3) lw 1.2 lc rgb '#888888'"
MOST_POINTS, MOST_LINES, MOST_BARS, MOST_PANELS = 200, 8, 24, 6
STEPS, MOST_STEPS, MOST_RANKS = 8, 40, 4  # of a timeline
OFF = ["forecast ms a step", "off by %"]


@dataclass
class Figure:
    title: str
    caption: str
    svg: str
    tables: list  # (heading, names of the columns, rows)


# ---- numbers and groups ----


def text(value, digits=4):
    """So many significant digits, at most three decimals; a dash for what is unknown."""
    return fixed(value, decimals(value, digits) if math.isfinite(value) else 0)


def decimals(value, digits=4):
    return min(3, max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0)))


def fixed(value, places=1):
    return f"{value:.{places}f}".replace("-", "−") if math.isfinite(value) else "–"


def off(run):
    """The forecast in ms, and by how many per cent it misses the measured step."""
    return [text(run.forecast_s * 1e3), fixed(100 * (run.forecast_s / run.step_s - 1)) if run.step_s > 0 else "–"]


def mean(values):
    values = [value for value in values if math.isfinite(value)]
    return statistics.fmean(values) if values else NAN


def chunks(items, most):
    return [items[i : i + most] for i in range(0, len(items), most)]


def split(items, most):
    """[(which part, items)]: as few parts as can be, of one size."""
    n = math.ceil(len(items) / most)
    parts = enumerate(chunks(items, math.ceil(len(items) / n)), 1)
    return [(f"part {i} of {n}" if n > 1 else "", part) for i, part in parts]


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


def headed(title, *what):
    what = listed(*what)
    return f"{title}: {what}" if what else title


def styles(members):
    """{name: (colour, point, dashes)} of (name, kind) pairs."""
    unknown = sorted({kind for _, kind in members if kind not in KINDS})
    found, seen = {}, {}
    for name, kind in members:
        colour, point = KINDS[kind] if kind in KINDS else OTHERS[unknown.index(kind) % len(OTHERS)]
        turn, n = divmod(seen.get(colour, 0), len(SHADES))  # a turn on, each shade has other dashes and points
        seen[colour] = seen.get(colour, 0) + 1
        point = POINTS[(POINTS.index(point) + turn) % len(POINTS)]
        found[name] = (shade(colour, SHADES[n]), point, DASHES[(n + turn) % len(DASHES)])
    return found


# ---- curves ----


def thin(windows):
    """Means of neighbouring windows where there are more than a line can show."""
    return [dict(part[-1], loss=statistics.fmean(w["loss"] for w in part))
            for part in chunks(windows, math.ceil(len(windows) / MOST_POINTS))]


def curves(runs, most=MOST_LINES):
    for key, members in parted([run for run in runs if run.windows],
                               lambda run: (run.model, run.label, ranks_text(run.ranks)), MOST_LINES):
        for which, part in split(members, most):
            yield curves_figure(part, members, headed("Training loss and test accuracy", *key, which))


def curves_figure(runs, members, title):
    """The members give the names and scales, also where some of them are drawn elsewhere."""
    names = names_of(members)
    style = styles([(names[id(run)], run.kind) for run in sorted(runs, key=lambda run: run.ranks == 1)])
    lines = [thin(run.windows) for run in runs]
    loss = [(run, [[w[key] for key in ("epoch", "step", "seconds", "loss")] for w in line])
            for run, line in zip(runs, lines)]
    accuracy = [(run, [[e[key] for key in ("epoch", "step", "seconds")] + [100 * e["test_accuracy"]]
                       for e in run.evaluations]) for run in runs if run.evaluations]
    drawing = Drawing(title, WIDTH)
    reach = span if len(runs) < len(members) else lambda values: "[*:*]"
    rows = [("training loss", "lines", loss, reach([w["loss"] for run in members for w in thin(run.windows)]))]
    if accuracy:
        values = [100 * e["test_accuracy"] for run in members for e in run.evaluations]
        rows.append(("test accuracy, %", "linespoints", accuracy, narrow(values) or reach(values)))
    for name, look in style.items():
        drawing.entry(name, "with linespoints lw 1.6 ps 0.6 lc rgb '{}' pt {} dt {}".format(*look))
    for row, (what, with_, curve, y_range) in enumerate(rows):
        blocks = [(drawing.data(points), style[names[id(run)]]) for run, points in curve]
        for column, axis in enumerate(("epoch", "step", "seconds")):
            end = max([run.windows[-1][axis] for run in members] + [1e-6])
            left, top = WIDTH / 3 * column, 280 * row
            drawing.panel((left + 58, top + 28, left + WIDTH / 3 - 16, top + 226), f"""
set title '{what}, by {axis}' offset 0,-0.5
set xlabel '{axis}' offset 0,0.4; set xrange [0:{1.02 * end:.9g}]; set yrange {y_range}; {tics("x", end)}""", [
                f"{block} using {column + 1}:4 with {with_} lw 1.6 ps 0.6 " + "lc rgb '{}' pt {} dt {}".format(*look)
                for block, look in blocks])
    caption = ("Training loss is the mean over a window of steps, test accuracy that of the consensus model. Seconds "
               "count from the run’s begin and are reckoned from the windows’ images/s: the time of evaluations is "
               "left out.")
    if any(len(line) < len(run.windows) for line, run in zip(lines, runs)):
        caption += f" Where a run has more than {MOST_POINTS} windows, a point is the mean of several."
    return Figure(title, caption, drawing.svg(),
                  [curve_table(run, names[id(run)], line) for run, line in zip(runs, lines)])


def narrow(values):
    """A range of at least 10 around values that hardly differ."""
    values = [value for value in values if math.isfinite(value)] or [0]
    low = max(0, (min(values) + max(values)) / 2 - 5)
    return f"[{low:.9g}:{low + 10:.9g}]" if max(values) - min(values) < 8 else ""


def span(values):
    """A range between round numbers that has all of these."""
    values = [value for value in values if math.isfinite(value)] or [0]
    if max(values) == min(values):
        return "[*:*]"
    unit = round_step(max(values) - min(values), 5)
    return f"[{math.floor(min(values) / unit) * unit:.9g}:{math.ceil(max(values) / unit) * unit:.9g}]"


def curve_table(run, name, line):
    at = {w["step"]: [w["epoch"], w["seconds"], w["loss"], NAN] for w in line}
    for e in run.evaluations:
        at.setdefault(e["step"], [e["epoch"], e["seconds"], NAN, NAN])[3] = 100 * e["test_accuracy"]
    return name, ["step", "epoch", "seconds", "loss", "accuracy %"], [
        [f"{step:.0f}", *map(text, v[:3]), fixed(v[3], 2)] for step, v in sorted(at.items())]


# ---- the time of a step ----


def parts_of(runs, run):
    """ms a step of compute, contention (NaN without a run on one rank), exposed and hidden communication, and of
    waiting for input."""
    base = one_rank(runs, run)
    own = run.step_s - run.wait_s - run.input_s
    alone = base.step_s - base.wait_s - base.input_s if base and run.ranks > 1 else NAN
    parts = own if math.isnan(alone) else alone, own - alone, run.wait_s, max(0, run.comm_s - run.wait_s), run.input_s
    return [1e3 * part for part in parts]


def step_times(runs, planned):
    several = len({run.task for run in runs}) > 1
    for (model, kind, batch), members in grouped([run for run in runs if run.step_s > 0], lambda run: run.task):
        for label, group in parted(members, lambda run: (run.label,), MOST_BARS):
            what = ([model, kind, f"batch {batch}"] if several else []) + list(label)
            for which, bars in split(group, MOST_BARS):
                yield step_figure(runs, bars, group, headed("Time of a step", *what, which), planned)


def step_figure(runs, members, group, title, planned):
    """The group gives the names and the scale, also where some of it is drawn elsewhere."""
    names = names_of(group)
    names = [short(names[id(run)]) for run in members]
    bars = {"compute": [], "contention": [], "exposed communication": [], "waiting for input": []}
    hidden, ends, forecasts, rows = [], [], [], []
    fed = any(run.input_s > 1e-3 * run.step_s for run in members)  # else the bar could not be seen
    for i, (run, name) in enumerate(zip(members, names)):
        compute, contention, exposed, behind, late = parts_of(runs, run)
        whole, spread = run.step_s * 1e3, run.spread_s * 1e3
        slower = contention if contention > 0 else 0
        left = 0
        for part, length in zip(bars, (whole - exposed - slower - late, slower, exposed, late)):
            bars[part].append((0, 0, left, left + length, i - 0.34, i + 0.1))
            left += length
        hidden.append((0, 0, 0, behind, i + 0.14, i + 0.34))
        ends.append((whole, i - 0.12, spread, whole + (spread if spread > 0 else 0)))
        if run.forecast_s > 0:
            forecasts.append((run.forecast_s * 1e3, i + 0.24))
        parts = (whole, spread, compute, contention, exposed, behind) + (late,) * fed
        rows.append([name, *map(text, parts)] + off(run) * planned)
    contended = any(row[4] != "–" for row in rows)
    if not contended:
        del bars["contention"]
    if not fed:
        del bars["waiting for input"]
    reach = lambda run: (run.step_s, run.step_s + run.spread_s, run.forecast_s, run.comm_s - run.wait_s)
    highest = 1e3 * max(s for run in group for s in reach(run) if math.isfinite(s))
    drawing = Drawing(title, WIDTH)
    colours = {"compute": COMPUTE, "contention": CONTENTION, "exposed communication": PARTS["wait"],
               "waiting for input": PARTS["input"]}
    box = "using 1:2:3:4:5:6 with boxxyerror"
    plots = [drawing.plot(bars[part], f"{box} fs solid 1 noborder fc rgb '{colours[part]}'") for part in bars]
    for part in bars:
        drawing.entry(part, f"with boxes fs solid 1 noborder fc rgb '{colours[part]}'")
    plots.append(drawing.plot(hidden, f"{box} fs pattern 4 border fc rgb '{PARTS['comm']}'"))
    drawing.entry("hidden communication", f"with boxes fs pattern 4 border fc rgb '{PARTS['comm']}'")
    plots.append(drawing.plot(ends, "using 1:2:3 with xerrorbars pt 0 lw 1.2 lc rgb '#222222'"))
    number = f"(sprintf('%.{decimals(highest)}f ms', $1))"
    plots.append(drawing.plot(ends, f"using 4:2:{number} with labels left offset 0.6,0 tc rgb '#222222'"))
    if forecasts:
        plots.append(drawing.plot(forecasts, f"using 1:2 {FORECAST}", "forecast"))
    drawing.panel((7 * max(map(len, names)) + 20, 8, WIDTH - 20, 14 + 34 * len(members)), f"""
set xlabel 'ms a step' offset 0,0.4
set xrange [0:{1.12 * highest:.9g}]; set yrange [{len(members) - 0.5}:-0.5]
{named_tics("y", [(name, i) for i, name in enumerate(names)])}; {tics("x", highest, 10)}""", plots)
    caption = ("A step’s length is compute, contention and exposed communication (the time that compute waits for "
               "comm); the whisker is the standard deviation over the windows. The hatched bar is communication hidden "
               "beside compute: it adds nothing to the step.")
    caption += (" Compute is the step without waits of the run on one rank of the same model, type and batch; "
                "contention is by how much the run’s own is longer than that. Where it is shorter, it is drawn as it "
                "was." if contended else
                " Without a run on one rank among them contention cannot be told apart: it is part of compute.")
    if fed:
        caption += " Waiting for input is the time for which the next samples are not there yet."
    columns = ["run", "step ms", "standard deviation", "compute ms", "contention ms", "exposed ms", "hidden ms"]
    columns += ["input ms"] * fed
    return Figure(title, caption, drawing.svg(), [("", columns + OFF * planned, rows)])


# ---- speedup ----


def place(run):
    return run.task, run.label


def place_name(runs, at):
    """What tells a model (and its label, such as a network) from the others drawn."""
    (model, kind, batch), label = at
    parts = [model, label]
    parts += [kind] * (len({run.type for run in runs}) > 1)
    parts += [f"batch {batch}"] * (len({run.batch for run in runs}) > 1)
    return listed(*parts)


def series(runs):
    """{id of a run: name of its line}: the method, with its algorithm's options where they are one set or are
    compared with others."""
    names = {}
    for kind, members in grouped(sorted(runs, key=kind_order), lambda run: run.kind):
        at = grouped(members, lambda run: (place(run), run.ranks))
        compared = any(len({run.options for run in there}) > 1 for _, there in at)
        told = compared or len({run.options for run in members}) == 1
        names.update({id(run): run.method if told else listed(algorithm_name(kind), run.told) for run in members})
    return names


def looks(runs, names):
    """{name: style} of the runs' lines or bars."""
    return styles({names[id(run)]: run.kind for run in sorted(runs, key=kind_order)}.items())


def forecast_rate(run):
    return run.ranks * run.batch / run.forecast_s


def sized(runs):
    """Runs on several ranks that have a run on one rank to be held against, by place."""
    return grouped([run for run in runs if run.ranks > 1 and run.rate > 0 and one_rank(runs, run)], place)


def speedups(runs, planned):
    for groups in chunks(sized(runs), MOST_PANELS):
        drawn = [run for _, members in groups for run in members]
        names = series(drawn)
        for which, part in split(list(looks(drawn, names)), MOST_LINES):
            yield speedup_figure(runs, groups, names, part, headed("Time speedup over one rank", which), planned)


def speedup_figure(runs, groups, names, part, title, planned):
    """The groups give the scales, also where only a part of their lines is drawn."""
    drawn = [run for _, members in groups for run in members]
    style = {name: look for name, look in looks(drawn, names).items() if name in part}
    columns = 2 if len(groups) in (2, 4) else min(len(groups), 3)
    width, panel = (WIDTH / columns, 360) if columns > 1 else (640, 400)
    drawing = Drawing(title, width * columns)
    for g, (at, members) in enumerate(groups):
        left, top = width * (g % columns), panel * (g // columns)
        sizes = sorted({1} | {run.ranks for run in members})
        base = {id(run): one_rank(runs, run).rate for run in members}
        ratios = [run.rate / base[id(run)] for run in members] + [1]
        large = sizes[-1] > 16
        plots = [f"x {IDEAL}"]
        for name, (colour, point, _) in style.items():
            own = grouped([run for run in members if names[id(run)] == name], lambda run: run.ranks)
            measured = [(size, mean(run.rate / base[id(run)] for run in there)) for size, there in own]
            forecast = [(size, mean(forecast_rate(run) / base[id(run)] for run in there)) for size, there in own]
            forecast = [point for point in forecast if math.isfinite(point[1])]
            for points, look in ((measured, f"lw 1.8 ps 0.8 lc rgb '{colour}' pt {point}"),
                                 (forecast, f"dt (6,4) lw 1.2 ps 0.9 lc rgb '{colour}' pt {point - 1}")):
                if points:
                    plots.append(drawing.plot([(1, 1)] + points, f"using 1:2 with linespoints {look}",
                                              name if points is measured else None))
        drawing.panel((left + 58, top + 28, left + width - 18, top + panel - 48), f"""
set title {quote(short(place_name(drawn, at), 60))} offset 0,-0.5; set xlabel 'ranks' offset 0,0.4
set ylabel 'speedup over one rank' offset 1.5,0; {"set" if large else "unset"} logscale xy{" 2" * large}
set xrange [1:{sizes[-1] * 1.04:.9g}]
set yrange [{0.9 * min(ratios) if large else 0:.9g}:{max(ratios + sizes) * 1.04:.9g}]
set xtics ({", ".join(map(str, sizes))}); set ytics autofreq""", plots)
    caption = ("Images/s over those of the run on one rank of the same model, type and batch. The dotted line is a "
               "speedup equal to the number of ranks.")
    if any(run.ranks > 16 for run in drawn):
        caption += " Axes are logarithmic where there are more than 16 ranks."
    drawing.entry("ideal", IDEAL)
    if any(run.forecast_s > 0 for run in drawn):
        caption += " Dashed lines with open points are the forecast, over the same measured run on one rank."
        drawing.entry("forecast (open)", "with linespoints dt (6,4) lw 1.2 ps 0.9 lc rgb '#333333' pt 6")
    return Figure(title, caption, drawing.svg(), [speedup_table(runs, [run for run in drawn if names[id(run)] in part], planned)])


def speedup_table(runs, drawn, planned):
    columns = ["model", "ranks", "algorithm", "images/s", "on one rank", "speedup", "of ideal %", "over blocking S-SGD"]
    rows = []
    for run in drawn:
        base = one_rank(runs, run)
        one, blocked = base.rate if base else NAN, mean(r.rate for r in blocking(runs, run))
        row = [place_name(drawn, place(run)), str(run.ranks), run.method, text(run.rate), text(one),
               text(run.rate / one), fixed(100 * run.rate / one / run.ranks), text(run.rate / blocked)]
        rows.append(row + [text(forecast_rate(run) / one), text(run.step_s * 1e3), *off(run)] * planned)
    return "", columns + ["forecast speedup", "ms a step", *OFF] * planned, rows


def gains(runs, planned):
    """Speedup over blocking S-SGD where that ran on most ranks, a group of bars for each model and label."""
    largest = []
    for at, members in grouped([run for run in runs if run.ranks > 1 and run.rate > 0], place):
        size = max((run.ranks for run in members if blocking(runs, run)), default=0)
        there = [run for run in members if run.ranks == size]
        if len(there) > 1:
            largest.append((at, there))
    drawn = [run for _, members in largest for run in members]
    style = looks(drawn, series(drawn))
    named = len(style) > min(MOST_LINES, len({colour for colour, _, _ in style.values()}))
    bars = len({run.method for run in drawn})
    for part in chunks(largest, 1 if named else max(1, 28 // max(1, bars))):
        at, members = part[0]
        what = [place_name(drawn, at), ranks_text(members[0].ranks)] if named else []
        yield gain_figure(runs, part, headed("Speedup over blocking S-SGD", *what), planned, named)


def gain_figure(runs, groups, title, planned, named):
    """named: one group of more bars than a legend can tell apart, each with its name."""
    drawn = [run for _, members in groups for run in members]
    names = series(drawn)
    style = looks(drawn, names)
    width = WIDTH if named else max(480, min(WIDTH, 90 + len(groups) * (len(style) * 44 + 40)))
    bar = 0.84 / (1 if named else len(style))
    bars, tops, forecasts, labels = {name: [] for name in style}, [], [], []
    for g, (at, members) in enumerate(groups):
        blocked = blocking(runs, members[0])
        base, expected = mean(run.rate for run in blocked), mean(forecast_rate(run) for run in blocked)
        room = int(width / len(groups) / 7)
        labels.append((f"{short(place_name(drawn, at), room)}\n{ranks_text(members[0].ranks)}", g))
        for n, name in enumerate(style):
            own = [run for run in members if names[id(run)] == name]
            if own:
                x, height = n if named else g - 0.42 + bar * (n + 0.5), mean(run.rate for run in own) / base
                forecast = mean(forecast_rate(run) for run in own) / expected
                bars[name].append((x, height, bar * 0.9))
                tops.append((x, max(height, forecast if forecast > 0 else 0), height))
                forecasts += [(x, forecast)] if forecast > 0 else []
    drawing = Drawing(title, width)
    box, at, aside = (("(0):1:(0):2:($1-$3/2):($1+$3/2) with boxxyerror", "2:1", "left offset 1,0") if named else
                      ("1:2:3 with boxes", "1:2", "offset 0,0.8"))
    plots = [drawing.plot(bars[name], f"using {box} fs solid 1 noborder fc rgb '{style[name][0]}'",
                          None if named else name) for name in style]
    plots.append(drawing.plot(tops, f"using {at}:(sprintf('%.2f', $3)) with labels {aside} tc rgb '#222222'"))
    if forecasts:
        plots.append(drawing.plot(forecasts, f"using {at} {FORECAST}", "forecast"))
    most = 1.15 * max(top for _, top, _ in tops)
    if named:
        plots.insert(0, drawing.plot([(1, -0.5), (1, len(style) - 0.5)], f"using 1:2 {IDEAL}", "as blocking S-SGD"))
        left = 7 * max(len(short(name)) for name in style) + 20
        drawing.panel((left, 8, width - 20, 14 + 22 * len(style)), f"""
set xlabel 'speedup over blocking S-SGD' offset 0,0.4
set xrange [0:{most:.9g}]; set yrange [{len(style) - 0.5}:-0.5]
{named_tics("y", [(short(name), n) for n, name in enumerate(style)])}; {tics("x", most, 10)}""", plots)
    else:
        drawing.panel((58, 12, width - 12, 282), f"""set ylabel 'speedup over blocking S-SGD' offset 1.5,0
set xrange [-0.5:{len(groups) - 0.5}]; set yrange [0:{most:.9g}]
{named_tics("x", labels)}
set arrow from graph 0, first 1 to graph 1, first 1 nohead dt (2,3) lc rgb '#888888' back""", plots)
    caption = "Images/s over those of S-SGD without overlap on the same number of ranks, the largest on which it ran."
    if len(drawn) > sum(map(len, bars.values())):
        caption += " Of a method that ran more than once it is the mean."
    if forecasts:
        caption += " A diamond is the forecast, over the forecast of blocking S-SGD."
    return Figure(title, caption, drawing.svg(), [speedup_table(runs, drawn, planned)])


# ---- timelines ----


def last_rounds(spans):
    """(begin, end, caption) of what to draw, from one rank's spans: the last two rounds, merge to merge; the last
    few steps where nothing is merged, or rounds are too long to draw."""
    of = lambda kind: sorted((s[3], s[4]) for s in spans if s[2] == kind)
    steps, merges, waits = of("step"), of("merge"), of("wait")
    within = lambda inner, outer: any(outer[0] <= begin and end <= outer[1] for begin, end in inner)
    merging = [i for i, step in enumerate(steps) if within(waits, step) and within(merges, step)]
    last = merging[-1] if len(merging) > 1 else len(steps) - 1
    first = merging[-3] + 1 if len(merging) > 2 else 0
    rounds = len(merging) > 1 and last - first < MOST_STEPS
    if not rounds:
        first = max(0, last - STEPS + 1)
    what = "two rounds, merge to merge: " if rounds else ""
    caption = f"The last {what}{last - first + 1} of the {len(steps)} steps recorded, the streams of each rank"
    return steps[first][0], steps[last][1], caption


def timelines(runs):
    for run in runs:
        if run.timeline and any(span[2] == "step" for span in run.timeline):
            yield timeline_figure(run, f"Timeline: {run.name}")


def timeline_figure(run, title):
    ranks = sorted({s[0] for s in run.timeline if s[2] == "step"})
    begin, end, caption = last_rounds([s for s in run.timeline if s[0] == ranks[0]])
    caption += f"; the first {MOST_RANKS} of {len(ranks)} ranks." if len(ranks) > MOST_RANKS else "."
    ranks = ranks[:MOST_RANKS]
    spans = [s for s in run.timeline if s[0] in ranks and s[2] != "step" and s[4] > begin and s[3] < end]
    streams = sorted({s[:2] for s in spans}, key=lambda stream: (stream[0], stream[1] != "compute", stream[1]))
    rows = {stream: i + 0.4 * ranks.index(stream[0]) for i, stream in enumerate(streams)}
    drawing, plots = Drawing(title, WIDTH), []
    for kind in [k for k in PARTS if any(s[2] == k for s in spans)] + sorted({s[2] for s in spans} - set(PARTS)):
        look = f"fs solid 1 noborder fc rgb '{PARTS.get(kind, '#000000')}'"
        drawing.entry(kind, f"with boxes {look}")
        plots.append(drawing.plot([(0, 0, max(s[3], begin) - begin, min(s[4], end) - begin, rows[s[:2]] - 0.42,
                                    rows[s[:2]] + 0.42) for s in spans if s[2] == kind],
                                  f"using 1:2:3:4:5:6 with boxxyerror {look}"))
    bottom = max(rows.values()) + 1
    drawing.panel((130, 8, WIDTH - 20, 12 + 30 * bottom), f"""set xlabel 'ms' offset 0,0.4
set xrange [0:{end - begin:.9g}]; set yrange [{bottom - 0.4}:-0.6]
{named_tics("y", [(f"rank {rank} {stream}", rows[rank, stream]) for rank, stream in streams])}
{tics("x", end - begin, 10)}""", plots)
    listed = sorted(spans, key=lambda s: (s[1] != "compute", s[3]))
    return Figure(title, caption, drawing.svg(), [(f"rank {rank}", ["stream", "kind", "begin ms", "ms"], [
        [s[1], s[2], text(s[3] - begin, 6), text(s[4] - s[3])] for s in listed if s[0] == rank]) for rank in ranks])


# ---- one picture ----


def picture(runs):
    groups = sized(runs)
    names = series([run for _, members in groups for run in members])
    figure = (speedup_figure(runs, groups, names, names.values(), "Time speedup over one rank", False) if groups else
              next(curves(runs, len(runs)), None))
    if not figure:
        raise Fault("--picture: the runs have neither several sizes nor a window of steps to draw")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + figure.svg

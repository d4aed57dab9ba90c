"""The page: HTML that is well-formed XML too, without scripts and without anything to fetch."""
import datetime, html, math, os, re

from report_lib import charts
from report_lib.charts import fixed, text
from report_lib.runs import clean, differ, ranks_text

STYLE = """
body { font: 15px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #222;
  max-width: 1160px; margin: 1.5em auto; padding: 0 1em }
h1 { font-size: 1.6em; margin: 0 0 .4em }
h2 { font-size: 1.25em; margin: 2em 0 .5em; border-bottom: 1px solid #ccc }
h3 { font-size: 1em; margin: 1.2em 0 .3em }
.warning { border-left: 5px solid #d55e00; background: #fff3ea; padding: .4em .8em; margin: .5em 0 }
figure { margin: 1em 0 .3em }
figcaption { color: #444; font-size: .9em; max-width: 62em }
svg { max-width: 100%; height: auto; display: block }
.scroll { overflow-x: auto }
.side { display: flex; flex-wrap: wrap; gap: 0 2em; align-items: flex-start }
table { border-collapse: collapse; font-size: .8em; margin: .4em 0; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3em 0 }
th, td { padding: .15em .5em; text-align: left; vertical-align: top }
thead th { border-bottom: 1.5px solid #888; vertical-align: bottom; font-weight: 600 }
tbody tr:nth-child(even) { background: #f5f6f8 }
td.n, th.n { text-align: right }
td.n, td:first-child { white-space: nowrap }
#summary table { font-size: .74em }
#summary th, #summary td { padding: .15em .35em }
#summary td { white-space: nowrap }
#summary td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 6em; line-height: 1.15 }
small { color: #666 }
summary { cursor: pointer; color: #0b5a8a; font-size: .9em }
@page { size: A4; margin: 12mm }
@media print {
  body { font-size: 10pt; max-width: none; margin: 0; padding: 0 }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  figure, tr, .warning { break-inside: avoid }
  h2, h3, caption, summary { break-after: avoid }
  thead { display: table-header-group }
  .scroll { overflow: visible }
  .side { display: block; columns: 3 }
  table, #summary table { font-size: 6.5pt }
  #summary td { white-space: normal }
  th, td, #summary th, #summary td { padding: .1em .35em }
  details::details-content { display: block; content-visibility: visible; block-size: auto }
}
"""


def esc(value):
    return html.escape(clean(value))


def table(heading, columns, rows):
    numeric = [all(re.fullmatch(r"[−\d.]+|–", str(row[i])) for row in rows) for i in range(len(columns))]
    mark = lambda i: ' class="n"' if numeric[i] else ""
    head = "".join(f"<th scope=\"col\"{mark(i)}>{esc(name)}</th>" for i, name in enumerate(columns))
    line = lambda row: "".join(f"<td{mark(i)}>{esc(value)}</td>" for i, value in enumerate(row))
    body = "\n".join(f"<tr>{line(row)}</tr>" for row in rows)
    caption = f"<caption>{esc(heading)}</caption>" if heading else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def drawn(figure, heading):
    tables = "\n".join(table(*t) for t in figure.tables)
    narrow = " side" if all(len(columns) <= 5 for _, columns, _ in figure.tables) else ""
    svg = re.sub(r'\s(xmlns(:xlink)?)="[^"]*"', "", figure.svg).replace("xlink:href", "href")
    title = f"<h3>{esc(figure.title)}</h3>\n" if figure.title != heading else ""
    return (f"{title}<figure>{svg}<figcaption>{esc(figure.caption)}</figcaption></figure>\n"
            "<details><summary>The numbers of this chart</summary>\n"
            f'<div class="scroll{narrow}">{tables}</div></details>\n')


# ---- what the reader sees first ----


def machine(run):
    parts = run.record["machine"]
    return ", ".join(filter(None, (str(parts.get("host", "")), str(parts.get("device", ""))))) or "an unknown machine"


def versions(run):
    return ", ".join(f"{name} {version}" for name, version in run.record["versions"].items()) or "unknown versions"


def commit(run):
    return str(run.record.get("commit", "unknown"))


def data(run):
    return run.config.get("data") or "data that were not recorded"


def made(data):
    return data.split(":")[0] == "synthetic"


def days(runs):
    began = [run.record.get("started") for run in runs]
    found = sorted({datetime.datetime.fromtimestamp(at, datetime.timezone.utc).date().isoformat()
                    for at in began if isinstance(at, (int, float)) and 0 < at < 1e11})
    if len(found) > 1:
        return f", made from {found[0]} to {found[-1]} (UTC)"
    return f", made on {found[0]} (UTC)" if found else ""


def opening(runs, notes):
    sizes = sorted({run.ranks for run in runs})
    ranks = ranks_text(sizes[0]) if len(sizes) == 1 else ", ".join(map(str, sizes[:-1])) + f" and {sizes[-1]} ranks"
    each = lambda value: "; ".join(sorted({value(run) for run in runs}))
    said = [f"{len(runs)} run{'s' * (len(runs) > 1)} of {each(lambda run: run.model)} on {ranks}{days(runs)}.",
            f"Trained and tested on {each(data)}.", f"Machine: {each(machine)}.", f"Versions: {each(versions)}.", f"Commit: {each(commit)}."]
    paces = [pace for run in runs if (pace := run.config.get("pace", "0")) != "0"]
    if paces:
        said.append(f"In {len(paces)} of {len(runs)} runs forward and backward were set to take "
                    f"{' or '.join(sorted(set(paces)))} s (--pace): the time of compute is not the machine’s own.")
    sets = {data(run) for run in runs}
    if any(map(made, sets)):
        said.insert(2, "Synthetic pictures are made by the program: accuracies on them say nothing of real ones.")
    best = max((run for run in runs if math.isfinite(run.accuracy)), key=lambda run: run.accuracy, default=None)
    if best and len(runs) > 1 and len(sets) == 1 and best.config.get("data") and not made(data(best)):
        said.append(f"The best test accuracy, {fixed(100 * best.accuracy, 2)} %, is that of {best.name}.")
    warnings = []
    for what, value in (("commit", commit), ("machine", machine), ("versions", versions)):
        groups = differ(runs, value)
        told = "; ".join(f"{one or 'unknown'}: " + (", ".join(names) if len(names) < 5 else f"{len(names)} runs")
                         for one, names in groups.items())
        warnings += [f"The runs differ in their {what}. {told}."] if groups else []
    warnings += [f"{run.name} is not finished; its state: {run.state}." for run in runs if run.state != "finished"]
    return f"<p>{esc(' '.join(said))}</p>\n" + "".join(
        f'<p class="warning" role="note">{esc(warning)}</p>\n' for warning in warnings + notes)


def summary(runs, planned):
    columns = ["run", "label", "model", "type", "ranks", "batch", "algorithm", "state", "steps", "seconds", "images/s",
               "test accuracy %", "ms a step", "exposed ms", "comm ms", "hidden %", "contention %"]
    rows = []
    weighed = any(math.isfinite(run.total("sent_bytes")) for run in runs)
    columns += ["sent MB a step"] * weighed + charts.OFF * planned
    for run in runs:
        steps = run.windows[-1]["step"] if run.windows else run.total("steps")
        rows.append([os.path.basename(os.path.realpath(run.folder)), run.label, run.model, run.type, str(run.ranks),
                     str(run.batch), run.method, run.state, fixed(steps, 0), text(run.seconds), text(run.rate),
                     fixed(100 * run.accuracy, 2), *(text(1e3 * s) for s in (run.step_s, run.wait_s, run.comm_s)),
                     fixed(100 * run.total("hidden")), fixed(100 * run.contention)]
                    + [text(1e-6 * run.total("sent_bytes"))] * weighed + charts.off(run) * planned)
    if not any(run.label for run in runs):
        columns, rows = columns[:1] + columns[2:], [row[:1] + row[2:] for row in rows]
    return (f'<div class="scroll" id="summary">{table("", columns, rows)}</div>\n'
            "<p><small>Times are those of a local step. Exposed: compute waits for comm; hidden: the share of comm’s "
            "time during which compute goes on; contention: compute’s slow-down beside comm, as the run itself "
            "reckoned it; sent: by rank 0. A dash: not known.</small></p>\n")


def differences(runs):
    keys = dict.fromkeys(key for run in runs for key in run.config if key != "run")
    keys = [key for key in keys if len({run.config.get(key) for run in runs}) > 1]
    value = lambda run, key: run.config.get(key, "not recorded") or "(empty)"
    rows = [[key] + [value(run, key) for run in runs] for key in keys]
    if len({run.ranks for run in runs}) > 1:
        rows.insert(0, ["ranks"] + [str(run.ranks) for run in runs])
    if not rows:
        return ""
    head = ["option"] + [run.name for run in runs]
    if len(runs) > 6:  # a row a run
        head, *rows = [list(column) for column in zip(head, *rows)]
        head[0] = "run"
    return f'<div class="scroll">{table("", head, rows)}</div>\n'


def page(title, runs, notes, planned):
    sections = [("Summary", opening(runs, notes) + summary(runs, planned))]
    for heading, figures in (("Curves", charts.curves(runs)), ("Time of a step", charts.step_times(runs, planned)),
                             ("Time speedup", [*charts.speedups(runs, planned), *charts.gains(runs, planned)]),
                             ("Timeline", charts.timelines(runs))):
        sections.append((heading, "".join(drawn(figure, heading) for figure in figures)))
    if len(runs) > 1:
        sections.append(("Differences between the runs’ options", differences(runs)))
    body = "".join(f"<section><h2>{esc(heading)}</h2>\n{inside}</section>\n" for heading, inside in sections if inside)
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>{esc(title)}</title>\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"/><style>{STYLE}</style></head>\n'
            f"<body><h1>{esc(title)}</h1>\n{body}</body></html>\n")

"""Drawings by gnuplot as SVG: panels in a grid of pixels, and one legend below them all.

Every text goes to gnuplot in single quotes, where it reads nothing but the doubled quote.
"""
import itertools, math, re, shutil, subprocess

from report_lib.runs import clean

HEAD = """set terminal svg size {width},{height} noenhanced font "sans-serif,12" background "white" name "{mark}"
set encoding utf8
set border 3 lc rgb "#888888"
set tics nomirror scale 0.5 textcolor rgb "#333333"
set grid lc rgb "#e4e4e4" lt 1 lw 0.6
set key noautotitle
set multiplot
"""
LEGEND = """unset title; unset xlabel; unset ylabel; unset tics; unset border; unset grid; unset logscale; unset arrow
set lmargin at screen 0; set rmargin at screen 1; set bmargin at screen 0; set tmargin at screen {top:.4f}
set key at screen 0.5,{middle:.4f} center center vertical maxrows {rows} Left reverse samplen 3 width 1
set xrange [0:1]; set yrange [0:1]
plot NaN notitle, {entries}
"""
marks = itertools.count(1)  # names inside the drawings of one page must differ


class Fault(Exception):
    """gnuplot is missing or failed."""


class Drawing:
    def __init__(self, title, width):
        self.title, self.width = title, width
        self.blocks, self.panels, self.entries = [], [], {}

    def data(self, rows):
        """Keep the rows; returns their name for a plot."""
        number = lambda x: f"{x:.9g}" if math.isfinite(x) else "NaN"
        name = f"$d{len(self.blocks)}"
        self.blocks.append(f"{name} << EOD\n" + "\n".join(" ".join(map(number, row)) for row in rows) + "\nEOD\n")
        return name

    def plot(self, rows, style, name=None):
        """A plot of the rows ("using ... with ..."), with a name in the legend."""
        if name:
            self.entry(name, style)
        return f"{self.data(rows)} {style}"

    def entry(self, name, style):
        self.entries.setdefault(name, style[style.index("with ") :])

    def panel(self, area, settings, plots):
        """Axes that fill the area: left, top, right and bottom in pixels from the drawing's top left corner."""
        self.panels.append((area, settings, plots))

    def svg(self):
        if not shutil.which("gnuplot"):
            raise Fault("gnuplot is missing: install gnuplot-nox")
        mark = f"c{next(marks)}"
        longest = max(len(short(name)) for name in self.entries)
        rows = math.ceil(len(self.entries) / max(1, int(self.width / (longest * 8.3 + 66))))
        strip = 18 * rows + 14
        height = max(area[3] for area, _, _ in self.panels) + 46 + strip
        script = HEAD.format(width=round(self.width), height=round(height), mark=mark) + "".join(self.blocks)
        for (left, top, right, bottom), settings, plots in self.panels:
            sides = zip("lrtb", (left / self.width, right / self.width, 1 - top / height, 1 - bottom / height))
            script += "; ".join(f"set {side}margin at screen {share:.4f}" for side, share in sides)
            script += "\n" + settings + "\nplot " + ", ".join(plots) + "\n"
        script += LEGEND.format(top=strip / height, middle=strip / height / 2, rows=rows, entries=", ".join(
            f"keyentry {style} title {quote(short(name))}" for name, style in self.entries.items()))
        done = subprocess.run(["gnuplot", "-d"], input=script.encode(), capture_output=True)
        svg = done.stdout.decode(errors="replace")
        if done.returncode or "</svg>" not in svg:
            raise Fault(f"gnuplot failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
        return tidy(svg, mark, self.title)


def tidy(svg, mark, title):
    """Names that no other drawing of the page has, and a title that says what is drawn."""
    svg = re.sub(r"(id=|href=|url\()(['\"]?)(#?)(gp|textbox|greybox)", rf"\1\2\3{mark}\4", svg)
    svg = re.sub(rf'<title>{mark}_plot_\w+</title>|\sid="({mark}_plot_\w+|gnuplot_canvas)"', "", svg)
    title = clean(title).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    svg = re.sub(r"<title>\w+</title>\s*<desc>[^<]*</desc>", lambda _: f"<title>{title}</title>", svg, count=1)
    return svg[svg.index("<svg") :].replace("<svg", '<svg role="img"', 1)


def quote(text):
    return "'" + clean(text).replace("'", "''") + "'"


def short(text, most=54):
    """Cut in its middle: the end of a name is what tells it from the others."""
    return text if len(text) <= most else text[: most // 2] + "…" + text[len(text) - (most - 1) // 2 :]


def tics(axis, highest, most=5):
    """At most so many round steps up to the highest value: labels then have room."""
    return f"set {axis}tics {round_step(highest, most):.9g}"


def round_step(length, most):
    rough = max(length, 1e-9) / most
    unit = 10 ** math.floor(math.log10(rough))
    return next(unit * f for f in (1, 2, 2.5, 5, 10) if unit * f >= rough * 0.999)


def named_tics(axis, names):
    """A name at each place: (name, place) pairs; a name may be several lines."""
    text = ", ".join('."\\n".'.join(quote(line) for line in name.split("\n")) + f" {at:.9g}" for name, at in names)
    return f"set {axis}tics ({text}) scale 0; set grid no{axis}tics"


def shade(colour, share):
    """Lighter (share above 0) or darker."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(p + (255 - p) * share if share > 0 else p * (1 + share)):02x}" for p in parts)

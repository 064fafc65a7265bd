"""What the figures of a report share: the frame, from a drawing by matplotlib to an inline SVG and words for it.

    figure = draw("Loss", "Loss over 5 epochs: …", lines, paint)
    figure.svg, figure.description

Figures are in `plots_training` and `plots_scores`. Colours are the page's CSS variables, so one drawing serves the
light page, the dark page and the printer; lettering is text in the page's font, so it can be selected and read aloud.
Equal numbers give equal text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, PercentFormatter

# matplotlib knows no CSS variables: it draws in these stand-ins, which are then exchanged.
COLOURS = {
    name: f"#0101{number:02x}"
    for number, name in enumerate(("ink", "muted", "grid", "train", "validation", "test", "good", "poor"), start=1)
}
WIDE_INCHES = (4.0, 2.6)
SQUARE_INCHES = (1.85, 1.85)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: what it shows of the data, its name, CSS colour variable and matplotlib line style."""

    key: str
    name: str
    colour: str
    style: str

    @property
    def dash(self) -> str:
        """The CSS border style nearest to the line's."""
        return {"-": "solid", "--": "dashed", ":": "dotted"}[self.style]


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing, its name, what it shows in words for those who can't see it, and the lines for its legend."""

    name: str
    svg: Markup
    description: str
    lines: tuple[Line, ...]


def draw(
    name: str,
    description: str,
    lines: Sequence[Line],
    paint: Callable[[Any], None],
    *,
    size_inches: tuple[float, float] = WIDE_INCHES,
    rows: Sequence[float] = (1,),
) -> Figure:
    """The figure that `paint` draws on its axes: one, or one for each of `rows`, which are their relative heights.

    `name` must be its own on a page: the ids in the SVG are made from it.
    """
    with matplotlib.rc_context(_style(name)):
        canvas = Canvas(figsize=size_inches, layout="constrained")
        axes = canvas.subplots(len(rows), 1, sharex=True, height_ratios=rows)
        paint(axes)
        svg = _svg(canvas, description, size_inches)
    return Figure(name, svg, description, tuple(lines))


def square(axes: Any, *, ticks: Sequence[float] = (0, 0.5, 1)) -> None:
    """Both axes from 0 to 100 %."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(list(ticks)))
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _style(name: str) -> dict[str, Any]:
    ink, muted, grid = COLOURS["ink"], COLOURS["muted"], COLOURS["grid"]
    return {
        "svg.fonttype": "none",
        # A salt of its own keeps the ids of two figures on one page apart.
        "svg.hashsalt": name,
        "font.size": 9,
        "text.color": ink,
        "text.parse_math": False,
        "axes.labelcolor": muted,
        "axes.edgecolor": grid,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.axisbelow": True,
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "xtick.color": grid,
        "xtick.labelcolor": muted,
        "ytick.color": grid,
        "ytick.labelcolor": muted,
        "ytick.major.size": 0,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "lines.solid_capstyle": "round",
    }


def _svg(canvas: Any, description: str, size_inches: tuple[float, float]) -> Markup:
    """`canvas` as an SVG element without background, fixed size, fonts, metadata or ids that nothing refers to."""
    text = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    canvas.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    body = svg[svg.index("</style>") : svg.rindex("</svg>")].partition("</defs>")[2]
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    body = re.sub(r" font-family: [^;]*;", "", body)
    body = re.sub(r' d="[^"]*"', _rounded, body)
    for name, stand_in in COLOURS.items():
        body = body.replace(stand_in, f"var(--{name})")
    width, height = (72 * inches for inches in size_inches)
    head = Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(width, height, description)
    return head + Markup(body) + Markup("</svg>")


def _rounded(path: re.Match[str]) -> str:
    """A hundredth of a point is finer than any screen, and a third of the letters."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", re.sub(r"\s+", " ", path[0]))

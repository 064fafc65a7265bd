"""The figures of a report: one function each, from plain numbers to an inline SVG and the words that describe it.

    figure = loss_curve(history, best_epoch=12)
    figure.svg, figure.description

Colours are the page's CSS variables, so one drawing serves the light page, the dark page and the printer; lettering is
text in the page's font, so it can be selected and read aloud. Equal numbers give equal text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, PercentFormatter

History = Sequence[Mapping[str, float]]

# matplotlib knows no CSS variables: it draws in these stand-ins, which are then exchanged.
_COLOURS = {"ink": "#010101", "muted": "#010102", "grid": "#010103", "train": "#010104", "validation": "#010105"}
_SIZE_INCHES = (4.4, 2.7)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: the key of `history` it shows, its name, CSS colour variable and matplotlib line style."""

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


def loss_curve(history: History, *, best_epoch: int) -> Figure:
    """Loss by epoch, train against validation."""
    lines = (
        Line("train_loss", "train", "train", "--"),
        Line("validation_loss", "validation", "validation", "-"),
    )
    return _curve("Loss", lines, history, best_epoch)


def accuracy_curve(history: History, *, best_epoch: int) -> Figure:
    """Accuracy by epoch, train against validation, plain and balanced."""
    lines = (
        Line("train_accuracy", "train", "train", "--"),
        Line("validation_accuracy", "validation", "validation", "-"),
        Line("validation_balanced_accuracy", "validation, balanced", "validation", ":"),
    )
    return _curve("Accuracy", lines, history, best_epoch)


def _curve(name: str, wanted: Sequence[Line], history: History, best_epoch: int) -> Figure:
    lines = tuple(line for line in wanted if any(line.key in row for row in history))
    description = _describe(name, lines, history, best_epoch)
    with matplotlib.rc_context(_style(name)):
        canvas = Canvas(figsize=_SIZE_INCHES, layout="constrained")
        axes = canvas.add_subplot()
        for line in lines:
            rows = [row for row in history if line.key in row]
            marker = "o" if len(rows) == 1 else ""
            colour = _COLOURS[line.colour]
            axes.plot(
                [row["epoch"] for row in rows],
                [row[line.key] for row in rows],
                color=colour, linestyle=line.style, marker=marker,
            )  # fmt: skip
        _mark_best(axes, lines, history, best_epoch)
        axes.set_xlabel("epoch")
        axes.margins(x=0.02)
        if name == "Accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
        svg = _svg(canvas, description)
    return Figure(name, svg, description, lines)


def _mark_best(axes: Any, lines: Sequence[Line], history: History, best_epoch: int) -> None:
    axes.axvline(best_epoch, color=_COLOURS["ink"], linewidth=0.8, linestyle=(0, (1, 2)))
    best = [row for row in history if row["epoch"] == best_epoch]
    for line in lines:
        if line.colour == "validation" and line.style == "-" and best and line.key in best[0]:
            axes.plot(best_epoch, best[0][line.key], "o", color=_COLOURS["validation"], clip_on=False)
    first, last = history[0]["epoch"], history[-1]["epoch"]
    leftwards = best_epoch > (first + last) / 2
    axes.annotate(
        f"best: {best_epoch}", (best_epoch, 1), xycoords=("data", "axes fraction"),
        xytext=(-4 if leftwards else 4, 3), textcoords="offset points", ha="right" if leftwards else "left",
        color=_COLOURS["ink"],
    )  # fmt: skip


def _describe(name: str, lines: Sequence[Line], history: History, best_epoch: int) -> str:
    ends = []
    for line in lines:
        values = [row[line.key] for row in history if line.key in row]
        ends.append(f"{line.name} from {values[0]:.3f} to {values[-1]:.3f}")
    return f"{name} over {len(history)} epochs: {'; '.join(ends)}. The best epoch is {best_epoch}."


def _style(name: str) -> dict[str, Any]:
    ink, muted, grid = _COLOURS["ink"], _COLOURS["muted"], _COLOURS["grid"]
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


def _svg(canvas: Any, description: str) -> Markup:
    """`canvas` as an SVG element without background, fixed size, fonts, metadata or ids that nothing refers to."""
    text = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    canvas.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    body = svg[svg.index("</style>") : svg.rindex("</svg>")].partition("</defs>")[2]
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    body = re.sub(r" font-family: [^;]*;", "", body)
    for name, stand_in in _COLOURS.items():
        body = body.replace(stand_in, f"var(--{name})")
    width, height = (72 * inches for inches in _SIZE_INCHES)
    head = Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(width, height, description)
    return head + Markup(body) + Markup("</svg>")

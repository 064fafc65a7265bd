"""Figures of several runs: their scores and differences with 95 % intervals, and the learning curve.

    figure = score_ranges(found["runs"])
    figure.svg, figure.description

`found` is what `comparison.compare` gives; colours, lettering and words are as in `plots.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from trainer.comparison import COMPARED
from trainer.plots import COLOURS, Figure, Line, draw

WIDTH_INCHES = 5.2
LETTERS = 28
SERIES = (("test", "-"), ("train", "--"), ("validation", ":"))
TEST = Line("test", "test", "test", "-")
VALIDATION = Line("validation", "validation", "validation", ":")
Row = Mapping[str, Any]


def score_ranges(runs: Sequence[Row]) -> Figure:
    """Balanced accuracy of each run on test and validation, with its interval."""
    shown = [line for line in (TEST, VALIDATION) if any(row[line.key] for row in runs)]

    def paint(axes: Any) -> None:
        for offset, line in zip((-0.12, 0.12), shown, strict=False):
            for place, row in enumerate(runs):
                if row[line.key]:
                    scores = row[line.key]
                    _range(axes, scores[COMPARED], scores["intervals"][COMPARED], place + offset, line)
        _rows(axes, [row["name"] for row in runs])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("balanced accuracy")

    words = "; ".join(
        f"{row['name']} {_words(row['test'][COMPARED], row['test']['intervals'][COMPARED])}" for row in runs
    )
    return _drawn("Balanced accuracy", f"Balanced accuracy on the test split: {words}.", shown, paint, len(runs))


def difference_ranges(differences: Sequence[Row]) -> Figure | None:
    """How much more balanced accuracy each run has than the first; None if no two runs tested the same images."""
    known = [row for row in differences if row[COMPARED]]
    if not known:
        return None

    def paint(axes: Any) -> None:
        axes.axvline(0, color=COLOURS["ink"], linewidth=0.8, linestyle=(0, (1, 2)))
        for place, row in enumerate(known):
            _range(axes, row[COMPARED]["value"], row[COMPARED]["interval"], place, TEST)
        _rows(axes, [row["name"] for row in known])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=None))
        axes.set_xlabel("points of balanced accuracy above the first run")

    words = "; ".join(f"{row['name']} {_words(row[COMPARED]['value'], row[COMPARED]['interval'])}" for row in known)
    description = f"Balanced accuracy on the test split above that of {known[0]['to']}: {words}."
    return _drawn("Difference to the first run", description, (), paint, len(known))


def learning_curve(series: Sequence[Row]) -> Figure | None:
    """Balanced accuracy on the test split by the number of training images; None without several numbers."""
    if not series:
        return None
    styles = [SERIES[number % len(SERIES)] for number in range(len(series))]
    lines = [
        Line(str(number), row["label"], *style) for number, (row, style) in enumerate(zip(series, styles, strict=True))
    ]
    sizes = sorted({point["images"] for row in series for point in row["points"]})

    def paint(axes: Any) -> None:
        for row, line in zip(series, lines, strict=True):
            by_size = {size: [p["value"] for p in row["points"] if p["images"] == size] for size in sizes}
            means = [(size, sum(values) / len(values)) for size, values in by_size.items() if values]
            axes.plot(*zip(*means, strict=True), color=COLOURS[line.colour], linestyle=line.style)
            for point in row["points"]:
                axes.plot(point["images"], point["value"], "o", color=COLOURS[line.colour])
                if point["interval"]:
                    axes.plot([point["images"]] * 2, point["interval"], color=COLOURS[line.colour], linewidth=0.9)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(sizes if len(sizes) <= 8 else sizes[:: len(sizes) // 8 + 1]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("training images")

    words = "; ".join(
        f"{row['label']}: " + ", ".join(f"{point['value']:.1%} with {point['images']:,}" for point in row["points"])
        for row in series
    )
    description = f"Balanced accuracy on the test split by the number of training images. {words}."
    return draw("Learning curve", description, lines, paint, size_inches=(WIDTH_INCHES, 3.2))


def _drawn(name: str, description: str, lines: Sequence[Line], paint: Any, rows: int) -> Figure:
    return draw(name, description, lines, paint, size_inches=(WIDTH_INCHES, 0.6 + 0.34 * rows))


def _range(axes: Any, value: float, interval: Sequence[float] | None, place: float, line: Line) -> None:
    if interval:
        axes.plot(interval, [place, place], color=COLOURS[line.colour], linestyle=line.style, linewidth=1.6)
    axes.plot(value, place, "o", color=COLOURS[line.colour])


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))


def _short(name: str) -> str:
    """The end of a long name: it is what differs."""
    return name if len(name) <= LETTERS else "…" + name[1 - LETTERS :]


def _words(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.1%}" + (f" ({interval[0]:.1%} to {interval[1]:.1%})" if interval else "")

"""Figures of a sweep: the best score so far, and the score against each flag that was searched.

    figure = so_far(sweep, rows)
    figure.svg, figure.description

Colours, lettering and words are as in `plots.py`.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from trainer.compare_page import PERCENT, TITLES, number
from trainer.plots import COLOURS, Figure, Line, draw
from trainer.sweep_request import Sweep
from trainer.sweep_results import Row, best_of
from trainer.sweep_space import CHOICE, INTEGER, LOG, Range

SIZE_INCHES = (4.0, 2.7)
LEAST = 0.02  # of an axis: a tenth of a percent is not to look like much
CLOSE = 0.06  # below this, lines are less than a percent apart
LETTERS = 44  # below an axis
BEST = Line("best", "the best", "validation", "-")
OTHERS = Line("others", "others", "train", "-")
SHORTER = Line("shorter", "fewer epochs", "muted", "-")
SPREAD, GOLDEN = 0.3, 0.618034  # how far apart equal choices are drawn, and by which share of it from one to the next


def so_far(sweep: Sweep, rows: Sequence[Row]) -> Figure | None:
    """The score of each training in the order of starting, and the best until then; None if fewer than two are done."""
    name = sweep.score
    places = {row.run: place for place, row in enumerate(rows, start=1)}
    done = [(places[row.run], row.scores[name]) for row in rows if row.scores]
    if len(done) < 2:
        return None
    bests = list(accumulate((score for _, score in done), min if name == "log_loss" else max))

    def paint(axes: Any) -> None:
        axes.step([place for place, _ in done], bests, where="post", color=COLOURS[BEST.colour], linewidth=1)
        _dots(axes, sweep, rows, lambda row: places[row.run])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_xlim(0, len(rows) + 1)
        axes.set_xlabel("trainings, in the order they are started")

    words = "; ".join(f"after {place} {number(name, best)}" for (place, _), best in zip(done, bests, strict=True))
    description = f"Best {TITLES[name].lower()} on the validation split so far: {words}."
    return _drawn("Best so far", description, sweep, rows, paint)


def against(sweep: Sweep, rows: Sequence[Row], searched: Range) -> Figure | None:
    """The score of each training against its value of one flag; None if nothing is done."""
    name, flag = sweep.score, searched.flag
    done = [row for row in rows if row.scores]
    if not done:
        return None

    def place(row: Row) -> float:
        return _place(searched, row)

    def paint(axes: Any) -> None:
        if searched.kind == CHOICE:
            count = len(searched.choices)
            axes.set_xticks(range(count), [_short(choice, LETTERS // count) for choice in searched.choices])
            axes.set_xlim(-0.5, count - 0.5)
        elif searched.kind == LOG:
            axes.set_xscale("log")
            axes.set_xlim(searched.low / 1.15, searched.high * 1.15)
            axes.xaxis.set_major_locator(FixedLocator(_ticks(searched)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
        else:
            margin = 0.03 * (searched.high - searched.low)
            axes.set_xlim(searched.low - margin, searched.high + margin)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=searched.kind == INTEGER))
        _dots(axes, sweep, rows, place)
        axes.set_xlabel(flag)

    words = "; ".join(f"{row.values[flag]}: {number(name, row.scores[name])}" for row in sorted(done, key=place))
    description = f"{TITLES[name]} on the validation split by {flag}. {words}."
    return _drawn(flag, description, sweep, rows, paint)


def _drawn(name: str, description: str, sweep: Sweep, rows: Sequence[Row], paint: Callable[[Any], None]) -> Figure:
    return draw(name, description, tuple(_kinds(sweep, rows))[::-1], paint, size_inches=SIZE_INCHES)


def _kinds(sweep: Sweep, rows: Sequence[Row]) -> dict[Line, list[Row]]:
    """The trainings that are done, as they are told apart; the best one last, as it is to be seen."""
    best, last = best_of(sweep, rows), len(sweep.rungs) - 1
    done = [row for row in rows if row.scores and row is not best]
    kinds = {
        SHORTER: [row for row in done if row.rung < last],
        OTHERS: [row for row in done if row.rung == last],
        BEST: [best] if best else [],
    }
    return {line: there for line, there in kinds.items() if there}


def _dots(axes: Any, sweep: Sweep, rows: Sequence[Row], place: Callable[[Row], float]) -> None:
    """A dot for each training that is done."""
    name = sweep.score
    for line, there in _kinds(sweep, rows).items():
        marker = "D" if line is BEST else "o"
        scores = [row.scores[name] for row in there]
        axes.plot(list(map(place, there)), scores, marker, color=COLOURS[line.colour], clip_on=False)
    axes.set_ylabel(TITLES[name].lower())
    if name in PERCENT:
        low, high = axes.get_ylim()
        wider = max(0.0, LEAST - (high - low)) / 2
        low, high = max(low - wider, 0), min(high + wider, 1)
        axes.set_ylim(low, high)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if high - low > CLOSE else 1))


def _place(searched: Range, row: Row) -> float:
    """Where on the axis a training is; those of the same choice side by side."""
    value = row.values[searched.flag]
    if searched.kind != CHOICE:
        return float(value)
    return searched.choices.index(value) + SPREAD * ((row.run.trial * GOLDEN) % 1 - 0.5)


def _ticks(searched: Range) -> list[float]:
    """The powers of ten of a logarithmic range, or if it holds but one its ends and its middle."""
    first, last = math.ceil(math.log10(searched.low)), math.floor(math.log10(searched.high))
    if last > first:
        return [10.0**power for power in range(first, last + 1)]
    return [searched.low, math.sqrt(searched.low * searched.high), searched.high]


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: max(letters - 2, 1)] + "…"

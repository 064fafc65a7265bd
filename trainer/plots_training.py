"""Figures of a training: loss, accuracy and speed by epoch.

    figure = loss_curve(history, best_epoch=12)

`history` is that of `ReportInputs`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator, PercentFormatter

from trainer.plots import COLOURS, Figure, Line, draw

History = Sequence[Mapping[str, float]]


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


def speed_curve(history: History) -> Figure:
    """Images trained on a second, by epoch."""
    lines = (Line("images_per_s", "images a second", "test", "-"),)
    values = [row["images_per_s"] for row in history if "images_per_s" in row]
    description = f"Images trained on a second: from {min(values):.0f} to {max(values):.0f} over {len(values)} epochs."

    def paint(axes: Any) -> None:
        _lines(axes, lines, history)
        _epochs(axes)
        axes.set_ylim(0, 1.1 * max(values) or 1)

    return draw("Speed", description, lines, paint)


def _curve(name: str, wanted: Sequence[Line], history: History, best_epoch: int) -> Figure:
    lines = tuple(line for line in wanted if any(line.key in row for row in history))
    return draw(name, _describe(name, lines, history, best_epoch), lines, _painter(name, lines, history, best_epoch))


def _painter(name: str, lines: Sequence[Line], history: History, best_epoch: int) -> Callable[[Any], None]:
    def paint(axes: Any) -> None:
        _lines(axes, lines, history)
        _mark_best(axes, lines, history, best_epoch)
        _epochs(axes)
        if name == "Accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))

    return paint


def _lines(axes: Any, lines: Sequence[Line], history: History) -> None:
    for line in lines:
        rows = [row for row in history if line.key in row]
        axes.plot(
            [row["epoch"] for row in rows],
            [row[line.key] for row in rows],
            color=COLOURS[line.colour], linestyle=line.style, marker="o" if len(rows) == 1 else "",
        )  # fmt: skip


def _epochs(axes: Any) -> None:
    axes.set_xlabel("epoch")
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))


def _mark_best(axes: Any, lines: Sequence[Line], history: History, best_epoch: int) -> None:
    axes.axvline(best_epoch, color=COLOURS["ink"], linewidth=0.8, linestyle=(0, (1, 2)))
    best = [row for row in history if row["epoch"] == best_epoch]
    for line in lines:
        if line.colour == "validation" and line.style == "-" and best and line.key in best[0]:
            axes.plot(best_epoch, best[0][line.key], "o", color=COLOURS["validation"], clip_on=False)
    first, last = history[0]["epoch"], history[-1]["epoch"]
    leftwards = best_epoch > (first + last) / 2
    axes.annotate(
        f"kept: {best_epoch}", (best_epoch, 1), xycoords=("data", "axes fraction"),
        xytext=(-4 if leftwards else 4, 3), textcoords="offset points", ha="right" if leftwards else "left",
        color=COLOURS["ink"],
    )  # fmt: skip


def _describe(name: str, lines: Sequence[Line], history: History, best_epoch: int) -> str:
    ends = []
    for line in lines:
        values = [row[line.key] for row in history if line.key in row]
        ends.append(f"{line.name} from {values[0]:.3f} to {values[-1]:.3f}")
    return f"{name} over {len(history)} epochs: {'; '.join(ends)}. Epoch {best_epoch} was kept."

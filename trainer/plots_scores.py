"""Figures of what a model scores: ROC and precision-recall by diagnosis, reliability, risk against coverage.

    figures = roc_curves(curves["roc"])
    figure = reliability_diagram(curves["reliability"], before=curves.get("reliability_uncalibrated"))

`curves` is that of `ReportInputs`. Diagnoses get a small drawing each, the others faint behind it: eight lines in one
drawing can't be told apart, and not at all by those who see colours otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.ticker import FixedLocator, PercentFormatter

from trainer.plots import COLOURS, SQUARE_INCHES, Figure, Line, draw, square

Curve = Mapping[str, Any]
Bins = Sequence[Mapping[str, Any]]
# Of more diagnoses, each drawing would hold all the others: megabytes, and a grey mass.
MOST_BEHIND = 12
AFTER = Line("accuracy", "as reported", "train", "-")
BEFORE = Line("accuracy", "before temperature scaling", "validation", "--")
IDEAL = Line("", "confidence = accuracy", "muted", ":")


def roc_curves(curves: Mapping[str, Curve | None]) -> tuple[Figure, ...]:
    """For each diagnosis the true against the false positive rate, one against the rest.

    `curves` maps a diagnosis to `fpr`, `tpr` and `auc`; null, or no points, if the split can't tell.
    """
    known = _known(curves, "fpr")

    def figure(number: int, name: str) -> Figure:
        auc = known[name]["auc"]
        words = f"ROC curve of {name} against the rest. The area under it is {_fixed(auc)}; guessing has 0.5."

        def extra(axes: Any) -> None:
            axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linestyle=":", linewidth=1)
            axes.set(xlabel="false positive rate", ylabel="true positive rate")

        return _panel("roc", number, name, words, known, ("fpr", "tpr"), extra)

    return tuple(figure(number, name) for number, name in enumerate(known))


def precision_recall_curves(curves: Mapping[str, Curve | None], shares: Mapping[str, float]) -> tuple[Figure, ...]:
    """For each diagnosis precision against recall. `shares` are those of the images: the precision of guessing."""
    known = _known(curves, "recall")

    def figure(number: int, name: str) -> Figure:
        share = shares[name]
        words = (
            f"Precision against recall of {name}. The average precision is {_fixed(known[name]['ap'])}; "
            f"guessing has {share:.3f}."
        )

        def extra(axes: Any) -> None:
            axes.axhline(share, color=COLOURS["muted"], linestyle=":", linewidth=1)
            axes.set(xlabel="recall", ylabel="precision")

        return _panel("pr", number, name, words, known, ("recall", "precision"), extra)

    return tuple(figure(number, name) for number, name in enumerate(known))


def reliability_diagram(bins: Bins, *, before: Bins | None = None) -> Figure | None:
    """How often answers of a confidence are right, and below it how many there are; None if there are none.

    Each bin has `low`, `high`, `n`, `confidence` and `accuracy`, the last two null if it is empty. `before` are those
    of the probabilities before temperature scaling.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    full = [row for row in bins if row["n"]]
    earlier = [row for row in before or () if row["n"]]
    if not full:
        return None
    words = "; ".join(
        f"at {row['low']:.0%} to {row['high']:.0%}, {row['accuracy']:.0%} of {row['n']} were right" for row in full
    )

    def paint(axes: Any) -> None:
        upper, lower = axes
        upper.plot([0, 1], [0, 1], color=COLOURS[IDEAL.colour], linestyle=IDEAL.style, linewidth=1)
        for line, rows in ((BEFORE, earlier), (AFTER, full)):
            points = [row["confidence"] for row in rows], [row["accuracy"] for row in rows]
            upper.plot(*points, color=COLOURS[line.colour], linestyle=line.style, marker="o", markersize=3.5)
        square(upper, ticks=(0, 0.25, 0.5, 0.75, 1))
        upper.set_ylabel("right")
        edges, heights = [row["low"] for row in bins], [row["n"] for row in bins]
        widths = [0.9 * (row["high"] - row["low"]) for row in bins]
        lower.bar(edges, heights, widths, align="edge", color=COLOURS["train"])
        lower.yaxis.set_major_locator(FixedLocator([max(heights)]))
        lower.set(xlabel="confidence", ylabel="images")

    lines = (AFTER, BEFORE, IDEAL) if earlier else (AFTER, IDEAL)
    description = f"Answers by confidence: {words}."
    return draw("Reliability", description, lines, paint, size_inches=(4.0, 3.3), rows=(3, 1))


def risk_coverage_curve(curve: Curve, abstention: Mapping[str, Any] | None) -> Figure | None:
    """The error among the answers given, by the share of images that are answered, surest first.

    `curve` has `coverage` and `risk`. Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks",
    NeurIPS 2017.
    """
    coverage, risk = curve["coverage"], curve["risk"]
    if not coverage:
        return None
    lines = [Line("risk", "error among answers", "train", "-")]
    target = abstention["target_error"] if abstention else None
    chosen = abstention["test"] if abstention and abstention["threshold"] is not None else None
    if target is not None:
        lines.append(Line("", f"error aimed at: {target:.0%}", "good", "--"))

    def paint(axes: Any) -> None:
        axes.plot(coverage, risk, color=COLOURS["train"])
        if target is not None:
            axes.axhline(target, color=COLOURS["good"], linestyle="--", linewidth=1.2)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.1 * max(*risk, target or 0, 0.05)), xlabel="answered", ylabel="wrong")
        if chosen and chosen["error"] is not None:
            axes.plot(chosen["coverage"], chosen["error"], "o", color=COLOURS["train"], clip_on=False)
            _note(axes, "threshold", chosen["coverage"], chosen["error"])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))

    points = "; ".join(f"answering {part:.0%}, {risk_at(curve, part):.1%}" for part in (1.0, 0.75, 0.5, 0.25))
    return draw("Risk and coverage", f"Share of answers that are wrong: {points}.", lines, paint)


def risk_at(curve: Curve, coverage: float) -> float:
    """The risk at the point of `curve` whose coverage is nearest to `coverage`."""
    nearest = min(range(len(curve["coverage"])), key=lambda point: abs(curve["coverage"][point] - coverage))
    return float(curve["risk"][nearest])


def _panel(
    kind: str,
    number: int,
    name: str,
    words: str,
    curves: Mapping[str, Curve],
    keys: tuple[str, str],
    extra: Callable[[Any], None],
) -> Figure:
    def paint(axes: Any) -> None:
        extra(axes)
        for other, curve in curves.items():
            if other != name and len(curves) <= MOST_BEHIND:
                _plot(axes, curve, keys, color=COLOURS["grid"], linewidth=1)
        _plot(axes, curves[name], keys, color=COLOURS["train"])
        square(axes)

    figure = draw(f"{kind} {number}", words, (), paint, size_inches=SQUARE_INCHES)
    return Figure(name, figure.svg, figure.description, ())


def _plot(axes: Any, curve: Curve, keys: tuple[str, str], **style: Any) -> None:
    """Precision is a staircase: a straight line between two thresholds would promise what no threshold gives.

    Davis and Goadrich, "The Relationship Between Precision-Recall and ROC Curves", ICML 2006.
    """
    x, y = (curve[key] for key in keys)
    steps = "steps-pre" if x[0] < x[-1] else "steps-post"
    axes.plot(x, y, drawstyle=steps if keys[1] == "precision" else "default", **style)


def _note(axes: Any, text: str, x: float, y: float) -> None:
    """Below the point, where a curve that rises leaves room, unless the axis is there."""
    leftwards, below = x > 0.8, y > 0.2 * axes.get_ylim()[1]
    axes.annotate(
        text, (x, y), xytext=(-7 if leftwards else 7, -9 if below else 5), textcoords="offset points",
        ha="right" if leftwards else "left", va="center", color=COLOURS["ink"],
    )  # fmt: skip


def _known(curves: Mapping[str, Curve | None], key: str) -> dict[str, Curve]:
    """Those that have points, in their order."""
    return {name: curve for name, curve in curves.items() if curve and curve[key]}


def _fixed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"

"""The page and the table of a comparison: from what was found to `compare.html` and lines for a terminal.

    write_page(folder / "compare.html", found)
    print(table(found))

One file that loads and runs nothing, in the frame of the training report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline import page
from data_pipeline.storage import write_atomic
from trainer.comparison import COMPARED, METRICS
from trainer.plots_compare import difference_ranges, learning_curve, score_ranges

TEMPLATE = "compare.html"
NAMED = 3  # runs in the headline
PERCENT = ("balanced_accuracy", "accuracy", "macro_f1")
TITLES = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "log_loss": "Log loss",
    "ece": "Calibration error",
}
Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer in a sentence; `level` is `better`, `unclear` or `no-better`, as the page's style knows them."""

    level: str
    headline: str


def judge(differences: Sequence[Found]) -> Verdict:
    """Whether any run's balanced accuracy is surely above that of the first, or surely below."""
    known = [row for row in differences if row[COMPARED] and row[COMPARED]["interval"]]
    if not known:
        return Verdict("unclear", "There is no difference to judge: no two runs tested the same groups of images.")
    first = known[0]["to"]
    above = [row["name"] for row in known if row[COMPARED]["interval"][0] > 0]
    below = [row["name"] for row in known if row[COMPARED]["interval"][1] < 0]
    if above:
        more = f" and {len(above) - NAMED} more" if len(above) > NAMED else ""
        return Verdict("better", f"Better than {first} on the same test images: {', '.join(above[:NAMED])}{more}.")
    if len(below) == len(differences):
        return Verdict("no-better", f"All others are worse than {first} on the same test images.")
    worse = f"; {len(below)} surely worse" if below else ""
    return Verdict("unclear", f"No run is surely better than {first} on the same test images{worse}.")


def write_page(path: Path, found: Found) -> None:
    """Write the page, whole or not at all."""
    write_atomic(path, render(found).encode())


def render(found: Found) -> str:
    """The text of `compare.html`; equal findings give equal text."""
    figures = score_ranges(found["runs"]), difference_ranges(found["differences"])
    context = {
        "kind": "Comparison of runs",
        "title": found["organ"],
        "verdict": judge(found["differences"]),
        "found": found,
        "metrics": METRICS,
        "titles": TITLES,
        "figures": [figure for figure in figures if figure],
        "learning": learning_curve(found["learning_curve"]),
        "number": number,
        "ranged": ranged,
        "signed": signed,
        "spread": spread,
        "plain_range": plain_range,
    }
    return page.render("trainer", TEMPLATE, context)


def number(name: str, value: float | None) -> str:
    """A score as people write it: a percentage, or a number with three digits."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}%" if name in PERCENT else f"{value:.3f}"


def ranged(name: str, scores: Found | None) -> str:
    """A score and its interval, if it has one."""
    if scores is None:
        return "–"
    interval = scores["intervals"][name]
    return number(name, scores[name]) + (f" ({plain_range(name, interval)})" if interval else "")


def plain_range(name: str, interval: Sequence[float]) -> str:
    """An interval: `71.0 to 86.2`, of a percentage, or `0.310 to 0.522`."""
    return " to ".join(f"{100 * end:.1f}" if name in PERCENT else f"{end:.3f}" for end in interval)


def signed(name: str, difference: Found | None) -> str:
    """A difference and its interval; of percentages in points."""
    if difference is None or difference["value"] is None:
        return "–"
    ends = [difference["value"], *(difference["interval"] or ())]
    shown = [f"{100 * end:+.1f}" if name in PERCENT else f"{end:+.3f}" for end in ends]
    return shown[0] + (f" ({shown[1]} to {shown[2]})" if len(shown) > 1 else "")


def spread(name: str, found: Found) -> str:
    """A mean and the standard deviation about it, if there is one."""
    deviation = found["deviation"]
    return number(name, found["mean"]) + (f" ± {number(name, deviation)}" if deviation is not None else "")


def table(found: Found) -> str:
    """The scores of each run, their differences to the first, and what runs alike have in common, for a terminal."""
    splits = ("test", "validation")
    rows = [
        (row["name"], split, [ranged(name, row[split]) for name in METRICS])
        for row in found["runs"]
        for split in splits
        if row[split]
    ]
    for row in (row for row in found["differences"] if row["n"]):  # folds have no image in common
        rows.append((row["name"], "− first", [signed(name, row[name]) for name in METRICS]))
    for row in found["summaries"]:
        title = f"{len(row['runs'])} runs: {row['label']}"
        for split in (split for split in splits if row[split]):
            rows.append((title, split, [spread(name, row[split][name]) for name in METRICS]))
        if row["pooled"]:
            rows.append((title, "all images", [ranged(name, row["pooled"]) for name in METRICS]))
    width = max(len(title) for title, _, _ in rows)
    lines = [
        f"{title:<{width}}  {kind:<10}  {'  '.join(f'{cell:<24}' for cell in cells)}".rstrip()
        for title, kind, cells in [("", "split", [TITLES[name] for name in METRICS]), *rows]
    ]
    lines.append("In brackets: 95 % intervals, groups of images resampled.")
    return "\n".join([*lines, "After ±: the standard deviation of the runs."] if found["summaries"] else lines)

"""The report of a run: one `report.html` that answers "is it any good?" first and shows the evidence below.

    path = write_report(Path("runs/cervix/1f3a"), ReportInputs(organ="cervix", ...))

The page needs no network and no script. Each section is a template `report_….html`; each figure a function of
`plots_training.py` or `plots_scores.py`; the frame and the sections on the dataset are those of the dataset card.
"""

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from data_pipeline import page
from data_pipeline.storage import write_atomic
from trainer.plots import Figure
from trainer.plots_scores import (
    MOST_BEHIND,
    precision_recall_curves,
    reliability_diagram,
    risk_at,
    risk_coverage_curve,
    roc_curves,
)
from trainer.plots_training import History, accuracy_curve, loss_curve, speed_curve
from trainer.report_inputs import Example, GroupResult, ReportInputs
from trainer.scoreboard import PROBES, interval_of, recalls, scoreboard
from trainer.shortcuts import warning
from trainer.thumbnails import thumbnail
from trainer.verdict import Verdict, high_shortcuts, judge

__all__ = ["Example", "GroupResult", "ReportInputs", "Verdict", "judge", "render_report", "write_report"]

FILE_NAME = "report.html"
ROWS_SHOWN = 50
# A page of a few megabytes can be sent by mail; what isn't shown can be listed by python -m trainer.predict.
MISTAKES_SHOWN, UNCERTAIN_SHOWN, GROUPS_SHOWN, PANELS_SHOWN = 24, 12, 200, 24


def render_report(inputs: ReportInputs) -> str:
    """The text of `report.html`; equal inputs give equal text."""
    groups_known = inputs.manifest.grouping.rule != page.NO_GROUPS
    context = {field.name: getattr(inputs, field.name) for field in fields(inputs)} | {
        "kind": "Training report",
        "title": inputs.organ,
        "majority": inputs.baselines["majority"],
        "classical": inputs.baselines.get("classical"),
        "groups_known": groups_known,
        "verdict": judge(inputs.test, inputs.baselines, groups_known=groups_known),
        "scoreboard": scoreboard(inputs.test, inputs.baselines, inputs.shortcuts),
        "recalls": recalls(inputs.test, inputs.manifest.classes),
        "interval_of": interval_of,
        "probes": PROBES,
        "alarms": high_shortcuts(inputs.shortcuts),
        "warnings": {name: warning(name, probe) for name, probe in (inputs.shortcuts or {}).items()},
        "speed": _middle(inputs.history, "images_per_s"),
        "waiting": _middle(inputs.history, "waiting_share"),
        "most_behind": MOST_BEHIND,
        "left_out": page.left_out(inputs.quarantine, limit=ROWS_SHOWN),
        "mistakes": _in_small(inputs.mistakes[:MISTAKES_SHOWN]),
        "uncertain": _in_small(inputs.uncertain[:UNCERTAIN_SHOWN]),
        "groups": sorted(inputs.groups, key=lambda row: (row.right, -row.confidence, row.group))[:GROUPS_SHOWN],
        "groups_in_all": len(inputs.groups),
        "groups_right": sum(row.right for row in inputs.groups),
    }
    return page.render("trainer", FILE_NAME, context | _figures(inputs))


def write_report(folder: Path, inputs: ReportInputs) -> Path:
    """Write `report.html` into `folder`, whole or not at all, and return its path.

    Raises `ValueError` if the image of a mistake is neither PNG nor JPEG, `OSError` if the disk refuses.
    """
    path = folder / FILE_NAME
    write_atomic(path, render_report(inputs).encode())
    return path


def _figures(inputs: ReportInputs) -> dict[str, Any]:
    """Every figure of the page, by the name templates know it by."""
    curves = inputs.curves or {}
    risk = curves.get("risk_coverage") or {"coverage": [], "risk": []}
    # Where there are very many diagnoses, those that are told apart worst.
    worst = sorted((curves.get("roc") or {}).items(), key=lambda item: (_area(item[1]), item[0]))[:PANELS_SHOWN]
    shown = [name for name in inputs.manifest.classes if name in dict(worst)]
    shares = {name: row["support"] / inputs.test["n"] for name, row in inputs.test["per_class"].items()}
    return {
        "training_figures": _training_figures(inputs.history, inputs.best_epoch),
        "roc_figures": roc_curves({name: curves["roc"][name] for name in shown}),
        "pr_figures": precision_recall_curves({name: (curves.get("pr") or {}).get(name) for name in shown}, shares),
        "reliability_figure": reliability_diagram(
            curves.get("reliability") or (), before=curves.get("reliability_uncalibrated")
        ),
        "risk_figure": risk_coverage_curve(risk, inputs.abstention),
        "risk_at": [(share, risk_at(risk, share)) for share in (1.0, 0.8, 0.5)] if risk["coverage"] else [],
    }


def _area(curve: Any) -> float:
    return 2.0 if not curve or curve["auc"] is None else float(curve["auc"])


def _training_figures(history: History, best_epoch: int) -> tuple[Figure, ...]:
    if not history:
        return ()
    figures = [draw(history, best_epoch=best_epoch) for draw in (loss_curve, accuracy_curve)]
    return (*figures, speed_curve(history)) if any("images_per_s" in row for row in history) else tuple(figures)


def _in_small(examples: Iterable[Example]) -> tuple[Example, ...]:
    return tuple(
        replace(one, image=thumbnail(one.image), heat_map=thumbnail(one.heat_map) if one.heat_map else None)
        for one in examples
    )


def _middle(history: History, column: str) -> float | None:
    """Of the median epoch: the first one also pays for compilation."""
    values = [row[column] for row in history if column in row]
    return median(values) if values else None

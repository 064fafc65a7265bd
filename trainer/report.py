"""The report of a run: one `report.html` that answers "is it any good?" first and shows the evidence below.

    path = write_report(Path("runs/cervix/1f3a"), ReportInputs(organ="cervix", ...))

The page needs no network and no script. Each section is a block of `templates/report.html`; each figure a function of
`plots.py`; the frame and the sections on the dataset are those of the dataset card.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from data_pipeline import page
from data_pipeline.manifest import Manifest, QuarantineRow
from data_pipeline.storage import write_atomic
from trainer.metrics import wilson_interval
from trainer.plots import Figure, History, accuracy_curve, loss_curve

FILE_NAME = "report.html"
ROWS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Example:
    """One example of the test split and what the model said. `image` holds the bytes of a PNG or JPEG file."""

    image: bytes
    id: str
    group: str
    truth: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class ReportInputs:
    """Everything the report says.

    `history` holds one mapping an epoch: `epoch`, `train_loss`, `train_accuracy`, `validation_loss`,
    `validation_accuracy`, `validation_balanced_accuracy`, `images_per_s`, `seconds`, `learning_rate`. `best_epoch` is
    counted as `epoch` is, and `monitor` names the metric of the validation split that chose it. `validation` and
    `test` come from `compute_metrics`; `validation` is empty if the dataset has no such split. `baselines` are scores
    on the test split and hold at least `majority`, from `majority_baseline`. `command` trains this run again.
    """

    organ: str
    run: str
    manifest: Manifest
    quarantine: Sequence[QuarantineRow]
    history: History
    best_epoch: int
    monitor: str
    validation: Mapping[str, Any]
    test: Mapping[str, Any]
    baselines: Mapping[str, Mapping[str, Any]]
    mistakes: tuple[Example, ...]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    parameters: int
    train_seconds: float
    command: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the model beats always answering the commonest diagnosis.

    `level` is `better`, `unclear` or `no-better`; `interval` is where the true accuracy lies with 95 % confidence if
    each of `trials` is independent of the others.
    """

    level: str
    headline: str
    interval: tuple[float, float]
    trials: int


def judge(test: Mapping[str, Any], majority: Mapping[str, Any], *, groups_known: bool) -> Verdict:
    """Compare test metrics with the majority baseline, as sceptically as the data deserves.

    Images of one group resemble each other, so where groups are known they are what is counted, not images. A model
    is better if the whole interval of its accuracy lies above the baseline and its balanced accuracy does too.
    """
    trials = test["groups"] if groups_known else test["n"]
    interval = wilson_interval(test["accuracy"], trials)
    if test["accuracy"] <= majority["accuracy"]:
        level, headline = "no-better", "No better than always answering the commonest diagnosis."
    elif interval[0] > majority["accuracy"] and test["balanced_accuracy"] > majority["balanced_accuracy"]:
        level, headline = "better", "Clearly better than always answering the commonest diagnosis."
    else:
        level, headline = "unclear", "Ahead of always answering the commonest diagnosis, but too close to be sure."
    return Verdict(level, headline, interval, trials)


def render_report(inputs: ReportInputs) -> str:
    """The text of `report.html`; equal inputs give equal text."""
    majority = inputs.baselines["majority"]
    groups_known = inputs.manifest.grouping.rule != page.NO_GROUPS
    context = {field.name: getattr(inputs, field.name) for field in fields(inputs)} | {
        "kind": "Training report",
        "title": inputs.organ,
        "majority": majority,
        "groups_known": groups_known,
        "verdict": judge(inputs.test, majority, groups_known=groups_known),
        "figures": _figures(inputs),
        "speed": _speed(inputs.history),
        "left_out": page.left_out(inputs.quarantine, limit=ROWS_SHOWN),
    }
    return page.render("trainer", FILE_NAME, context)


def write_report(folder: Path, inputs: ReportInputs) -> Path:
    """Write `report.html` into `folder`, whole or not at all, and return its path.

    Raises `ValueError` if the image of a mistake is neither PNG nor JPEG, `OSError` if the disk refuses.
    """
    path = folder / FILE_NAME
    write_atomic(path, render_report(inputs).encode())
    return path


def _figures(inputs: ReportInputs) -> tuple[Figure, ...]:
    if not inputs.history:
        return ()
    return tuple(draw(inputs.history, best_epoch=inputs.best_epoch) for draw in (loss_curve, accuracy_curve))


def _speed(history: History) -> float | None:
    """Images trained on a second, by the median epoch: the first one also pays for compilation."""
    speeds = [row["images_per_s"] for row in history if "images_per_s" in row]
    return median(speeds) if speeds else None

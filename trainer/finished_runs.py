"""Runs to be compared: what each was trained with and what it said, read from its folder and checked.

    runs = read_runs(["runs/cervix/a", "runs/cervix/b"], folds=False)      # raises RequestError

Needs no TensorFlow: a run leaves its predictions in `predictions.csv`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.cli import RequestError
from data_pipeline.storage import in_bucket
from trainer.metrics import Predictions
from trainer.predictions_file import PREDICTIONS, read_predictions
from trainer.run_folder import CONFIG_NAME, METRICS

EXAMPLES = 3


@dataclass(frozen=True)
class FinishedRun:
    """A run, by a name that no other of the comparison has. `train_images` is None if it doesn't say how many."""

    name: str
    organ: str
    settings: dict[str, Any]
    dataset: str
    train_images: int | None
    classes: tuple[str, ...]
    validation: Predictions
    test: Predictions


def read_runs(values: Sequence[str], *, folds: bool) -> tuple[FinishedRun, ...]:
    """The runs in these folders, in this order; with `folds` they may have been tested on different images.

    Raises `RequestError` for a folder that is no finished run, and for runs that can't be compared.
    """
    folders = [_folder(value) for value in values]
    names = _names(folders)
    for name in names:
        if names.count(name) > 1:
            raise RequestError(f"The run {name} is named twice. To fix it: name each run once.")
    runs = tuple(_read(folder, name) for folder, name in zip(folders, names, strict=True))
    for run in runs[1:]:
        _check_comparable(runs[0], run, folds=folds)
    return runs


def _folder(value: str) -> Path:
    if in_bucket(value):
        raise RequestError(
            f"Invalid RUN. Expected a folder on a local or mounted disk. Received: {value!r}. To fix it: copy "
            f"its {CONFIG_NAME}, {METRICS} and {PREDICTIONS} first, as by `gcloud storage cp`; runs in Cloud Storage "
            "can't be compared where they are."
        )
    return Path(value).expanduser().absolute()


def _names(folders: Sequence[Path]) -> list[str]:
    """The end of each path, as long as it takes to tell all apart."""
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(set(folders)):
            break
    return names


def _read(folder: Path, name: str) -> FinishedRun:
    if not folder.is_dir() or not (folder / CONFIG_NAME).is_file():
        raise RequestError(
            f"Invalid RUN. Expected the folder of a run, with its {CONFIG_NAME}. Received: {str(folder)!r}. To fix it: "
            "name folders that `python -m trainer` made, RUNS/ORGAN/RUN."
        )
    if not (folder / METRICS).is_file():
        raise RequestError(
            f"The run in {folder} isn't finished: it has no {METRICS}. To fix it: repeat its command, which goes on "
            "where it stopped, or leave the run out."
        )
    if not (folder / PREDICTIONS).is_file():
        raise RequestError(
            f"The run in {folder} has no {PREDICTIONS}, so it can't be compared image by image. To fix it: train it "
            "again with this version, or leave the run out."
        )
    config, metrics = _json(folder / CONFIG_NAME), _json(folder / METRICS)
    stored = read_predictions(folder)
    try:
        run = FinishedRun(
            name=name,
            organ=str(metrics["organ"]),
            settings=dict(config["settings"]),
            dataset=str(metrics["dataset"]),
            train_images=metrics.get("train_images"),
            classes=tuple(metrics["classes"]),
            validation=stored.validation,
            test=stored.test,
        )
        counted = int(metrics["test"]["n"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / METRICS, f"{CONFIG_NAME} or it lacks {error}") from None
    if stored.classes != run.classes or len(stored.test.ids) != counted:
        raise _damaged(
            folder / PREDICTIONS,
            f"it has {len(stored.test.ids)} test images of {len(stored.classes)} classes, {METRICS} counts {counted} "
            f"of {len(run.classes)}",
        )
    return run


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(content, dict):
        raise _damaged(path, "it is no JSON object")
    return content


def _damaged(path: Path, why: str) -> RequestError:
    return RequestError(
        f"{path} isn't as training left it: {why}. To fix it: restore the file, or train the run again."
    )


def _check_comparable(first: FinishedRun, run: FinishedRun, *, folds: bool) -> None:
    if run.classes != first.classes:
        raise RequestError(
            f"The runs {first.name} and {run.name} know different classes: {', '.join(first.classes)} and "
            f"{', '.join(run.classes)}. To fix it: compare runs of one organ with the same diagnoses."
        )
    ours, theirs = set(first.test.ids), set(run.test.ids)
    if not folds and ours != theirs:
        alone = [f"{len(some)} only by {name} ({_some(some)})" for some, name in _alone(first, run) if some]
        raise RequestError(
            f"The runs {first.name} and {run.name} were tested on different images: {len(ours & theirs)} by both, "
            f"{', '.join(alone)}. To fix it: compare runs on datasets with the same test split, or add --folds if they "
            "are folds of a cross-validation; then only images that both tested are compared."
        )
    labels = dict(zip(first.test.ids, first.test.labels.tolist(), strict=True))
    for name, label in zip(run.test.ids, run.test.labels.tolist(), strict=True):
        if labels.get(name, label) != label:
            raise RequestError(
                f"The test image {name!r} is {first.classes[labels[name]]} to {first.name} and {run.classes[label]} to "
                f"{run.name}. To fix it: compare runs on datasets with the same labels."
            )


def _alone(first: FinishedRun, run: FinishedRun) -> list[tuple[list[str], str]]:
    ours, theirs = set(first.test.ids), set(run.test.ids)
    return [(sorted(ours - theirs), first.name), (sorted(theirs - ours), run.name)]


def _some(names: list[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", …" if len(names) > EXAMPLES else "")

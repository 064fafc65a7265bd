"""Runs as training leaves them, without training: for the tests of what compares them.

run = made("a", noise=1.0, seed=2)
folder = written(tmp_path / "a", run)
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.trainer.simulated import simulate, softmax
from trainer.finished_runs import FinishedRun
from trainer.metrics import Predictions, compute_metrics
from trainer.predictions_file import write_predictions
from trainer.run_folder import CONFIG_NAME
from trainer.run_folder import METRICS as METRICS_NAME

CLASSES = ("benign", "atypical", "<malignant>")
VALIDATION, TEST = (simulate(np.random.default_rng(one), n=240, classes=3, groups=40, skill=1.5) for one in (1, 2))


def less_sure_of(predictions: Predictions, noise: float, seed: int) -> Predictions:
    """What a worse model says about the same images."""
    logits = np.log(predictions.probabilities) + np.random.default_rng(seed).normal(
        0, noise, predictions.probabilities.shape
    )
    return replace(predictions, probabilities=softmax(logits))


def made(name: str, *, noise: float = 0.0, seed: int = 0, test: Predictions = TEST, **changed: Any) -> FinishedRun:
    """A run that differs from the others as said; `settings` and what else it has may be changed."""
    settings = {"organ": "cervix", "seed": seed, "learning_rate": 0.001} | changed.pop("settings", {})
    run = FinishedRun(
        name=name,
        organ="cervix",
        settings=settings,
        dataset="d1",
        train_images=500,
        classes=CLASSES,
        validation=less_sure_of(VALIDATION, noise, seed) if noise else VALIDATION,
        test=less_sure_of(test, noise, seed) if noise else test,
    )
    return replace(run, **changed)


def written(folder: Path, run: FinishedRun) -> Path:
    """The folder of that run, as training leaves it."""
    folder.mkdir(parents=True)
    (folder / CONFIG_NAME).write_text(json.dumps({"settings": run.settings, "dataset": run.dataset, "command": ""}))
    metrics = {
        "organ": run.organ,
        "classes": run.classes,
        "dataset": run.dataset,
        "train_images": run.train_images,
        "test": compute_metrics(run.test, run.classes),
    }
    (folder / METRICS_NAME).write_text(json.dumps(metrics))
    write_predictions(folder, run.classes, validation=run.validation, test=run.test)
    return folder


def part(predictions: Predictions, rows: slice) -> Predictions:
    return Predictions(
        predictions.ids[rows], predictions.groups[rows], predictions.labels[rows], predictions.probabilities[rows]
    )

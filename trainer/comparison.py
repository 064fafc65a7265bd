"""What several runs say together: scores, differences, the spread over seeds and folds, a learning curve. Pure.

    found = compare(runs, seed=0)
    found["differences"][0]["balanced_accuracy"]     # {"value": 0.03, "interval": [0.01, 0.06]}: second less first run

All of it is ready for JSON.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.finished_runs import FinishedRun
from trainer.metrics import Predictions, compute_metrics
from trainer.scores import paired_differences, scores_with_intervals

METRICS = ("balanced_accuracy", "accuracy", "macro_f1", "log_loss", "ece")
COMPARED = "balanced_accuracy"  # what the verdict and the drawings are of


def compare(runs: Sequence[FinishedRun], *, folds: bool = False, seed: int = 0) -> dict[str, Any]:
    """`runs`, `differences` of each to the first, `summaries` over seeds and folds, and the `learning_curve`."""
    varied = varied_settings(runs)
    scored = [_scored(run, seed) for run in runs]
    return {
        "organ": runs[0].organ,
        "classes": list(runs[0].classes),
        "varied": {name: [run.settings.get(name) for run in runs] for name in varied},
        "runs": scored,
        "differences": [_difference(runs[0], run, seed) for run in runs[1:]],
        "summaries": _summaries(runs, folds=folds, seed=seed),
        "learning_curve": _learning_curve(runs, scored),
    }


def varied_settings(runs: Sequence[FinishedRun]) -> list[str]:
    """The settings in which runs differ, by name."""
    names = sorted({name for run in runs for name in run.settings})
    return [name for name in names if len({_key(run.settings.get(name)) for run in runs}) > 1]


def only(predictions: Predictions, ids: frozenset[str]) -> Predictions:
    """The predictions for these ids, in their order."""
    rows = [row for row, name in enumerate(predictions.ids) if name in ids]
    return Predictions(
        ids=tuple(predictions.ids[row] for row in rows),
        groups=tuple(predictions.groups[row] for row in rows),
        labels=predictions.labels[rows],
        probabilities=predictions.probabilities[rows],
    )


def _scored(run: FinishedRun, seed: int) -> dict[str, Any]:
    splits = {"validation": run.validation, "test": run.test}
    return {
        "name": run.name,
        "dataset": run.dataset,
        "train_images": run.train_images,
        "seed": run.settings.get("seed"),
    } | {name: _numbers(split, run.classes, seed) if split.ids else None for name, split in splits.items()}


def _numbers(predictions: Predictions, classes: Sequence[str], seed: int) -> dict[str, Any]:
    scores = scores_with_intervals(predictions, classes, seed=seed, with_areas=False)
    intervals = {name: scores["intervals"][name] for name in METRICS}
    return {name: scores[name] for name in ("n", "groups", *METRICS)} | {"intervals": intervals}


def _difference(first: FinishedRun, run: FinishedRun, seed: int) -> dict[str, Any]:
    both = frozenset(first.test.ids) & frozenset(run.test.ids)
    nothing: dict[str, Any] = dict.fromkeys(METRICS)
    if not both:
        return {"name": run.name, "to": first.name, "n": 0, "groups": 0} | nothing
    ours, theirs = only(run.test, both), only(first.test, both)
    counted = {"name": run.name, "to": first.name, "n": len(both), "groups": len(set(ours.groups))}
    return counted | paired_differences(ours, theirs, run.classes, metrics=METRICS, seed=seed)


def _summaries(runs: Sequence[FinishedRun], *, folds: bool, seed: int) -> list[dict[str, Any]]:
    """Runs that differ in nothing but their seed, nor in their dataset unless they are folds."""
    alike: dict[str, list[FinishedRun]] = {}
    for run in runs:
        settings = {name: value for name, value in run.settings.items() if name != "seed"}
        alike.setdefault(_key([settings, None if folds else run.dataset]), []).append(run)
    return [_summary(runs, members, seed) for members in alike.values() if len(members) > 1]


def _summary(runs: Sequence[FinishedRun], members: Sequence[FinishedRun], seed: int) -> dict[str, Any]:
    """Mean and spread over the members; `pooled` are scores of all their test images, if no image was tested twice."""
    summary: dict[str, Any] = {"label": label(runs, members[0]), "runs": [run.name for run in members]}
    for split in ("validation", "test"):
        known = [getattr(run, split) for run in members if getattr(run, split).ids]
        scored = [compute_metrics(predictions, members[0].classes) for predictions in known]
        summary[split] = {name: _spread([scores[name] for scores in scored]) for name in METRICS} if scored else None
    pooled = together([run.test for run in members])
    disjoint = len(set(pooled.ids)) == len(pooled.ids)
    summary["pooled"] = _numbers(pooled, members[0].classes, seed) if disjoint else None
    return summary


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None of one value), least and greatest."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {
        "mean": float(np.mean(values)),
        "deviation": deviation,
        "least": min(values),
        "greatest": max(values),
        "n": len(values),
    }


def together(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of all parts, one after another."""
    return Predictions(
        ids=tuple(name for part in parts for name in part.ids),
        groups=tuple(name for part in parts for name in part.groups),
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
    )


def _learning_curve(runs: Sequence[FinishedRun], scored: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A series for each kind of settings, points by their number of training images; none if all have as many."""
    known = [(run, row) for run, row in zip(runs, scored, strict=True) if run.train_images is not None]
    if len({run.train_images for run, _ in known}) < 2:
        return []
    series: dict[str, list[dict[str, Any]]] = {}
    for run, row in sorted(known, key=lambda pair: (pair[0].train_images or 0, pair[0].name)):
        point = {"images": run.train_images, "run": run.name, "value": row["test"][COMPARED]}
        series.setdefault(label(runs, run), []).append(point | {"interval": row["test"]["intervals"][COMPARED]})
    return [{"label": name, "points": points} for name, points in series.items()]


def label(runs: Sequence[FinishedRun], run: FinishedRun) -> str:
    """What tells a run's settings from the others', but for the seed."""
    names = [name for name in varied_settings(runs) if name != "seed"]
    return ", ".join(f"{name}={run.settings.get(name)}" for name in names) or "the same settings"


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)

"""What each recipe, and each part of it, is worth: cross-validation by group, the tables of trainer/recipes/RESULTS.md.

Usage: python -m tests.benchmarks.recipes --tfrecords=DIR --work=DIR [--organs=cervix,lung] [--rows='strong;seed']

  --tfrecords   datasets that python -m data_pipeline wrote; their test splits stay unopened
  --work        gets the folds, a run for each row, organ and fold, and a JSON of results for each organ; what
                is there is not done again
  --test_split  train on the whole training part instead, and score the test split: once, when all is decided

Each row is a command line of `python -m trainer`, in a process of its own. Scores are means over folds of the parts
that were held out, intervals and calibration errors those of all folds together, resampling groups. Recipes are held
against the classical baseline and `strong`, parts of a recipe against `fast`, image by image. It takes hours: stop it
at any time, and give the command again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.calibration import expected_calibration_error
from trainer.comparison import only, together
from trainer.finished_runs import FinishedRun, read_runs
from trainer.scores import paired_differences, scores_with_intervals

ORGANS = ("cervix", "lung", "blood_cells", "white_blood_cells")
FOLDS = 5
# What a row trains with, beside --organ and places.
RECIPES = {
    "strong": "--recipe=strong",
    "fast": "--recipe=fast",
    "seed": "--recipe=seed --precision=bfloat16",  # half the time; in float32 it learns the same
}
# What `fast` is without one of its parts, or with another: `strong` is four of these networks, and four times as slow.
PARTS = {
    "other seed": "--seed=1",
    "constant learning rate": "--schedule=constant --warmup=0",
    "no average of weights": "--ema=0",
    "the best epoch": "--keep=best",
    "no label smoothing": "--label_smoothing=0",
    "balanced class weights": "--class_weights=balanced",
    "no class weights": "--class_weights=none",
    "no weight decay": "--weight_decay=0",
    "Adamax": "--optimizer=adamax",
    "dropout 0.3": "--dropout=0.3",
    "one view at test time": "--notta",
    "the notebooks' augmentation and mixup": "--rotation=30 --shift=0.15 --zoom=0.2 --brightness=0.5 --noquarter_turns",
    "no augmentation": "--noaugment --noquarter_turns --mixup=0",
    "colour 0.1": "--colour=0.1",
    "stain 0.05": "--stain=0.05",
    "no mixup": "--mixup=0",
    "CutMix 1 instead of mixup": "--mixup=0 --cutmix=1",
    "standardised weights": "--model=residual",
    "group normalisation": "--model=residual_groups",
    "seed_pooled": "--model=seed_pooled",
    "convnext": "--model=convnext",
    "64 pixels": "--image_size=64",
    "192 pixels": "--image_size=192",
    "120 epochs": "--epochs=120",
}
ROWS = RECIPES | {name: f"--recipe=fast {flags}" for name, flags in PARTS.items()}
TEST_SPLIT = 0  # in place of a fold's number
DRAWS = 200
SHOWN = ("balanced_accuracy", "accuracy", "log_loss", "ece")


@dataclass(frozen=True)
class Job:
    """One training."""

    row: str
    organ: str
    fold: int
    work: Path
    tfrecords: Path | None = None

    @property
    def runs(self) -> Path:
        part = f"fold-{self.fold}" if self.fold != TEST_SPLIT else "test"
        return self.work / "runs" / self.row.replace(" ", "_").replace("'", "") / part

    @property
    def folder(self) -> Path:
        return self.runs / self.organ / "run"

    @property
    def done(self) -> bool:
        return (self.folder / "report.html").exists()

    def run(self) -> None:
        """Train, or go on with it. Raises `CalledProcessError`."""
        fold = self.work / "folds" / f"fold-{self.fold}-of-{FOLDS}"
        places = (f"--tfrecords={fold if self.fold != TEST_SPLIT else self.tfrecords}", f"--runs={self.runs}")
        command = [sys.executable, "-m", "trainer", f"--organ={self.organ}", *places, "--run=run"]
        log = self.runs / f"{self.organ}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            subprocess.run([*command, *ROWS[self.row].split()], check=True, stdout=file, stderr=file)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tfrecords", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--organs", default=",".join(ORGANS))
    parser.add_argument("--rows", default=";".join(RECIPES), help="names of rows, divided by semicolons")
    parser.add_argument("--folds", default=",".join(str(number + 1) for number in range(FOLDS)))
    parser.add_argument("--test_split", action="store_true")
    parser.add_argument("--table_only", action="store_true")
    values = parser.parse_args()
    organs, rows = values.organs.split(","), values.rows.split(";")
    if not values.table_only:
        folds = [TEST_SPLIT] if values.test_split else [int(fold) for fold in values.folds.split(",")]
        if not values.test_split:
            cut = ("--organ=" + values.organs, f"--tfrecords={values.tfrecords}", f"--output={values.work}/folds")
            subprocess.run([sys.executable, "-m", "data_pipeline.folds", *cut, f"--folds={FOLDS}"], check=True)
        jobs = [
            Job(row, organ, fold, values.work, values.tfrecords) for fold in folds for row in rows for organ in organs
        ]
        for number, job in enumerate(job for job in jobs if not job.done):
            print(f"{number + 1}: {job.row}, {job.organ}, {job.runs.name}", file=sys.stderr, flush=True)
            job.run()
    folds = [TEST_SPLIT] if values.test_split else [number + 1 for number in range(FOLDS)]
    results = {organ: _results(organ, folds, values.work) for organ in organs}
    for organ, rows in results.items():
        (values.work / f"{'test' if values.test_split else 'folds'}-{organ}.json").write_text(
            json.dumps(rows, indent=1)
        )
    print("\n".join((_test_table if values.test_split else _tables)(results)))


def _results(organ: str, folds: Sequence[int], work: Path) -> dict[str, dict[str, Any]]:
    """What each row's finished folds say together, and how they differ from the row they are held against."""
    finished: dict[str, Sequence[FinishedRun]] = {}
    results = {}
    for row in ROWS:
        done = [job for job in (Job(row, organ, fold, work) for fold in folds) if job.done]
        if not done:
            continue
        _check(row, done)
        runs = finished[row] = read_runs([str(job.folder) for job in done], folds=True)
        test = together([run.test for run in runs])
        found = scores_with_intervals(test, runs[0].classes, with_areas=False)
        metrics = [json.loads((job.folder / "metrics.json").read_text()) for job in done]
        results[row] = {
            "folds": [job.fold for job in done],
            "n": found["n"],
            **{name: found[name] for name in SHOWN},
            "intervals": {name: found["intervals"][name] for name in SHOWN},
            "ece_by_chance": _ece_by_chance(test.confidences),
            "to_classical": _to_classical([one["baselines"]["classical"]["difference"]["accuracy"] for one in metrics]),
            "mean_over_folds": {name: mean(one["test"][name] for one in metrics) for name in SHOWN},
            "classical": {name: mean(one["baselines"]["classical"][name] for one in metrics) for name in SHOWN[:2]},
            "difference": _difference(runs, finished.get("fast" if row in PARTS else "strong", ())),
            "minutes": median(sum(row["seconds"] for row in one["history"]) / 60 for one in metrics),
        }
    return results


def _check(row: str, done: Sequence[Job]) -> None:
    """All folds of a row were trained with the same settings. Raises `SystemExit` if a recipe or row changed since."""
    settings = [json.loads((job.folder / "config.json").read_text())["settings"] for job in done]
    if any(other != settings[0] for other in settings):
        sys.exit(
            f"The runs of {row!r} in {done[0].work} have not all the same settings: remove those of the older ones."
        )


def _ece_by_chance(confidences: NDArray[np.floating[Any]]) -> float:
    """What a perfectly calibrated model stays below 95 times in 100, on so few images: bins hold a handful each."""
    rng = np.random.default_rng(0)
    drawn = [rng.random(len(confidences)) < confidences for _ in range(DRAWS)]
    return float(np.quantile([expected_calibration_error(confidences, right) for right in drawn], 0.95))


def _to_classical(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of the folds' differences. Each is of other groups: errors add up as those of independent numbers do."""
    value = mean(one["value"] for one in folds)
    widths = [one["interval"][1] - one["interval"][0] for one in folds if one["interval"]]
    half = float(np.sqrt(np.sum(np.square(widths)))) / (2 * len(folds))
    return {"value": value, "interval": [value - half, value + half] if len(widths) == len(folds) else None}


def _difference(runs: Sequence[FinishedRun], reference: Sequence[FinishedRun]) -> dict[str, Any] | None:
    """Of the images that both were tested on."""
    if not reference or reference is runs:
        return None
    ours, theirs = together([run.test for run in runs]), together([run.test for run in reference])
    both = frozenset(ours.ids) & frozenset(theirs.ids)
    if not both:
        return None
    parts = [only(part, both) for part in (ours, theirs)]
    return {"n": len(both)} | paired_differences(*parts, runs[0].classes, metrics=SHOWN[:3])


def _tables(results: Mapping[str, Mapping[str, dict[str, Any]]]) -> Iterator[str]:
    """Markdown: a table of recipes and one of parts for each organ."""
    for organ, rows in results.items():
        yield f"\n### {organ}\n"
        yield "| | folds | balanced accuracy | accuracy | to classical | to strong | calibration (by chance) | min |"
        yield "|---|---|---|---|---|---|---|---|"
        if rows:
            first = next(iter(rows.values()))
            yield f"| *classical baseline* | {len(first['folds'])} | {_classical(first)} | | | | |"
        for name in (name for name in RECIPES if name in rows):
            yield f"| {name} | {len(rows[name]['folds'])} | {_cells(rows[name])} | {rows[name]['minutes']:.1f} |"
        if parts := [name for name in PARTS if name in rows]:
            yield "\n| fast, but with | folds | balanced accuracy | accuracy | log loss |"
            yield "|---|---|---|---|---|"
            for name in parts:
                scores = " | ".join(_apart(rows[name], key) for key in SHOWN[:3])
                yield f"| {name} | {len(rows[name]['folds'])} | {scores} |"


def _test_table(results: Mapping[str, Mapping[str, dict[str, Any]]]) -> Iterator[str]:
    """Markdown: a line for each organ and recipe."""
    yield "| | images | balanced accuracy | accuracy | to classical | to strong | calibration (by chance) |"
    yield "|---|---|---|---|---|---|---|"
    for organ, rows in results.items():
        recipes = [name for name in RECIPES if name in rows]
        for name in recipes[:1]:
            yield f"| **{organ}**, *classical baseline* | {rows[name]['n']} | {_classical(rows[name])} | | | |"
        for name in recipes:
            yield f"| {name} | | {_cells(rows[name])} |"


def _classical(row: Mapping[str, Any]) -> str:
    return " | ".join(f"{row['classical'][key]:.3f}" for key in SHOWN[:2])


def _cells(row: Mapping[str, Any]) -> str:
    """What is told of a recipe: scores, how far they are from others', and the calibration error."""
    scores = [_score(row, key) for key in SHOWN[:2]]
    apart = [_limits(row["to_classical"]), _apart(row, "accuracy")]
    return " | ".join([*scores, *apart, f"{row['ece']:.3f} ({row['ece_by_chance']:.3f})"])


def _score(row: Mapping[str, Any], key: str) -> str:
    low, high = row["intervals"][key]
    return f"{row['mean_over_folds'][key]:.3f} ({low:.3f}–{high:.3f})"


def _apart(row: Mapping[str, Any], key: str) -> str:
    """How far from the row it's held against, and between which limits that lies."""
    return _limits(row["difference"][key]) if row["difference"] else ""


def _limits(difference: Mapping[str, Any]) -> str:
    value, interval = difference["value"], difference["interval"]
    return f"{value:+.3f} ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else f"{value:+.3f}"


if __name__ == "__main__":
    main()

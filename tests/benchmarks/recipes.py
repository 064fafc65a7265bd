"""What each recipe, and each part of it, is worth: cross-validation by group, the tables of trainer/recipes/RESULTS.md.

Usage: python -m tests.benchmarks.recipes --tfrecords=DIR --work=DIR [--organs=cervix,lung] [--rows='strong;seed']

  --tfrecords  datasets that python -m data_pipeline wrote; their test splits stay unopened
  --work       gets the folds, a run for each row, organ and fold, and results.json; what is there is not done again

Each row is a command line of `python -m trainer`, in a process of its own. Scores are means over folds of the parts
that were held out, intervals and calibration error those of all folds together, resampling groups. It takes hours: stop
it at any time, and give the command again.
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
REFERENCE = "strong"
# What a row trains with, beside --organ and places.
ROWS: Mapping[str, tuple[str, ...]] = {
    "seed": ("--recipe=seed", "--precision=bfloat16"),  # half the time; in float32 it learns the same
    "fast": ("--recipe=fast",),
    "strong": ("--recipe=strong",),
    "strong, other seed": ("--recipe=strong", "--seed=1"),
    "constant learning rate": ("--recipe=strong", "--schedule=constant", "--warmup=0"),
    "no average of weights": ("--recipe=strong", "--ema=0"),
    "no label smoothing": ("--recipe=strong", "--label_smoothing=0"),
    "balanced class weights": ("--recipe=strong", "--class_weights=balanced"),
    "no class weights": ("--recipe=strong", "--class_weights=none"),
    "no weight decay": ("--recipe=strong", "--weight_decay=0"),
    "Adamax": ("--recipe=strong", "--optimizer=adamax"),
    "one view at test time": ("--recipe=strong", "--notta"),
    "the notebooks' augmentation": (
        *("--recipe=strong", "--rotation=30", "--shift=0.15", "--zoom=0.2", "--brightness=0.5", "--noquarter_turns"),
        "--colour=0",
    ),
    "the notebooks' brightness": ("--recipe=strong", "--brightness=0.5"),
    "colour 0.1": ("--recipe=strong", "--colour=0.1"),
    "stain 0.05": ("--recipe=strong", "--stain=0.05"),
    "no mixup": ("--recipe=strong", "--mixup=0"),
    "CutMix 1": ("--recipe=strong", "--cutmix=1"),
    "dropout 0.3": ("--recipe=strong", "--dropout=0.3"),
    "the best epoch": ("--recipe=strong", "--keep=best"),
    "one network": ("--recipe=strong", "--model=residual_batch"),
    "four networks, standardised weights": ("--recipe=strong", "--model=residual_team"),
    "one network, standardised weights": ("--recipe=strong", "--model=residual"),
    "one network, standardised weights, twice as wide": ("--recipe=strong", "--model=residual_wide"),
    "one network, group normalisation": ("--recipe=strong", "--model=residual_groups"),
    "seed_pooled": ("--recipe=strong", "--model=seed_pooled"),
    "convnext": ("--recipe=strong", "--model=convnext"),
}
DRAWS = 200
SHOWN = ("balanced_accuracy", "accuracy", "ece")


@dataclass(frozen=True)
class Job:
    """One training."""

    row: str
    organ: str
    fold: int
    work: Path

    @property
    def runs(self) -> Path:
        return self.work / "runs" / self.row.replace(" ", "_").replace(",", "").replace("'", "") / f"fold-{self.fold}"

    @property
    def folder(self) -> Path:
        return self.runs / self.organ / "run"

    @property
    def done(self) -> bool:
        return (self.folder / "report.html").exists()

    def run(self) -> None:
        """Train, or go on with it. Raises `CalledProcessError`."""
        places = (f"--tfrecords={self.work}/folds/fold-{self.fold}-of-{FOLDS}", f"--runs={self.runs}")
        command = [sys.executable, "-m", "trainer", f"--organ={self.organ}", *places, "--run=run", *ROWS[self.row]]
        log = self.runs / f"{self.organ}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            subprocess.run(command, check=True, stdout=file, stderr=file)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tfrecords", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--organs", default=",".join(ORGANS))
    parser.add_argument("--rows", default="seed;fast;strong", help="names of rows, divided by semicolons")
    parser.add_argument("--folds", default=",".join(str(number + 1) for number in range(FOLDS)))
    parser.add_argument("--table_only", action="store_true")
    values = parser.parse_args()
    organs, rows = values.organs.split(","), values.rows.split(";")
    if not values.table_only:
        cut = ("--organ=" + values.organs, f"--tfrecords={values.tfrecords}", f"--output={values.work}/folds")
        subprocess.run([sys.executable, "-m", "data_pipeline.folds", *cut, f"--folds={FOLDS}"], check=True)
        jobs = [
            Job(row, organ, int(fold), values.work)
            for fold in values.folds.split(",")
            for row in rows
            for organ in organs
        ]
        for number, job in enumerate(job for job in jobs if not job.done):
            print(f"{number + 1}: {job.row}, {job.organ}, fold {job.fold}", file=sys.stderr, flush=True)
            job.run()
    results = {organ: dict(_results(organ, values.work)) for organ in organs}
    (values.work / "results.json").write_text(json.dumps(results, indent=1))
    print("\n".join(_tables(results)))


def _results(organ: str, work: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each row with finished folds what they say together, and how they differ from the reference."""
    reference: Sequence[FinishedRun] = ()
    for row in (REFERENCE, *(name for name in ROWS if name != REFERENCE)):
        jobs = [Job(row, organ, fold + 1, work) for fold in range(FOLDS)]
        done = [job for job in jobs if job.done]
        if not done:
            continue
        runs = read_runs([str(job.folder) for job in done], folds=True)
        reference = reference or runs
        test = together([run.test for run in runs])
        found = scores_with_intervals(test, runs[0].classes, with_areas=False)
        metrics = [json.loads((job.folder / "metrics.json").read_text()) for job in done]
        yield (
            row,
            {
                "folds": [job.fold for job in done],
                "n": found["n"],
                **{name: found[name] for name in SHOWN},
                "intervals": {name: found["intervals"][name] for name in SHOWN},
                "ece_by_chance": _ece_by_chance(test.confidences),
                "mean_over_folds": {name: mean(one["test"][name] for one in metrics) for name in SHOWN},
                "classical": {name: mean(one["baselines"]["classical"][name] for one in metrics) for name in SHOWN[:2]},
                "difference": _difference(runs, reference) if row != REFERENCE and reference is not runs else None,
                "minutes": median(sum(row["seconds"] for row in one["history"]) / 60 for one in metrics),
            },
        )


def _ece_by_chance(confidences: NDArray[np.floating[Any]]) -> float:
    """The calibration error that a perfectly calibrated model shows on so few images: bins hold a handful each."""
    rng = np.random.default_rng(0)
    drawn = [rng.random(len(confidences)) < confidences for _ in range(DRAWS)]
    return mean(expected_calibration_error(confidences, right) for right in drawn)


def _difference(runs: Sequence[FinishedRun], reference: Sequence[FinishedRun]) -> dict[str, Any] | None:
    """Of the images that both were tested on."""
    ours, theirs = together([run.test for run in runs]), together([run.test for run in reference])
    both = frozenset(ours.ids) & frozenset(theirs.ids)
    if not both:
        return None
    parts = [only(part, both) for part in (ours, theirs)]
    return {"n": len(both)} | paired_differences(*parts, runs[0].classes, metrics=SHOWN[:2])


def _tables(results: Mapping[str, Mapping[str, dict[str, Any]]]) -> Iterator[str]:
    """A Markdown table for each organ."""
    for organ, rows in results.items():
        yield f"\n### {organ}\n"
        yield "| | folds | balanced accuracy | accuracy | calibration error (by chance) | to strong, balanced | min |"
        yield "|---|---|---|---|---|---|---|"
        if rows:
            first = next(iter(rows.values()))
            classical = " | ".join(f"{first['classical'][key]:.3f}" for key in SHOWN[:2])
            yield f"| *classical baseline* | {len(first['folds'])} | {classical} | | | |"
        for name, row in rows.items():
            scores = " | ".join(_score(row, key) for key in SHOWN[:2])
            difference = row["difference"] and row["difference"][SHOWN[0]]
            apart = f"{difference['value']:+.3f} ({_interval(difference['interval'])})" if difference else ""
            error = f"{row['ece']:.3f} ({row['ece_by_chance']:.3f})"
            yield f"| {name} | {len(row['folds'])} | {scores} | {error} | {apart} | {row['minutes']:.1f} |"


def _score(row: Mapping[str, Any], key: str) -> str:
    low, high = row["intervals"][key]
    return f"{row['mean_over_folds'][key]:.3f} ({low:.3f}–{high:.3f})"


def _interval(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:+.3f} to {interval[1]:+.3f}" if interval else "unknown"


if __name__ == "__main__":
    main()

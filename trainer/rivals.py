"""What the network must beat, and what would make its score suspicious, on the same test split.

rivals = meet_rivals(dataset_folder, manifest, predictions, seed=0)
rivals.baselines, rivals.shortcuts          # as `metrics.json` has them
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.manifest import Manifest
from trainer.classical import CLASSICAL, answers_on_test, baseline_row
from trainer.metrics import Predictions, majority_baseline
from trainer.scores import paired_differences
from trainer.shortcuts import probe


@dataclass(frozen=True, slots=True)
class Rivals:
    """`baselines` and `shortcuts` of `metrics.json`."""

    baselines: dict[str, dict[str, Any]]
    shortcuts: dict[str, dict[str, Any]]


def meet_rivals(dataset_folder: Path, manifest: Manifest, test: Predictions, *, seed: int) -> Rivals:
    """Train and test the rivals of the network that answered `test`, all images in one pass.

    Raises `DatasetError` for a record that isn't the sealed one.
    """
    answers = answers_on_test(dataset_folder, manifest, seed=seed)
    classical = baseline_row(answers[CLASSICAL], manifest.classes, seed=seed)
    classical["difference"] = paired_differences(test, answers[CLASSICAL].predictions, manifest.classes, seed=seed)
    majority = majority_baseline(manifest.splits["train"].per_class, test, manifest.classes)
    return Rivals({"majority": majority, "classical": classical}, probe(answers, manifest.classes, seed=seed))

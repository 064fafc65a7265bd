"""What the report and the model card of a run are made from.

    inputs = ReportInputs(organ="cervix", run="1f3a", manifest=manifest, ..., test=metrics["test"])

The keys of the mappings are those of `metrics.json`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.manifest import Manifest, QuarantineRow
from trainer.plots_training import History


@dataclass(frozen=True, slots=True)
class Example:
    """One example of the test split and what the model said. `image` holds the bytes of a PNG or JPEG file.

    `heat_map` is such a file too: where the model looked, from `gradcam.overlay`; `looked_at` says it in words, as
    `gradcam.place` does. `second` is the next most probable diagnosis.
    """

    image: bytes
    id: str
    group: str
    truth: str
    predicted: str
    confidence: float
    heat_map: bytes | None = None
    looked_at: str = ""
    second: str = ""
    second_confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class GroupResult:
    """One group of the test split: how many images it has, and the answer of their averaged probabilities."""

    group: str
    images: int
    truth: str
    answer: str
    confidence: float

    @property
    def right(self) -> bool:
        return self.truth == self.answer


@dataclass(frozen=True)
class ReportInputs:
    """Everything the report says.

    `history` holds one mapping an epoch: `epoch`, `train_loss`, `train_accuracy`, `validation_loss`,
    `validation_accuracy`, `validation_balanced_accuracy`, `images_per_s`, `waiting_share`, `seconds`, `learning_rate`.
    `best_epoch` is counted as `epoch` is, and `monitor` names the metric of the validation split that chose it; it is
    empty if the last epoch was to be kept.
    `validation`, `test`, `baselines`, `temperature`, `abstention` and `shortcuts` are those of `metrics.json`;
    `validation` is empty if the dataset has no such split, `baselines` hold at least `majority`. `command` trains this
    run again.

    `curves` are of the test split: `roc` {diagnosis: {fpr, tpr, auc}}, `pr` {diagnosis: {recall, precision, ap}},
    `reliability` and `reliability_uncalibrated` [{low, high, n, confidence, accuracy}] and `risk_coverage` {coverage,
    risk}; any may be left out. `groups` are of the test split, `uncertain` its least certain answers, and `hashes`
    names what can be checked by its SHA-256.
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
    temperature: float | None = None
    abstention: Mapping[str, Any] | None = None
    shortcuts: Mapping[str, Any] | None = None
    curves: Mapping[str, Any] | None = None
    groups: tuple[GroupResult, ...] = ()
    uncertain: tuple[Example, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)

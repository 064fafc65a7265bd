"""Two runs to report on: a rich one with everything there is, and a poor one of a handful of images."""

from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.manifest import Counts, Grouping, Manifest, NearDuplicates, QuarantineRow, SplitCounts
from trainer.abstention import abstention_scores, selective_scores
from trainer.gradcam import overlay, place
from trainer.metrics import Predictions, confident_mistakes, least_certain, majority_baseline
from trainer.report_curves import report_curves
from trainer.report_inputs import Example, ReportInputs
from trainer.report_rows import group_results
from trainer.scores import split_scores

CLASSES = (
    "carcinoma_in_situ", "light_dysplastic", "moderate_dysplastic", "normal_columnar", "normal_intermediate",
    "normal_superficiel", "severe_dysplastic",
)  # fmt: skip
TILES = 3
Row = dict[str, Any]


def predictions(n: int = 210) -> Predictions:
    """Answers as a middling network gives them, `TILES` images to a smear."""
    random = np.random.default_rng(4)
    smears = n // TILES
    labels = np.repeat(np.arange(smears) % len(CLASSES), TILES)
    logits = random.normal(0, 1.1, (n, len(CLASSES))) + np.repeat(random.normal(0, 0.5, (smears, 7)), TILES, axis=0)
    logits[np.arange(n), labels] += 2.4
    # Dysplasias of neighbouring grades are what such networks confuse.
    logits[labels == 2, 6] += 1.3
    probabilities = np.exp(1.4 * logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ids = tuple(f"{CLASSES[label]}/1491433{70 + row // TILES}-{row:03d}.jpg" for row, label in enumerate(labels))
    groups = tuple(f"smear:1491433{70 + row // TILES}" for row in range(n))
    return Predictions(ids, groups, labels.astype(np.int64), probabilities.astype(np.float32))


def sharper(predictions: Predictions) -> Predictions:
    """The same before temperature scaling: surer of itself than it is right."""
    powers = predictions.probabilities.astype(np.float64) ** 1.7
    rows = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return replace(predictions, probabilities=rows)


def split_of(predictions: Predictions) -> Row:
    """All that `metrics.json` says of a split, from few resamples."""
    return split_scores(predictions, CLASSES, groups_known=True, uncalibrated=sharper(predictions), draws=100)


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 1.6 / epoch**0.7,
            "train_accuracy": 1 - 0.7 / epoch**0.7,
            "validation_loss": 1.5 / epoch**0.5 + 0.02 * epoch,
            "validation_accuracy": 0.9 - 0.6 / epoch**0.6,
            "validation_balanced_accuracy": 0.86 - 0.6 / epoch**0.6,
            "images_per_s": 200.0 + epoch % 7,
            "waiting_share": 0.031,
            "seconds": 3.1,
            "learning_rate": 1e-3,
        }
        for epoch in range(1, epochs + 1)
    ]


def cell_image(seed: int, size: int = 64) -> NDArray[np.float32]:
    """Something like a cell: a dark nucleus in a pale plasma. `[size, size, 3]` in [0, 1]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    away = np.hypot(x - random.uniform(-0.1, 0.1), y - random.uniform(-0.1, 0.1))
    noise = random.normal(0, 0.02, (size, size, 1))
    pale, plasma, nucleus = (np.array(one) for one in ((0.93, 0.9, 0.94), (0.82, 0.68, 0.8), (0.42, 0.24, 0.5)))
    inside = (away < random.uniform(0.3, 0.42))[..., None], (away < random.uniform(0.1, 0.2))[..., None]
    return np.clip(np.where(inside[1], nucleus, np.where(inside[0], plasma, pale)) + noise, 0, 1).astype(np.float32)


def encoded(pixels: NDArray[np.float32], image_format: str = "JPEG") -> bytes:
    out = BytesIO()
    Image.fromarray((255 * pixels).astype(np.uint8)).save(out, image_format)
    return out.getvalue()


def example(predictions: Predictions, row: int, classes: tuple[str, ...]) -> Example:
    pixels = cell_image(row)
    heat = np.exp(-((np.mgrid[:64, :64] - 20.0 - row % 24) ** 2).sum(axis=0) / 200).astype(np.float32)
    second = int(np.argsort(-predictions.probabilities[row])[1])
    return Example(
        encoded(pixels),
        predictions.ids[row],
        predictions.groups[row],
        classes[predictions.labels[row]],
        classes[predictions.answers[row]],
        float(predictions.confidences[row]),
        overlay(pixels, heat),
        place(heat),
        classes[second],
        float(predictions.probabilities[row, second]),
    )


@cache
def rich() -> ReportInputs:
    """Seven diagnoses in 70 smears, everything known, and a border that gives the diagnosis away."""
    test = predictions()
    train = dict(zip(CLASSES, (107, 131, 103, 70, 49, 53, 142), strict=True))
    manifest = Manifest(
        organ="cervix",
        classes=CLASSES,
        image_size=256,
        counts=Counts(inputs=917, written=910, duplicates=4, quarantined=3),
        splits={
            "train": SplitCounts(655, 210, 2, train),
            "validation": SplitCounts(45, 15, 1, dict.fromkeys(CLASSES, 7) | {"severe_dysplastic": 3}),
            "test": SplitCounts(210, 70, 1, dict.fromkeys(CLASSES, 30)),
        },
        grouping=Grouping(
            "smear", "the smear number before the first dash of a file name", 295, {"normal/7-1-1.jpg": "7"}
        ),
        near_duplicates=NearDuplicates(threshold=0.7, pairs=30, images=42),
        shards=(),
        files=(),
        settings={"seed": 7, "image_size": 256},
        warnings=("normal_intermediate has few smears.",),
        inputs_sha256="ab" * 32,
    )
    scores = split_of(test)
    balanced = scores["balanced_accuracy"]
    wrong = confident_mistakes(test, 12)
    least = least_certain(test, 6)
    return ReportInputs(
        organ="cervix",
        run="residual-128-seed-7-1f3a",
        manifest=manifest,
        quarantine=(
            QuarantineRow("normal/mask.png", "quarantined", "not an image", ""),
            QuarantineRow("normal/half.jpg", "quarantined", "cut short", ""),
            *(QuarantineRow(f"normal/{n}.png", "duplicate", "same pixels", "normal/first.png") for n in range(4)),
        ),
        history=history(30),
        best_epoch=22,
        monitor="validation_loss",
        validation=split_of(predictions(84)),
        test=scores | {"by_group": scores["by_group"] | {"mixed": 1}},
        baselines={
            "majority": majority_baseline(train, test, CLASSES),
            "classical": {
                "model": "extra trees",
                "accuracy": 0.671,
                "balanced_accuracy": balanced - 0.021,
                "macro_f1": 0.655,
                "intervals": {"balanced_accuracy": _around(balanced - 0.021, 0.07)},
                "difference": {
                    "accuracy": {"value": 0.024, "interval": [-0.031, 0.081]},
                    "balanced_accuracy": {"value": 0.021, "interval": [-0.034, 0.079]},
                },
            },
        },
        mistakes=tuple(example(test, row, CLASSES) for row in wrong),
        settings={"seed": 7, "learning_rate": 1e-3, "patience": None, "model": "residual", "precision": "bfloat16"},
        environment={"python": "3.11", "tensorflow": "2.21.0", "devices": ["CPU:0"]},
        parameters=691_303,
        train_seconds=615.4,
        command="python -m trainer --organ=cervix --tfrecords=tfrecords --runs=runs --model=residual --seed=7",
        temperature=1.31,
        abstention={
            "target_error": 0.05,
            "threshold": 0.83,
            "validation": {"coverage": 0.48, "error": 0.046},
            "test": selective_scores(test, 0.83),
            "reason": None,
        },
        shortcuts={
            "mean_colour": {
                "accuracy": 0.25,
                "balanced_accuracy": 0.231,
                "macro_f1": 0.2,
                "interval": [0.18, 0.29],
                "high": False,
                "chance": 1 / 7,
            },
            "border": {
                "accuracy": 0.48,
                "balanced_accuracy": 0.462,
                "macro_f1": 0.45,
                "interval": [0.39, 0.53],
                "high": True,
                "chance": 1 / 7,
                "given_away": ["light_dysplastic"],
            },
        },
        curves=report_curves(test, CLASSES, uncalibrated=sharper(test)),
        groups=group_results(test, CLASSES),
        uncertain=tuple(example(test, row, CLASSES) for row in least),
        hashes={"model.keras": "cd" * 32, "model/saved_model.pb": "ef" * 32},
    )


@cache
def poor() -> ReportInputs:
    """Two diagnoses, five test images, no groups, one epoch; whatever may be null is null."""
    classes, whole = ("benign", "malignant"), rich()
    labels = np.array([0, 0, 0, 0, 1])
    rows = np.array([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1], [0.35, 0.65], [0.8, 0.2]], np.float32)
    ids = tuple(f"{classes[label]}/{row}.png" for row, label in enumerate(labels))
    test = Predictions(ids, ids, labels, rows)
    nothing: Row = dict.fromkeys(("cohen_kappa", "quadratic_kappa", "roc_auc", "average_precision"))
    scores = split_scores(test, classes, groups_known=False, draws=10) | nothing
    scores["per_class"] = {
        name: row | {"roc_auc": None, "average_precision": None} for name, row in scores["per_class"].items()
    }
    scores["intervals"] = dict.fromkeys(
        ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "ece", *nothing)
    ) | {name: dict.fromkeys(classes) for name in ("recall", "precision")}
    unknown = {"value": -0.1, "interval": None}
    return replace(
        whole,
        organ="salivary_gland",
        run="r",
        manifest=replace(
            whole.manifest,
            organ="salivary_gland",
            classes=classes,
            counts=Counts(inputs=22, written=22, duplicates=0, quarantined=0),
            splits={
                "train": SplitCounts(17, 17, 1, {"benign": 12, "malignant": 5}),
                "test": SplitCounts(5, 5, 1, {"benign": 4, "malignant": 1}),
            },
            grouping=Grouping("none", "Each image stands alone.", 22, {}),
            near_duplicates=NearDuplicates(),
            warnings=(),
        ),
        quarantine=(),
        history=history(1),
        best_epoch=1,
        validation={},
        test=scores,
        baselines={
            "majority": majority_baseline({"benign": 12, "malignant": 5}, test, classes),
            "classical": {
                "model": "logistic regression",
                "accuracy": 0.8,
                "balanced_accuracy": 0.5,
                "macro_f1": 0.44,
                "difference": {"accuracy": unknown, "balanced_accuracy": unknown},
            },
        },
        mistakes=(),
        uncertain=(),
        groups=(),
        temperature=1.0,
        abstention=abstention_scores(test, test, 0.05),
        shortcuts={
            name: {"accuracy": 0.8, "balanced_accuracy": 0.5, "macro_f1": 0.4, "interval": None, "high": False}
            for name in ("mean_colour", "border")
        },
        curves={
            "roc": dict.fromkeys(classes),
            "pr": dict.fromkeys(classes),
            "reliability": [],
            "risk_coverage": {"coverage": [], "risk": []},
        },
        hashes={},
        train_seconds=1.2,
    )


def _around(value: float, half: float) -> list[float]:
    return [max(0.0, value - half), min(1.0, value + half)]

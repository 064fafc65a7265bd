"""Two runs to report on: a rich one with everything there is, and a poor one of a handful of images."""

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from data_pipeline.manifest import Counts, Grouping, Manifest, NearDuplicates, QuarantineRow, SplitCounts
from trainer.gradcam import overlay, place
from trainer.metrics import Predictions, compute_metrics, confident_mistakes, majority_baseline
from trainer.report_inputs import Example, GroupResult, ReportInputs

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
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ids = tuple(f"{CLASSES[label]}/1491433{70 + row // TILES}-{row:03d}.jpg" for row, label in enumerate(labels))
    groups = tuple(f"smear:1491433{70 + row // TILES}" for row in range(n))
    return Predictions(ids, groups, labels.astype(np.int64), probabilities.astype(np.float32))


def split_of(predictions: Predictions, classes: tuple[str, ...], *, by_group: bool = True) -> Row:
    """All that `metrics.json` says of a split; the intervals are as wide as they may be, and not computed."""
    scores = compute_metrics(predictions, classes)
    rows, truth = predictions.probabilities, predictions.labels
    areas = {name: _areas(truth == label, rows[:, label]) for label, name in enumerate(classes)}
    half = {"roc_auc": 0.03, "log_loss": 0.11, "brier": 0.05, "ece": 0.02}
    scores |= {"cohen_kappa": 0.61, "quadratic_kappa": 0.655, "brier": 0.371, "ece": 0.048}
    scores |= {"roc_auc": _mean(areas, "roc_auc"), "average_precision": _mean(areas, "average_precision")}
    names = ("accuracy", "balanced_accuracy", "macro_f1", "cohen_kappa", "quadratic_kappa", *half)
    scores["per_class"] = {name: row | areas[name] for name, row in scores["per_class"].items()}
    scores["intervals"] = {name: _around(scores[name], half.get(name, 0.062)) for name in names} | {
        name: {one: _around(row[name], 0.13) for one, row in scores["per_class"].items()}
        for name in ("recall", "precision")
    }
    if not by_group:
        return scores
    whole = split_of(averaged(predictions), classes, by_group=False)
    calm = {"uncalibrated": {"log_loss": scores["log_loss"] + 0.13, "brier": 0.40, "ece": 0.112}}
    return scores | calm | {"by_group": whole | {"mixed": 1}}


def averaged(predictions: Predictions) -> Predictions:
    """One row a group: its label and the mean of its probabilities."""
    names = sorted(set(predictions.groups))
    members = [[row for row, group in enumerate(predictions.groups) if group == name] for name in names]
    labels = np.array([predictions.labels[rows[0]] for rows in members])
    means = np.stack([predictions.probabilities[rows].mean(axis=0) for rows in members])
    return Predictions(tuple(names), tuple(names), labels, means)


def curves_of(predictions: Predictions, classes: tuple[str, ...]) -> Row:
    """As `ReportInputs.curves` has them."""
    rows, truth = predictions.probabilities, predictions.labels
    roc, pr = {}, {}
    for label, name in enumerate(classes):
        fpr, tpr, _ = roc_curve(truth == label, rows[:, label])
        precision, recall, _ = precision_recall_curve(truth == label, rows[:, label])
        areas = _areas(truth == label, rows[:, label])
        roc[name] = {"fpr": fpr.tolist(), "tpr": tpr.tolist(), "auc": areas["roc_auc"]}
        pr[name] = {"recall": recall.tolist(), "precision": precision.tolist(), "ap": areas["average_precision"]}
    right = (predictions.answers == truth)[np.argsort(-predictions.confidences, kind="stable")]
    answered = np.arange(1, len(right) + 1)
    return {
        "roc": roc,
        "pr": pr,
        "reliability": bins_of(predictions, 1.0),
        "reliability_uncalibrated": bins_of(predictions, 1.4),
        "risk_coverage": {
            "coverage": (answered / len(right)).tolist(),
            "risk": (np.cumsum(~right) / answered).tolist(),
        },
    }


def bins_of(predictions: Predictions, sharper: float, count: int = 15) -> list[Row]:
    confidences = predictions.confidences.astype(float) ** (1 / sharper)
    right = predictions.answers == predictions.labels
    number = np.clip(np.ceil(confidences * count) - 1, 0, count - 1)
    members = [number == bin_ for bin_ in range(count)]
    return [
        {
            "low": bin_ / count,
            "high": (bin_ + 1) / count,
            "n": int(inside.sum()),
            "confidence": float(confidences[inside].mean()) if inside.any() else None,
            "accuracy": float(right[inside].mean()) if inside.any() else None,
        }
        for bin_, inside in enumerate(members)
    ]


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
    scores = split_of(test, CLASSES)
    balanced = scores["balanced_accuracy"]
    wrong = confident_mistakes(test, 12)
    least = sorted(range(len(test.ids)), key=lambda row: (float(test.confidences[row]), test.ids[row]))[:6]
    whole = averaged(test)
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
        validation=split_of(predictions(84), CLASSES),
        test=scores,
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
            "test": {"coverage": 0.41, "error": 0.058},
        },
        shortcuts={
            "mean_colour": {
                "accuracy": 0.25,
                "balanced_accuracy": 0.231,
                "macro_f1": 0.2,
                "interval": [0.18, 0.29],
                "high": False,
            },
            "border": {
                "accuracy": 0.48,
                "balanced_accuracy": 0.462,
                "macro_f1": 0.45,
                "interval": [0.39, 0.53],
                "high": True,
            },
        },
        curves=curves_of(test, CLASSES),
        groups=tuple(
            GroupResult(name, TILES, CLASSES[label], CLASSES[answer], float(confidence))
            for name, label, answer, confidence in zip(
                whole.groups, whole.labels, whole.answers, whole.confidences, strict=True
            )
        ),
        uncertain=tuple(example(test, row, CLASSES) for row in least),
        hashes={"model.keras": "cd" * 32, "model/saved_model.pb": "ef" * 32},
    )


def poor() -> ReportInputs:
    """Two diagnoses, five test images, no groups, one epoch; whatever may be null is null."""
    classes, whole = ("benign", "malignant"), rich()
    labels = np.array([0, 0, 0, 0, 1])
    rows = np.array([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1], [0.35, 0.65], [0.8, 0.2]], np.float32)
    ids = tuple(f"{classes[label]}/{row}.png" for row, label in enumerate(labels))
    test = Predictions(ids, ids, labels, rows)
    nothing = dict.fromkeys(("cohen_kappa", "quadratic_kappa", "roc_auc", "average_precision"))
    scores = compute_metrics(test, classes) | nothing | {"brier": 0.4, "ece": 0.2, "by_group": None}
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
        abstention={
            "target_error": 0.05,
            "threshold": None,
            "validation": {"coverage": 0.0, "error": None},
            "test": {"coverage": 0.0, "error": None},
        },
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


def _areas(truth: NDArray[np.bool_], scores: NDArray[np.float32]) -> dict[str, float]:
    return {
        "roc_auc": float(roc_auc_score(truth, scores)),
        "average_precision": float(average_precision_score(truth, scores)),
    }


def _mean(areas: dict[str, dict[str, float]], name: str) -> float:
    return float(np.mean([row[name] for row in areas.values()]))


def _around(value: float, half: float) -> list[float]:
    return [max(0.0, value - half), min(1.0, value + half)]

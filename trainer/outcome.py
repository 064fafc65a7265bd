"""What a trained run becomes: an exported model, its numbers, its report.

    path = test_and_report(config, manifest, folder, strategy, model, progress)

The order matters. The temperature and the threshold come from the validation split, then the model is exported with
them, loaded again, and held against the one in memory; only then is the test split opened, once, and what is tested is
the file that is served, fed with the stored bytes.
"""

import json
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_pipeline import __version__
from data_pipeline.cli import say
from data_pipeline.manifest import Manifest, read_quarantine
from data_pipeline.page import NO_GROUPS
from data_pipeline.storage import file_sha256, write_atomic
from trainer import cluster, report, tensorboard
from trainer.abstention import abstention_scores, recommended_threshold
from trainer.calibration import apply_temperature, fit_temperature
from trainer.checkpoints import Progress
from trainer.config import TrainConfig
from trainer.evaluate import predict_served, scores_of
from trainer.export import Served, check_export, export, load_served, served_in_memory
from trainer.gallery import explained
from trainer.learning_config import BEST
from trainer.metrics import Predictions, confident_mistakes, least_certain
from trainer.model_card import write_model_card
from trainer.models import build_model
from trainer.predictions_file import write_predictions
from trainer.records import RecordReader
from trainer.report_curves import report_curves
from trainer.report_rows import group_results
from trainer.residual import baked
from trainer.rivals import Rivals, meet_rivals
from trainer.run_folder import METRICS, MODEL, SAVED_MODEL, SERVING, TENSORBOARD, TFLITE
from trainer.tflite import agreement, write_tflite

VIEWS = 8  # flips and quarter turns
UNCERTAIN_SHOWN = 12
COMPARED = 32  # images on which the exported model is held against the one in memory
AGREEMENT_IMAGES = 256


@dataclass(frozen=True)
class Tested:
    """What the model says of a split, and what it said before temperature scaling."""

    predictions: Predictions
    uncalibrated: Predictions
    scores: dict[str, Any]


def test_and_report(
    config: TrainConfig,
    manifest: Manifest,
    folder: Path,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    progress: Progress,
) -> Path:
    """Export `model`, which holds the best epoch's weights, test what was exported; the path of the report."""
    plain = build_model(config.model, image_size=config.image_size, classes=len(manifest.classes))
    plain.set_weights(model.get_weights())
    plain = baked(plain)

    # ── Calibrate on the validation split, export, and look whether the file says the same ───────────────────────
    served, validation = _calibrated_export(config, manifest, folder, plain)

    # ── The only place where the test split is opened ────────────────────────────────────────────────────────────
    test = _tested(served, _reader(config, manifest, "test"), manifest, title="test")
    rivals = meet_rivals(config.dataset_folder, manifest, test.predictions, seed=config.seed)

    # ── Metrics, report and model card ───────────────────────────────────────────────────────────────────────────
    metrics = _metrics(config, manifest, served, validation, test, rivals, progress)
    if config.tflite:
        metrics["tflite"] = _tflite(config, manifest, folder, plain, served)
    write_predictions(folder, manifest.classes, validation=validation.predictions, test=test.predictions)
    inputs = _report_inputs(config, manifest, folder, strategy, plain, progress, test, metrics)
    tensorboard.write_results(
        folder / TENSORBOARD,
        test=test.scores,
        classes=manifest.classes,
        settings=config.settings(),
        epoch=progress.best_epoch,
    )
    write_model_card(folder, inputs)
    write_atomic(folder / METRICS, (json.dumps(metrics, indent=1, allow_nan=False) + "\n").encode())
    return report.write_report(folder, inputs)


def _calibrated_export(
    config: TrainConfig, manifest: Manifest, folder: Path, model: keras.Model
) -> tuple[Served, Tested]:
    """The exported model, loaded again, and the validation split as it sees that."""
    about: dict[str, Any] = {
        "classes": manifest.classes,
        "image_size": config.image_size,
        "views": VIEWS if config.tta else 1,
    }
    reader = _reader(config, manifest, "validation")
    in_memory = served_in_memory(model, **about)
    before, logits = predict_served(in_memory, reader, title="validation")
    fit = fit_temperature(logits, before.labels)
    if fit.reason:
        say(f"{config.organ}: temperature {fit.temperature:.3g}: {fit.reason}")
    after = replace(before, probabilities=apply_temperature(logits, fit.temperature))
    threshold = recommended_threshold(after, config.target_error)
    place = folder / MODEL
    export(model, **about, folder=place, temperature=fit.temperature, threshold=threshold, serving=folder / SERVING)
    served = load_served(place)
    some = reader.records(np.arange(min(COMPARED, len(reader))))
    check_export(in_memory, served, [record.image for record in some])
    return served, Tested(after, before, scores_of(after, logits, manifest))


def _reader(config: TrainConfig, manifest: Manifest, split: str) -> RecordReader:
    return RecordReader(config.dataset_folder, manifest, split)


def _tested(served: Served, reader: RecordReader, manifest: Manifest, *, title: str) -> Tested:
    predictions, logits = predict_served(served, reader, title=title)
    before = replace(predictions, probabilities=apply_temperature(logits, 1.0))
    return Tested(predictions, before, scores_of(predictions, logits, manifest))


def _metrics(
    config: TrainConfig,
    manifest: Manifest,
    served: Served,
    validation: Tested,
    test: Tested,
    rivals: Rivals,
    progress: Progress,
) -> dict[str, Any]:
    return {
        "organ": manifest.organ,
        "classes": list(manifest.classes),
        "dataset": manifest.fingerprint,
        "train_images": manifest.splits["train"].records,
        "best_epoch": progress.best_epoch,
        "epochs": len(progress.history),
        "temperature": served.temperature,
        "views": served.views,
        "validation": validation.scores,
        "test": test.scores,
        "abstention": abstention_scores(validation.predictions, test.predictions, config.target_error),
        "baselines": rivals.baselines,
        "shortcuts": rivals.shortcuts,
        "history": list(progress.history),
    }


def _tflite(
    config: TrainConfig, manifest: Manifest, folder: Path, model: keras.Model, served: Served
) -> dict[str, Any]:
    """Write `model.tflite`; how far it agrees with what is served on the validation split."""
    path = folder / TFLITE
    write_tflite(
        model,
        classes=manifest.classes,
        image_size=config.image_size,
        path=path,
        temperature=served.temperature,
        views=served.views,
    )
    reader = _reader(config, manifest, "validation")
    records = reader.records(np.arange(min(AGREEMENT_IMAGES, len(reader))))
    found = agreement(path, served, [record.image for record in records])
    say(
        f"{config.organ}: {path.name} gives the same answer to {found['same_answers']:.1%} of {found['n']} validation "
        f"images; probabilities differ by at most {found['largest_difference']:.1e}"
    )
    return found


def _report_inputs(
    config: TrainConfig,
    manifest: Manifest,
    folder: Path,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    progress: Progress,
    test: Tested,
    metrics: dict[str, Any],
) -> report.ReportInputs:
    known = manifest.grouping.rule != NO_GROUPS
    return report.ReportInputs(
        organ=config.organ,
        run=folder.name,
        manifest=manifest,
        quarantine=read_quarantine(config.dataset_folder),
        history=progress.history,
        best_epoch=progress.best_epoch,
        monitor=config.monitor if config.keep == BEST else "",
        validation=metrics["validation"],
        test=metrics["test"],
        baselines=metrics["baselines"],
        mistakes=_examples(config, manifest, model, test, confident_mistakes(test.predictions, report.MISTAKES_SHOWN)),
        uncertain=_examples(config, manifest, model, test, least_certain(test.predictions, UNCERTAIN_SHOWN)),
        settings=config.settings(),
        environment=_environment(strategy),
        parameters=model.count_params(),
        train_seconds=sum(row["seconds"] for row in progress.history),
        command=config.command(),
        temperature=metrics["temperature"],
        abstention=metrics["abstention"],
        shortcuts=metrics["shortcuts"],
        curves=report_curves(test.predictions, manifest.classes, uncalibrated=test.uncalibrated),
        groups=group_results(test.predictions, manifest.classes) if known else (),
        hashes={name: file_sha256(folder / name) for name in (f"{MODEL}.keras", f"{MODEL}/{SAVED_MODEL}")},
    )


def _examples(
    config: TrainConfig, manifest: Manifest, model: keras.Model, test: Tested, rows: list[int]
) -> tuple[report.Example, ...]:
    """Test images, each with where the model looked."""
    records = _reader(config, manifest, "test").records(np.array(rows, dtype=np.int64))
    return explained(model, records, test.predictions, rows, classes=manifest.classes, image_size=config.image_size)


def _environment(strategy: tf.distribute.Strategy) -> dict[str, str]:
    return {
        "cytotrain": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "devices": cluster.describe(strategy),
    }

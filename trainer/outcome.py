"""What a trained run becomes: an exported model, its numbers, its report.

    path = test_and_report(config, manifest, folder, strategy, model, progress)

The numbers are those of the file that is served: the SavedModel is loaded again and fed the stored bytes.
"""

import json
import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_pipeline import __version__
from data_pipeline.manifest import Manifest, read_quarantine
from data_pipeline.storage import write_atomic
from trainer import cluster, report
from trainer.checkpoints import Progress
from trainer.config import TrainConfig
from trainer.evaluate import predict_served
from trainer.export import Served, export, load_served
from trainer.metrics import Predictions, compute_metrics, confident_mistakes, majority_baseline
from trainer.models import build_model
from trainer.records import RecordReader
from trainer.run_folder import METRICS, MODEL

MISTAKES_SHOWN = 24


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
    export(plain, classes=manifest.classes, image_size=config.image_size, folder=folder / MODEL)
    served = load_served(folder / MODEL)
    validation = _served_predictions(served, config, manifest, "validation")
    test = _served_predictions(served, config, manifest, "test")  # the only place where the test split is opened

    # ── Metrics and report ───────────────────────────────────────────────────────────────────────────────────────
    metrics = _metrics(manifest, validation, test, progress)
    write_atomic(folder / METRICS, (json.dumps(metrics, indent=1) + "\n").encode())
    return report.write_report(
        folder,
        report.ReportInputs(
            organ=config.organ,
            run=folder.name,
            manifest=manifest,
            quarantine=read_quarantine(config.dataset_folder),
            history=progress.history,
            best_epoch=progress.best_epoch,
            monitor=config.monitor,
            validation=metrics["validation"],
            test=metrics["test"],
            baselines=metrics["baselines"],
            mistakes=_mistakes(config, manifest, test),
            settings=config.settings(),
            environment=_environment(strategy),
            parameters=model.count_params(),
            train_seconds=sum(row["seconds"] for row in progress.history),
            command=config.command(),
        ),
    )


def _served_predictions(served: Served, config: TrainConfig, manifest: Manifest, split: str) -> Predictions:
    return predict_served(served, RecordReader(config.dataset_folder, manifest, split), title=split)


def _metrics(manifest: Manifest, validation: Predictions, test: Predictions, progress: Progress) -> dict[str, Any]:
    return {
        "organ": manifest.organ,
        "classes": list(manifest.classes),
        "dataset": manifest.fingerprint,
        "best_epoch": progress.best_epoch,
        "epochs": len(progress.history),
        "validation": compute_metrics(validation, manifest.classes),
        "test": compute_metrics(test, manifest.classes),
        "baselines": {"majority": majority_baseline(manifest.splits["train"].per_class, test, manifest.classes)},
        "history": list(progress.history),
    }


def _mistakes(config: TrainConfig, manifest: Manifest, test: Predictions) -> tuple[report.Example, ...]:
    """The test images that the model got wrong with the greatest confidence."""
    worst = confident_mistakes(test, MISTAKES_SHOWN)
    records = RecordReader(config.dataset_folder, manifest, "test").records(np.array(worst, dtype=np.int64))
    return tuple(
        report.Example(
            image=record.image,
            id=record.id,
            group=record.group,
            truth=manifest.classes[test.labels[i]],
            predicted=manifest.classes[test.answers[i]],
            confidence=float(test.confidences[i]),
        )
        for i, record in zip(worst, records, strict=True)
    )


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

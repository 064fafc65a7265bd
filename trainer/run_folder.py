"""The folder of a run: whose it is, and what is logged there after each epoch.

open_run(folder, config, dataset=manifest.fingerprint, chief=True)
log = EpochLog(folder, epochs=30)
log({"epoch": 1, "train_loss": 1.2, ...})
"""

import json
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from data_pipeline import cli
from data_pipeline.storage import write_atomic
from trainer.config import TrainConfig

CONFIG_NAME = "config.json"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.json"
MODEL = "model"
RESULTS = (METRICS, "report.html", f"{MODEL}/saved_model.pb", f"{MODEL}.keras")


def open_run(folder: Path, config: TrainConfig, *, dataset: str, chief: bool) -> None:
    """Make the run's folder, or check that the one there is of the same settings and data. Raises `RequestError`."""
    path = folder / CONFIG_NAME
    settings = config.settings()
    if path.exists() or (folder / CHECKPOINTS).exists():
        before = _read_config(path)
        was = before["settings"]
        changed = [f"--{k} was {was.get(k)!r} and is {now!r}" for k, now in settings.items() if was.get(k) != now]
        if before["dataset"] != dataset:
            changed.append("the dataset is another one")
        if changed:
            fix = "repeat its settings, or give another --run"
            raise cli.RequestError(f"The run in {folder} can't go on: {'; '.join(changed)}. To fix it: {fix}.")
    elif chief:
        try:
            ours = {"settings": settings, "dataset": dataset, "command": config.command()}
            write_atomic(path, (json.dumps(ours, indent=1) + "\n").encode())
        except OSError as error:
            fix = f"name a folder that this user may write to ({error})"
            raise cli.invalid_flag("runs", expected="a writable folder", received=str(folder), fix=fix) from error


def is_finished(folder: Path) -> bool:
    """Whether all that a run leaves is there."""
    return all((folder / name).exists() for name in RESULTS)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        if isinstance(config["settings"], dict) and isinstance(config["dataset"], str):
            return config
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise cli.RequestError(
        f"The run in {path.parent} has checkpoints, but {path.name} doesn't say of which settings. "
        "To fix it: restore the file, remove the folder, or give another --run."
    )


class EpochLog:
    """What is said after each epoch: one line for people, scalars for TensorBoard."""

    def __init__(self, folder: Path, *, epochs: int) -> None:
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
        self._epochs = epochs

    def __call__(self, row: dict[str, float]) -> None:
        with self._writer.as_default(step=int(row["epoch"])):
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, value)
        self._writer.flush()
        line = (
            f"epoch {row['epoch']:>3}/{self._epochs}   train loss {row['train_loss']:.3f}, accuracy "
            f"{row['train_accuracy']:.3f}   validation loss {row['validation_loss']:.3f}, accuracy "
            f"{row['validation_accuracy']:.3f}, balanced {row['validation_balanced_accuracy']:.3f}   "
            f"{row['images_per_s']:.0f} images/s"
        )
        print(line, file=sys.stderr, flush=True)


def say_nothing(row: dict[str, float]) -> None:
    """The log of a worker that isn't the chief."""

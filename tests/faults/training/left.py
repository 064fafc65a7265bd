"""What a run left behind that must not depend on interruptions: weights by SHA-256, numbers as they are.

    assert left_by(runs / "gland" / "r") == left_by(reference)

Files aren't compared by their bytes: a Keras file is a zip archive with times in it, a checkpoint holds its seconds.
"""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from trainer.pace import CLOCK_COLUMNS

NUMBERS = ("best_epoch", "epochs", "temperature", "validation", "test", "abstention", "baselines", "shortcuts")


def left_by(folder: Path) -> dict[str, Any]:
    """By name, all that must not differ."""
    checkpoints = folder / "checkpoints"
    last = json.loads((checkpoints / "last.json").read_text())["checkpoint"]
    state = json.loads((checkpoints / last / "state.json").read_text())
    progress = state.get("state", state)["progress"]
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "last checkpoint": variables_digest(checkpoints / last / "weights"),
        "best checkpoint": variables_digest(newest_of(checkpoints, progress["best_step"]) / "weights"),
        "progress": without_times(progress),
        "model.keras": keras_digest(folder / "model.keras"),
        "SavedModel": variables_digest(folder / "model" / "variables" / "variables"),
        "history": [without_times(row) for row in metrics["history"]],
        **{name: metrics[name] for name in NUMBERS},
        "predictions.csv": hashlib.sha256((folder / "predictions.csv").read_bytes()).hexdigest(),
        "leftovers": sorted(path.name for path in folder.rglob(".*") if path.name != ".lock"),
    }


def newest_of(checkpoints: Path, step: int) -> Path:
    """A step that was made again may have been saved again, beside what it replaces."""
    made = checkpoints.glob(f"step-{step:08d}*")
    return max(made, key=lambda path: int([*path.name.split("-"), "1"][2]))


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    clock = (*CLOCK_COLUMNS, "epoch_seconds", "waiting_seconds")
    kept = {name: value for name, value in values.items() if name not in clock}
    if "history" in kept:
        kept["history"] = [without_times(row) for row in kept["history"]]
    return kept


def variables_digest(prefix: Path) -> str:
    """Of every number in a checkpoint or SavedModel, by name."""
    reader, digest = tf.train.load_checkpoint(str(prefix)), hashlib.sha256()
    for name in sorted(reader.get_variable_to_shape_map()):
        value = np.asarray(reader.get_tensor(name))
        if value.dtype != object:  # the graph of objects is a string, and says nothing about what was learnt
            digest.update(f"{name} {value.dtype} {value.shape} ".encode() + value.tobytes())
    return digest.hexdigest()


def keras_digest(path: Path) -> str:
    """Of every weight in a Keras file, by name."""
    digest = hashlib.sha256()

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(f"{name} {item.dtype} {item.shape} ".encode() + np.asarray(item).tobytes())

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        weights.visititems(add)
    return digest.hexdigest()

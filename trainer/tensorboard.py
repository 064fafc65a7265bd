"""What TensorBoard shows of a run beside the scalars of its epochs: confusions, scores, settings, augmented images.

    write_augmented(folder / TENSORBOARD, images)                                        # when training begins
    write_results(folder / TENSORBOARD, test=metrics["test"], classes=classes, settings=config.settings(), epoch=22)

Each call writes an event file of its own. TensorBoard merges the files of a folder, and of values for the same step it
shows the last, so a run that was resumed may write them again.
"""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tensorboard.plugins.hparams import api  # type: ignore[import-untyped]

AUGMENTED, CONFUSION, SCORES = "augmented", "confusion", "test"
IMAGES_SHOWN = 16
# Those that fit a table of runs; the first is the one to compare runs by.
COMPARED = ("balanced_accuracy", "accuracy", "macro_f1", "roc_auc", "log_loss", "brier", "ece")


def write_results(
    folder: Path, *, test: Mapping[str, Any], classes: Sequence[str], settings: Mapping[str, Any], epoch: int
) -> None:
    """Write the test scores as scalars, the confusion matrix as an image and the settings as hyper-parameters.

    `test` is that of `metrics.json`, `epoch` the best one, which is what was tested.
    """
    scores = {f"{SCORES}/{name}": test[name] for name in COMPARED if test.get(name) is not None}
    hparams = {name: hyperparameter(value) for name, value in sorted(settings.items())}
    with tf.summary.create_file_writer(str(folder), filename_suffix=".results").as_default(step=epoch):
        api.hparams_config(
            hparams=[api.HParam(name) for name in hparams], metrics=[api.Metric(name) for name in scores]
        )
        api.hparams(hparams, start_time_secs=0)
        for name, value in scores.items():
            tf.summary.scalar(name, value)
        tf.summary.image(f"{SCORES}/{CONFUSION}", confusion_image(test["confusion_matrix"], classes)[np.newaxis])


def write_augmented(folder: Path, images: NDArray[Any], *, epoch: int = 0) -> None:
    """Write a sample of training images as the network sees them: `[n, size, size, 3]` float32 in [0, 1]."""
    with tf.summary.create_file_writer(str(folder), filename_suffix=".augmented").as_default(step=epoch):
        tf.summary.image(AUGMENTED, np.clip(images, 0, 1).astype(np.float32), max_outputs=IMAGES_SHOWN)


def hyperparameter(value: Any) -> bool | int | float | str:
    """`value` as the plugin takes it; what it can't take as the text of its JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, sort_keys=True, default=str)


def confusion_image(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> NDArray[np.uint8]:
    """A drawing `[height, width, 3] uint8`: rows are true diagnoses, colours their shares, numbers their counts."""
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side_inches = 2 + 0.6 * len(classes)
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9}):
        figure = Figure(figsize=(side_inches, side_inches), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="viridis", vmin=0, vmax=1)
        ticks = range(len(classes))
        axes.set(xlabel="answer", ylabel="truth", xticks=ticks, yticks=ticks)
        axes.set_xticklabels(classes, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticklabels(classes)
        for (row, column), count in np.ndenumerate(counts):
            ink = "black" if shares[row, column] > 0.6 else "white"
            axes.text(column, row, str(count), ha="center", va="center", color=ink)
        return _pixels(figure)


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    from PIL import Image

    out = BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    pixels: NDArray[np.uint8] = np.asarray(Image.open(out).convert("RGB"))
    return pixels

"""The model for phones, microscopes and other small devices: one file for the TensorFlow Lite (LiteRT) interpreter.

    write_tflite(model, classes=("a", "b"), image_size=256, path=run / "model.tflite", temperature=1.3, views=1)
    found = agreement(run / "model.tflite", served, (record.image for record in records))
    found["largest_difference"], found["same_answers"]

It takes `image [n, size, size, 3] float32` in [0, 1], upright RGB: decoding and resizing are the device's part. It
gives `probabilities [n, classes] float32`, calibrated as those of the SavedModel. Nothing is quantised. The names of
the classes, in the order of the probabilities, are written beside it, one a line: `model.labels.txt`.
"""

import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data_pipeline.cli import FaultError
from data_pipeline.storage import write_atomic
from trainer.input_pipeline import to_unit_range
from trainer.models import LOGITS
from trainer.served_images import decode_served
from trainer.serving_graph import SIGNATURE, calibrated, mean_of_views, turned

if TYPE_CHECKING:
    from trainer.export import Served

LABELS = ".labels.txt"
BATCH = 16


class _Lite(tf.Module):  # type: ignore[misc]
    """What is converted: from pixels on, what is served."""

    def __init__(self, model: keras.Model, *, image_size: int, temperature: float, views: int) -> None:
        super().__init__()
        self._temperature, self._views = temperature, views
        # With a name of its own: Keras would number it, and the numbers would be in the file.
        self._network = keras.Model(model.inputs[0], model.get_layer(LOGITS).output, name="network")
        # The converter finds a Keras model's weights only if they are listed: else it leaves them out, without a word.
        self._weights = [variable.value for variable in self._network.variables]
        spec = tf.TensorSpec([None, image_size, image_size, 3], tf.float32, name="image")
        self.answer = tf.function(self._answer, input_signature=[spec], autograph=False)

    def _answer(self, image: Any) -> dict[str, Any]:
        if self._views == 1:
            logits = self._network(image, training=False)
        else:  # in one batch, since the interpreter has no loop to its taste; the device gives few images at once
            views = tf.concat([turned(image, number) for number in range(self._views)], axis=0)
            of_view = tf.reshape(
                self._network(views, training=False), [self._views, -1, self._network.output.shape[-1]]
            )
            logits = mean_of_views(tf.nn.log_softmax(of_view), self._views)
        return {"probabilities": calibrated(logits, self._temperature)}


def write_tflite(
    model: keras.Model,
    *,
    classes: Sequence[str],
    image_size: int,
    path: Path,
    temperature: float = 1.0,
    views: int = 1,
) -> None:
    """Convert a float32 `model`, and write it and its labels, each whole or not at all.

    Raises `FaultError` if the network has an operation that TensorFlow Lite lacks.
    """
    lite = _Lite(model, image_size=image_size, temperature=temperature, views=views)
    with tempfile.TemporaryDirectory(prefix="tflite-") as folder:
        tf.saved_model.save(lite, folder, signatures={SIGNATURE: lite.answer})
        try:
            converted: bytes = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        except Exception as error:  # the converter has an error class of its own, in a module that is private
            reason = (str(error).splitlines() or [""])[0]
            raise FaultError(
                f"The network can't be converted to TensorFlow Lite: {reason}. To fix it: export without --tflite, "
                "or train another --model."
            ) from error
    write_atomic(path, converted)
    write_atomic(path.with_suffix(LABELS), "".join(f"{name}\n" for name in classes).encode())


class Lite:
    """A file of `write_tflite`, loaded. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        """Raises `FaultError` if this TensorFlow comes without the interpreter."""
        try:
            with warnings.catch_warnings(action="ignore"):  # that it will move to the package ai-edge-litert
                interpreter = tf.lite.Interpreter(model_path=str(path))
        except AttributeError:
            raise FaultError(
                "This TensorFlow has no interpreter for TensorFlow Lite. To fix it: install the locked requirements."
            ) from None
        self.image_size = int(interpreter.get_input_details()[0]["shape"][1])
        self._run = interpreter.get_signature_runner(SIGNATURE)

    def probabilities(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[n, size, size, 3]` in [0, 1] → `[n, classes]`."""
        return np.asarray(self._run(image=pixels)["probabilities"])


def agreement(path: Path, served: "Served", images: Iterable[bytes]) -> dict[str, float | int]:
    """How far a file of `write_tflite` agrees with the model that is `served`, on encoded images.

    `n`, the `largest_difference` of any probability, the share of `same_answers`, and the `bytes` of the file; with no
    image, a difference of 0 and a share of 1.
    """
    lite = Lite(path)
    count, same, largest = 0, 0, 0.0
    for batch in _batches(images):
        pixels = np.stack([np.asarray(_pixels(encoded, lite.image_size)) for encoded in batch])
        ours, theirs = lite.probabilities(pixels), served.probabilities(batch)
        if not np.isfinite(ours).all():
            largest = float("inf")
        largest = max(largest, float(np.abs(ours - theirs).max()))
        same += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        count += len(batch)
    share = same / count if count else 1.0
    return {"n": count, "largest_difference": largest, "same_answers": share, "bytes": path.stat().st_size}


def _pixels(encoded: bytes, image_size: int) -> Any:
    return to_unit_range(decode_served(tf.constant(encoded), image_size=image_size)[0])


def _batches(images: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(images)
    while batch := list(islice(remaining, BATCH)):
        yield batch

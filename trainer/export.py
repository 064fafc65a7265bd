"""The model as it is served: encoded image bytes in, class names and probabilities out.

    export(model, classes=("a", "b"), image_size=256, folder=run / "model")
    served = load_served(run / "model")
    served.probabilities([Path("cell.png").read_bytes()])

Decoding, resizing and scaling are inside the SavedModel, so that no client can do them differently. It needs nothing
but TensorFlow to load: `tf.saved_model.load(folder).signatures["serving_default"](images=[...])`.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data_pipeline.cli import invalid_flag
from trainer.input_pipeline import decode_any, to_unit_range
from trainer.run_folder import find_model

SIGNATURE = "serving_default"
DESCRIBE = "describe"


class _Server(tf.Module):  # type: ignore[misc]
    """The exported computation."""

    def __init__(self, model: keras.Model, classes: Sequence[str], image_size: int) -> None:
        super().__init__()
        self._model = model
        self._classes = tf.constant(list(classes))
        self._image_size = image_size

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="images")])  # type: ignore[untyped-decorator]
    def serve(self, images: Any) -> dict[str, Any]:
        """`[n] string` of JPEG, PNG, BMP or GIF files → for each its `class`, the `confidence` in it, and all
        `probabilities [n, classes]`.
        """
        size = self._image_size
        shape = tf.TensorSpec([size, size, 3], tf.float32)
        pixels = tf.map_fn(lambda encoded: decode_any(encoded, size), images, fn_output_signature=shape)
        probabilities = self._model(to_unit_range(pixels), training=False)
        return {
            "class": tf.gather(self._classes, tf.argmax(probabilities, axis=1)),
            "confidence": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
        }

    @tf.function(input_signature=[])  # type: ignore[untyped-decorator]
    def describe(self) -> dict[str, Any]:
        """`classes [classes] string` in the order of the probabilities, and the `image_size` images are brought to."""
        return {"classes": tf.identity(self._classes), "image_size": tf.constant(self._image_size)}


@dataclass(frozen=True)
class Served:
    """An exported model, loaded."""

    classes: tuple[str, ...]
    loaded: Any

    def probabilities(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """`[n, classes] float32`. Raises `tf.errors.InvalidArgumentError` if an image can't be decoded."""
        serve = self.loaded.signatures[SIGNATURE]
        return np.asarray(serve(images=tf.constant(list(images), dtype=tf.string))["probabilities"])


def export(model: keras.Model, *, classes: Sequence[str], image_size: int, folder: Path) -> None:
    """Write the SavedModel to `folder` and the Keras model to `folder.keras`, each whole or not at all.

    `model` must be a float32 model outside any strategy, so that it runs wherever it is loaded.
    """
    server = _Server(model, classes, image_size)
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    tf.saved_model.save(server, str(aside), signatures={SIGNATURE: server.serve, DESCRIBE: server.describe})
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    keras_aside = folder.with_name(f".{folder.name}.keras")
    model.save(keras_aside)
    keras_aside.replace(folder.with_suffix(".keras"))


def load_served(folder: Path) -> Served:
    """Load what `export` wrote, from its folder or the run's. Raises `RequestError`."""
    found = find_model(folder)
    fix = "name a model that was exported by python -m trainer"
    try:
        loaded = tf.saved_model.load(str(found))
        ours = {SIGNATURE, DESCRIBE} <= set(loaded.signatures)
    except (OSError, ValueError, AttributeError, LookupError, tf.errors.OpError) as error:
        fix = f"{fix}, or export it again; this one is damaged ({str(error).splitlines()[0]})"
        raise invalid_flag("model", expected="a whole SavedModel", received=str(folder), fix=fix) from error
    if not ours:
        raise invalid_flag("model", expected="a SavedModel of this project", received=str(folder), fix=fix)
    names = loaded.signatures[DESCRIBE]()["classes"].numpy()
    return Served(tuple(name.decode() for name in names), loaded)

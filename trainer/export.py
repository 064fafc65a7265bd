"""The model as it is served: encoded image bytes in, class names and calibrated probabilities out.

    before = served_in_memory(model, classes=("a", "b"), image_size=256)        # to fit the temperature with
    temperature = fit_temperature(before.logits(images), labels)
    export(model, classes=("a", "b"), image_size=256, folder=run / "model", temperature=temperature)
    served = load_served(run / "model")
    check_export(before, served, images[:32])       # the file says what the model said
    served.probabilities([Path("cell.png").read_bytes()])

What is computed says `serving_graph.py`. The SavedModel needs nothing but TensorFlow to load:
`tf.saved_model.load(folder).signatures["serving_default"](images=[...])`. With `serving=run / "serving"`, TensorFlow
Serving finds the same files there as version 1.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data_pipeline.cli import FaultError, invalid_flag
from trainer.run_folder import find_model
from trainer.serving_graph import SIGNATURE, Server, calibrated
from trainer.serving_layout import link_version

CHECKED = "checked"
DESCRIBE = "describe"
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Served:
    """A model that takes encoded images: loaded from a file, or in memory as it would be exported.

    `signatures` are its functions by name. `threshold` is the confidence below which it is better not to trust it.
    """

    classes: tuple[str, ...]
    image_size: int
    signatures: Mapping[str, Callable[..., dict[str, Any]]]
    temperature: float = 1.0
    views: int = 1
    threshold: float | None = None
    loaded: Any = None  # while this lives, so do its weights

    def probabilities(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """`[n, classes] float32`. Raises `tf.errors.InvalidArgumentError` if an image can't be decoded."""
        return self._call(SIGNATURE, images)["probabilities"]

    def answers(self, images: Sequence[bytes]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities and logits of the same pass."""
        answers = self._call(SIGNATURE, images)
        return answers["probabilities"], answers["logits"]

    def logits(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """The same before the temperature, of which the probabilities are the softmax: `[n, classes] float32`."""
        return self._call(SIGNATURE, images)["logits"]

    def checked(self, images: Sequence[bytes]) -> tuple[NDArray[np.float32], NDArray[np.uint8]] | None:
        """The probabilities, and the last pixel of each image, `[n, 3]`; None if one of them can't be decoded."""
        try:
            if CHECKED not in self.signatures:  # made before there were checks: anything may lack data
                return self.probabilities(images), np.full([len(images), 3], 128, np.uint8)
            answers = self._call(CHECKED, images)
        except tf.errors.InvalidArgumentError:
            return None
        return answers["probabilities"], answers["last_pixel"]

    def _call(self, name: str, images: Sequence[bytes]) -> dict[str, NDArray[Any]]:
        answers = self.signatures[name](images=tf.constant(list(images), dtype=tf.string))
        return {key: np.asarray(value) for key, value in answers.items()}


def served_in_memory(model: keras.Model, *, classes: Sequence[str], image_size: int, views: int = 1) -> Served:
    """The computation that `export` would write, with a temperature of 1."""
    server = Server(model, classes=classes, image_size=image_size, views=views)
    signatures = {SIGNATURE: server.serve, CHECKED: server.serve_checked}
    return Served(tuple(classes), image_size, signatures, views=views, loaded=server)


def export(
    model: keras.Model,
    *,
    classes: Sequence[str],
    image_size: int,
    folder: Path,
    temperature: float = 1.0,
    views: int = 1,
    threshold: float | None = None,
    serving: Path | None = None,
) -> None:
    """Write the SavedModel to `folder` and the Keras model to `folder.keras`, each whole or not at all.

    `model` must be a float32 model outside any strategy, so that it runs wherever it is loaded. `serving` is where
    TensorFlow Serving is to find the SavedModel, see `serving_layout.py`.
    """
    server = Server(
        model, classes=classes, image_size=image_size, temperature=temperature, views=views, threshold=threshold
    )
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    signatures = {SIGNATURE: server.serve, CHECKED: server.serve_checked, DESCRIBE: server.describe}
    tf.saved_model.save(server, str(aside), signatures=signatures)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    keras_aside = folder.with_name(f".{folder.name}.keras")
    model.save(keras_aside)
    keras_aside.replace(folder.with_suffix(".keras"))
    if serving:
        link_version(folder, serving)


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
    facts = {name: np.asarray(value) for name, value in loaded.signatures[DESCRIBE]().items()}
    return Served(
        tuple(name.decode() for name in facts["classes"]),
        int(facts["image_size"]),
        loaded.signatures,
        temperature=float(facts.get("temperature", 1.0)),
        views=int(facts.get("views", 1)),
        threshold=float(facts["threshold"]) if "threshold" in facts else None,
        loaded=loaded,
    )


def check_export(in_memory: Served, exported: Served, images: Sequence[bytes]) -> None:
    """Raises `FaultError` if the exported model doesn't say of `images` what the one in memory does, calibrated."""
    expected = np.asarray(calibrated(in_memory.logits(images), exported.temperature))
    found = exported.probabilities(images)
    worst = float(np.abs(expected - found).max(initial=0.0))
    if in_memory.classes != exported.classes or not worst <= TOLERANCE:  # NaN is no agreement either
        raise FaultError(
            f"The exported model gives other probabilities than the one that was trained: they differ by up to "
            f"{worst:.2g} on {len(images)} images, where {TOLERANCE:g} is allowed. To fix it: run the same command "
            "again; if it stays, the installed TensorFlow can't save this network, and its version has to be changed."
        )

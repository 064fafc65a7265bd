"""The computation that is exported: encoded images in, calibrated probabilities out.

    server = Server(model, classes=("a", "b"), image_size=256, temperature=1.3, views=8, threshold=0.8)
    server.serve(images=tf.constant([...]))["probabilities"]

Decoding, resizing and scaling are inside, so that no client can do them differently. What a network says of an image
are its `logits`. With eight views, they are the logarithm of the mean of the probabilities that it gives to the image
in its eight flips and quarter turns, so that both cases are calibrated alike:

    probabilities = softmax(logits / temperature)       (Guo et al., 2017, On Calibration of Modern Neural Networks)

Any temperature above 0 leaves the order of the classes, and so every answer, as it is.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.input_pipeline import to_unit_range
from trainer.models import logits_of
from trainer.served_images import decode_served

SIGNATURE = "serving_default"
VIEWS = (1, 8)
IMAGES = [tf.TensorSpec([None], tf.string, name="images")]
DECODED_AT_ONCE = 16  # more are no faster; each holds an image at its full size


class Server(tf.Module):  # type: ignore[misc]
    """The exported computation."""

    def __init__(
        self,
        model: keras.Model,
        *,
        classes: Sequence[str],
        image_size: int,
        temperature: float = 1.0,
        views: int = 1,
        threshold: float | None = None,
    ) -> None:
        """Raises `ValueError` for a temperature that isn't above 0 and for views that are neither 1 nor 8."""
        super().__init__()
        if not 0 < temperature < float("inf") or views not in VIEWS:
            raise ValueError(f"A temperature above 0 and 1 or 8 views are expected, not {temperature} and {views}.")
        self._network = logits_of(model)
        self._classes = tf.constant(list(classes))
        self._image_size = image_size
        self._temperature, self._views, self._threshold = temperature, views, threshold

    @tf.function(input_signature=IMAGES, autograph=False)  # type: ignore[untyped-decorator]
    def serve(self, images: Any) -> dict[str, Any]:
        """`[n] string` of JPEG, PNG, BMP or GIF files → for each its `class`, the `confidence` in it, all
        `probabilities [n, classes]` and `logits [n, classes]`; and `accepted`, whether the confidence reaches the
        threshold, if there is one.
        """
        return self._answers(self._pixels(images)[0])

    @tf.function(input_signature=IMAGES, autograph=False)  # type: ignore[untyped-decorator]
    def serve_checked(self, images: Any) -> dict[str, Any]:
        """The same, and the `last_pixel [n, 3] uint8` of each file: grey may mean that a JPEG lacks data."""
        pixels, last = self._pixels(images)
        return self._answers(pixels) | {"last_pixel": last}

    @tf.function(input_signature=[], autograph=False)  # type: ignore[untyped-decorator]
    def describe(self) -> dict[str, Any]:
        """`classes [classes] string` in the order of the probabilities, the `image_size` images are brought to, the
        `temperature`, the number of `views`, and the `threshold` if there is one.
        """
        facts = {
            "classes": tf.identity(self._classes),
            "image_size": tf.constant(self._image_size),
            "temperature": tf.constant(self._temperature, tf.float64),
            "views": tf.constant(self._views),
        }
        return facts if self._threshold is None else facts | {"threshold": tf.constant(self._threshold, tf.float64)}

    def _pixels(self, images: Any) -> tuple[Any, Any]:
        size = self._image_size
        shapes = (tf.TensorSpec([size, size, 3], tf.float32), tf.TensorSpec([3], tf.uint8))
        pixels, last = tf.map_fn(
            lambda encoded: decode_served(encoded, image_size=size),
            images,
            fn_output_signature=shapes,
            parallel_iterations=DECODED_AT_ONCE,
        )
        return to_unit_range(pixels), last

    def _answers(self, pixels: Any) -> dict[str, Any]:
        """`[n, size, size, 3] float32` in [0, 1] → what is served."""
        # The convolutions of TensorFlow's CPU library refuse a batch of no image: then there is one that isn't told of.
        count = tf.shape(pixels)[0]
        padding = tf.zeros([tf.cast(count == 0, tf.int32), self._image_size, self._image_size, 3])
        logits = self._logits(tf.concat([pixels, padding], axis=0))[:count]
        probabilities = calibrated(logits, self._temperature)
        confidence = tf.reduce_max(probabilities, axis=1)
        answers = {
            "class": tf.gather(self._classes, tf.argmax(probabilities, axis=1)),
            "confidence": confidence,
            "probabilities": probabilities,
            "logits": logits,
        }
        return answers if self._threshold is None else answers | {"accepted": confidence >= self._threshold}

    def _logits(self, pixels: Any) -> Any:
        if self._views == 1:
            return self._network(pixels, training=False)
        of_view = tf.map_fn(
            lambda number: tf.nn.log_softmax(self._network(_view(pixels, number), training=False)),
            tf.range(self._views),
            fn_output_signature=tf.float32,
            parallel_iterations=1,  # or the activations of eight batches would be in memory together
        )
        return mean_of_views(of_view, self._views)


def calibrated(logits: Any, temperature: float) -> Any:
    """`[n, classes]` logits → probabilities."""
    return tf.nn.softmax(logits / temperature)


def mean_of_views(of_view: Any, views: int) -> Any:
    """`[views, n, classes]` logarithms of probabilities → that of their mean, `[n, classes]`."""
    return tf.reduce_logsumexp(of_view, axis=0) - tf.math.log(float(views))


def turned(pixels: Any, number: int) -> Any:
    """`[n, size, size, 3]` after `number % 4` quarter turns, and from 4 on mirrored first."""
    return tf.image.rot90(tf.reverse(pixels, [2]) if number >= 4 else pixels, number % 4)


def _view(pixels: Any, number: Any) -> Any:
    """The same for a number that only the graph knows."""
    cases = [lambda number=case: turned(pixels, number) for case in range(max(VIEWS))]
    return tf.ensure_shape(tf.switch_case(number, cases), pixels.shape)

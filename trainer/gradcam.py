"""Where in an image a network finds its answer: Grad-CAM heat maps, and their overlay on the image.

    maps = heat_maps(model, images)                # [n, size, size] in [0, 1], for the answers the model gives
    picture = overlay(images[0], maps[0])          # bytes of a JPEG
    place(maps[0])                                 # "at the upper left"

R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.

Grad-CAM weights each feature by the mean of its gradient, which assumes that the network averages its features. One
that flattens them, as `seed` does, weighs a feature by where it is; the mean then lights places that the answer doesn't
depend on. So each place is weighted by its own gradient: the same map where features are averaged, and a faithful one
where they aren't. R. L. Draelos and L. Carin, "Use HiResCAM instead of Grad-CAM", arXiv:2011.08891.
"""

from io import BytesIO
from typing import Any

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from trainer.models import LOGITS

# Perceptually uniform, and unlike the pinks and violets of a stain.
COLOUR_MAP = "viridis"
WEAKEST, STRONGEST = 0.2, 0.6
QUALITY = 85

Pixels = NDArray[np.float32]


def heat_maps(
    model: keras.Model, images: Pixels, *, answers: NDArray[np.int64] | None = None, batch_size: int = 32
) -> Pixels:
    """What speaks for `answers`, and where: `[n, size, size] float32` in [0, 1], the largest of each image being 1.

    `images` is `[n, size, size, 3] float32` in [0, 1]; `answers` is `[n]` and by default what the model answers. A map
    is all zeros if nothing in the image speaks for the answer. Raises `ValueError` if the network has no convolution.
    """
    both = keras.Model(model.inputs[0], [features_of(model), model.get_layer(LOGITS).output])
    maps = [
        _batch(both, images[start : start + batch_size], None if answers is None else answers[start:][:batch_size])
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(maps) if maps else np.zeros(images.shape[:3], np.float32)


def features_of(model: keras.Model) -> Any:
    """The last feature map that still has places, from the last convolution on: `[batch, height, width, channels]`.

    Convolutions over a single place, as in squeeze-and-excitation, aren't counted. Raises `ValueError` if none is left.
    """
    convolution = keras.layers.Conv2D, keras.layers.SeparableConv2D, keras.layers.DepthwiseConv2D
    spatial = [layer for layer in model.layers if _has_places(layer)]
    last = max((n for n, layer in enumerate(spatial) if isinstance(layer, convolution)), default=None)
    if last is None:
        raise ValueError(f"Expected a network with a convolution. Received {model.name!r}, which has none.")
    return spatial[-1].output


def overlay(image: Pixels, heat_map: Pixels, *, image_format: str = "JPEG") -> bytes:
    """`heat_map` `[height, width]` in colour over `image` `[height, width, 3]` in grey; both in [0, 1].

    Bytes of a file of `image_format`, JPEG or PNG: the same for the same arrays.
    """
    grey = (image @ np.array([0.299, 0.587, 0.114], np.float32))[..., np.newaxis]
    colour = matplotlib.colormaps[COLOUR_MAP](heat_map)[..., :3]
    strength = (WEAKEST + (STRONGEST - WEAKEST) * heat_map)[..., np.newaxis]
    blended = (1 - strength) * grey + strength * colour
    out = BytesIO()
    picture = Image.fromarray(np.clip(np.rint(255 * blended), 0, 255).astype(np.uint8))
    picture.save(out, image_format, **({"quality": QUALITY} if image_format == "JPEG" else {}))
    return out.getvalue()


def place(heat_map: Pixels) -> str:
    """Where in the image `[height, width]` the brightest of nine fields lies, for those who can't see it."""
    if not heat_map.any():
        return "nowhere"
    fields = [[field.mean() for field in np.array_split(row, 3, axis=1)] for row in np.array_split(heat_map, 3, axis=0)]
    down, across = divmod(int(np.argmax(fields)), 3)
    words = [word for word in (("upper", "", "lower")[down], ("left", "", "right")[across]) if word]
    return ("in the middle", f"at the {' '.join(words)} edge", f"at the {' '.join(words)}")[len(words)]


def _has_places(layer: keras.Layer) -> bool:
    shape = getattr(getattr(layer, "output", None), "shape", ())
    return len(shape) == 4 and min(shape[1:3]) > 1 and not isinstance(layer, keras.layers.InputLayer)


def _batch(both: keras.Model, images: Pixels, answers: NDArray[np.int64] | None) -> Pixels:
    with tf.GradientTape() as tape:
        features, logits = both(images, training=False)
        chosen = tf.argmax(logits, axis=1) if answers is None else tf.constant(answers)
        score = tf.gather(logits, chosen, batch_dims=1)
    gradients = tape.gradient(score, features)
    speaks = tf.nn.relu(tf.reduce_sum(tf.cast(features * gradients, tf.float32), axis=-1))
    strongest = tf.reduce_max(speaks, axis=(1, 2), keepdims=True)
    resized = tf.image.resize(tf.math.divide_no_nan(speaks, strongest)[..., tf.newaxis], images.shape[1:3])[..., 0]
    # A peak between two pixels of the image loses height by interpolation.
    maps = tf.math.divide_no_nan(resized, tf.reduce_max(resized, axis=(1, 2), keepdims=True))
    return np.asarray(maps, np.float32)

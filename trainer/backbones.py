"""The networks of keras.applications, as this project wants them, and the weights they have learnt elsewhere.

    model = backbone("MobileNetV2", 128, 7)
    load_backbone_weights(model, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5")

What a family's `preprocess_input` does is inside, as a layer: images come in [0, 1], as everywhere. A backbone is no
layer of its own but its layers are the network's, so that heat maps and XLA see each of them. What some families leave
out at random (stochastic depth) stays in: which images it happens to would depend on how a batch is cut over replicas.
"""

import warnings
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from trainer.model_ends import ended, image_input
from trainer.model_names import FAMILY_OF, LOGITS, check_weights_file, least_px, wrong_weights

# ImageNet's pixels in [0, 1], red, green and blue; and in [0, 255], as Caffe's networks were shown them.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (123.68, 116.779, 103.939)
TOLERANCE = 1e-3
SCALED = "scaled"  # the name of the layer that does what preprocess_input does

# How each family wants its pixels: a factor and what is added. The others want them in [-1, 1].
SYMMETRIC = (2.0, -1.0)
STANDARDISED = ([1 / d for d in DEVIATION], [-m / d for m, d in zip(MEAN, DEVIATION, strict=True)])
CENTRED = (255.0, [-m for m in CAFFE_MEAN])
SCALES: dict[str, tuple[Any, Any]] = {
    "convnext": STANDARDISED,
    "densenet": STANDARDISED,
    "efficientnet": STANDARDISED,
    "efficientnet_v2": STANDARDISED,
    "resnet": CENTRED,
    "vgg16": CENTRED,
    "vgg19": CENTRED,
}
OVER_128 = (255 / 128, -1.0)
SCALES_OF = dict.fromkeys(("EfficientNetV2S", "EfficientNetV2M", "EfficientNetV2L"), OVER_128)
# Those that would scale their pixels themselves, but in the precision of the other layers.
SCALE_THEMSELVES = ("convnext", "efficientnet_v2", "mobilenet_v3")


def backbone(name: str, image_size: int, classes: int) -> keras.Model:
    """The network with fresh weights. Raises `ValueError` if the image is too small, `KeyError` for another name."""
    family, least = FAMILY_OF[name].module, least_px(name)
    if image_size < least:
        raise ValueError(f"{name} takes images of {least} pixels a side or more. Received: {image_size}.")
    own = {"include_preprocessing": False} if family in SCALE_THEMSELVES else {}
    network = _built(name, input_tensor=_scaled(name, image_input(image_size)), **own)
    if family.startswith("efficientnet"):
        network = keras.models.clone_model(network, clone_function=_certain)
    return ended(network.inputs[0], network.output, classes, name=name)


def load_backbone_weights(model: keras.Model, path: str | Path) -> None:
    """Give a model of `backbone` the weights of a file that Keras has saved, all but the last layer's.

    Its batch normalisation then keeps the mean and variance that came with them, in training too: what is computed of
    an image doesn't depend on those beside it. Raises `RequestError` if the file isn't of this very backbone.
    """
    check_weights_file(model.name, path)
    as_published = _built(model.name, input_shape=model.inputs[0].shape[1:])
    _read(as_published, model.name, path)
    values = [
        value
        for layer in as_published.layers
        if not isinstance(layer, layers.Normalization)
        for value in layer.get_weights()
    ]
    model.set_weights([*values, *model.get_layer(LOGITS).get_weights()])
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def _built(name: str, **more: Any) -> keras.Model:
    """What keras.applications makes of the name, up to features `[batch, numbers]`."""
    return getattr(keras.applications, name)(include_top=False, weights=None, pooling="avg", **more)


def _scaled(name: str, image: Any) -> Any:
    """`[batch, height, width, 3]` in [0, 1] → what the backbone was shown when it was published."""
    family = FAMILY_OF[name].module
    scale, offset = SCALES_OF.get(name) or SCALES.get(family, SYMMETRIC)
    scaled = layers.Rescaling(scale, offset=offset, dtype="float32", name=SCALED)(image)
    return keras.ops.flip(scaled, axis=-1) if offset is CENTRED[1] else scaled


def _certain(layer: keras.Layer) -> keras.Layer:
    """A layer like it, or one that does nothing instead of what is left to chance or done before."""
    doubled = isinstance(layer, layers.Rescaling) and layer.name != SCALED
    if doubled or isinstance(layer, layers.Normalization | layers.Dropout):
        return layers.Identity(name=layer.name)
    return type(layer).from_config(layer.get_config())


def _read(network: keras.Model, name: str, path: str | Path) -> None:
    """Raises `RequestError` if the file isn't of this network."""
    try:
        with warnings.catch_warnings(action="ignore"):  # that it found nothing for what has no weights
            network.load_weights(str(path))
        if _numbers(path) not in (None, network.count_params()):  # Keras takes what it wants and is silent on the rest
            raise ValueError("It holds more layers.")
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise wrong_weights(name, path, f"the weights in that file don't fit ({reason})") from error
    for layer in network.layers:
        if isinstance(layer, layers.Normalization) and not _is_imagenets(layer.get_weights()):
            raise wrong_weights(name, path, "that file has other means of its pixels than ImageNet's")


def _numbers(path: str | Path) -> int | None:
    """How many weights a `.weights.h5` holds; None for the form of old, of which Keras takes all or nothing."""
    sizes: list[int] = []

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and "seed_generator" not in name:
            sizes.append(item.size)

    with h5py.File(path) as file:
        if "layers" not in file:
            return None
        file["layers"].visititems(add)
    return sum(sizes)


def _is_imagenets(weights: list[NDArray[np.float32]]) -> bool:
    """Whether the mean and the variance of a normalisation are those of the weights that were published.

    What is published as the variance is the deviation, and Keras divides by its root twice:
    https://github.com/tensorflow/tensorflow/issues/49930.
    """
    if not weights:
        return True
    mean, variance = weights[:2]
    return np.allclose(mean, MEAN, atol=TOLERANCE) and np.allclose(variance, DEVIATION, atol=TOLERANCE)

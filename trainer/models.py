"""Networks by name.

    model = build_model("seed", image_size=256, classes=5)

A model takes `[batch, image_size, image_size, 3] float32` in [0, 1] and gives `[batch, classes] float32` probabilities.
Its last but one layer, `logits`, is what the loss is computed from: the logarithm of a rounded softmax loses digits.
"""

from collections.abc import Callable

import keras

LOGITS = "logits"


def build_model(name: str, *, image_size: int, classes: int, precision: str = "float32") -> keras.Model:
    """A new model with fresh weights, its layers computing in `precision` (float32 or bfloat16; weights are float32).

    Raises `KeyError` for an unknown name, `ValueError` if the image is too small.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        return MODELS[name](image_size, classes)
    finally:
        keras.config.set_dtype_policy(before)


def logits_of(model: keras.Model) -> keras.Model:
    """The same network with the same weights, up to its logits."""
    return keras.Model(model.inputs[0], model.get_layer(LOGITS).output)


def _seed(image_size: int, classes: int) -> keras.Model:
    """The CNN of the notebooks this project replaces: 29,783,365 parameters at 256 × 256 with five classes."""
    return _sequential("seed", image_size, classes, keras.layers.Flatten())


def _seed_pooled(image_size: int, classes: int) -> keras.Model:
    """The same features averaged over the image instead of flattened: 425 thousand parameters at any size."""
    return _sequential("seed_pooled", image_size, classes, keras.layers.GlobalAveragePooling2D())


def _sequential(name: str, image_size: int, classes: int, to_vector: keras.Layer) -> keras.Model:
    layers = [keras.layers.Input([image_size, image_size, 3], name="image")]
    for filters, kernel in ((32, 3), (64, 3), (128, 1), (256, 2)):
        layers.append(keras.layers.Conv2D(filters, kernel, activation="relu"))
        layers.append(keras.layers.MaxPooling2D(2))
    layers.append(to_vector)
    layers += [keras.layers.Dense(units, activation="relu") for units in (512, 256)]
    # Probabilities and loss are computed in float32, whatever the precision of the layers before.
    layers.append(keras.layers.Dense(classes, dtype="float32", name=LOGITS))
    layers.append(keras.layers.Softmax(dtype="float32", name="probabilities"))
    return keras.Sequential(layers, name=name)


MODELS: dict[str, Callable[[int, int], keras.Model]] = {"seed": _seed, "seed_pooled": _seed_pooled}

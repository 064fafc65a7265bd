"""The CNN of the notebooks this project replaces, and the same with averaged features.

    model = seed(256, 5)

A few convolutions, each followed by the larger of every four pixels, and two hidden layers.
"""

import keras

from trainer.model_names import LOGITS


def seed(image_size: int, classes: int) -> keras.Model:
    """The CNN of the notebooks this project replaces: 29,783,365 parameters at 256 × 256 with five classes."""
    return _sequential("seed", image_size, classes, keras.layers.Flatten())


def seed_pooled(image_size: int, classes: int) -> keras.Model:
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

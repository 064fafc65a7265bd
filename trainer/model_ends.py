"""How every network begins and ends: an image in [0, 1] in, logits and probabilities of float32 out.

image = image_input(image_size)
model = ended(image, features, classes, name="residual")    # features: [batch, numbers]
"""

from typing import Any

import keras
from keras import layers

from trainer.model_names import LOGITS


def image_input(image_size: int) -> Any:
    """`[batch, image_size, image_size, 3] float32`."""
    return layers.Input([image_size, image_size, 3], name="image")


def ended(image: Any, features: Any, classes: int, *, name: str) -> keras.Model:
    """The network from `image` to probabilities, by way of a layer `logits`.

    Both are computed in float32, whatever the precision of the layers before.
    """
    logits = layers.Dense(classes, dtype="float32", name=LOGITS)(features)
    return keras.Model(image, layers.Softmax(dtype="float32", name="probabilities")(logits), name=name)

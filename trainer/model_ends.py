"""How every network begins and ends: an image in [0, 1] in, logits and probabilities of float32 out.

image = image_input(image_size)
model = ended(image, features, classes, name="residual")    # features: [batch, numbers]
body, head = parts_of(model)                                # from images to features, from these to logits
"""

from typing import Any

import keras
from keras import layers

from trainer.model_names import LOGITS

EACH_ITS_OWN = "bmf,mfc->bmc"  # of batch, members, features and classes
FEATURES = "features"  # the layer whose input are those of all members, where there are several


def image_input(image_size: int) -> Any:
    """`[batch, image_size, image_size, 3] float32`."""
    return layers.Input([image_size, image_size, 3], name="image")


def ended(image: Any, features: Any, classes: int, *, name: str, members: int = 1) -> keras.Model:
    """The network from `image` to probabilities, by way of a layer `logits`.

    Both are computed in float32, whatever the precision of the layers before. Of several `members` each answers from
    its own equal part of the features, and the logits are the mean of their log-probabilities.
    """
    if members == 1:
        logits = layers.Dense(classes, dtype="float32", name=LOGITS)(features)
    else:
        apart = layers.Reshape([members, features.shape[1] // members], name=FEATURES)(features)
        answers = layers.EinsumDense(EACH_ITS_OWN, [members, classes], bias_axes="mc", dtype="float32")(apart)
        logs = layers.Activation("log_softmax", dtype="float32")(answers)
        logits = layers.GlobalAveragePooling1D(dtype="float32", name=LOGITS)(logs)
    return keras.Model(image, layers.Softmax(dtype="float32", name="probabilities")(logits), name=name)


def is_team(model: keras.Model) -> bool:
    """Whether its logits are the mean of several members' log-probabilities."""
    return any(layer.name == FEATURES for layer in model.layers)


def parts_of(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """From images to the features `[batch, numbers]` of which dropout may leave some out, and from these to logits."""
    first = model.get_layer(FEATURES if is_team(model) else LOGITS)
    body, head = (model.inputs[0], first.input), (first.input, model.get_layer(LOGITS).output)
    return keras.Model(*body), keras.Model(*head)

"""Networks by name.

    model = build_model("seed", image_size=256, classes=5)

A model takes `[batch, image_size, image_size, 3] float32` in [0, 1] and gives `[batch, classes] float32` probabilities.
Its last but one layer, `logits`, is what the loss is computed from: the logarithm of a rounded softmax loses digits.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras

from trainer.config import FLOAT16, TrainConfig
from trainer.loss_scale import LossScale
from trainer.model_names import LOGITS as LOGITS  # the others know it from here
from trainer.seed_network import seed, seed_pooled

MODELS: dict[str, Callable[[int, int], keras.Model]] = {"seed": seed, "seed_pooled": seed_pooled}


def build_model(name: str, *, image_size: int, classes: int, precision: str = "float32") -> keras.Model:
    """A new model with fresh weights of float32, its layers computing in `precision`: float32, bfloat16 or float16.

    Raises `KeyError` for an unknown name, `ValueError` if the image is too small.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        return MODELS[name](image_size, classes)
    finally:
        keras.config.set_dtype_policy(before)


def trainable(config: TrainConfig, *, classes: int) -> tuple[keras.Model, keras.optimizers.Optimizer, LossScale | None]:
    """A new model and what changes its weights, as `config` says. To be called in the strategy's scope."""
    keras.utils.set_random_seed(config.seed)
    model = build_model(config.model, image_size=config.image_size, classes=classes, precision=config.precision)
    optimizer = keras.optimizers.Adamax(config.learning_rate)
    scale = LossScale(optimizer) if config.precision == FLOAT16 else None
    optimizer.build(model.trainable_variables)
    return model, optimizer, scale


def logits_of(model: keras.Model) -> keras.Model:
    """The same network with the same weights, up to its logits."""
    return keras.Model(model.inputs[0], model.get_layer(LOGITS).output)


def for_xla(network: keras.Model) -> keras.Model:
    """The same network with the same layers, but for max pooling, of which XLA has no deterministic gradient."""

    def kept_or_replaced(layer: keras.Layer) -> keras.Layer:
        return _SlicedMaxPooling2D.of(layer) if isinstance(layer, keras.layers.MaxPooling2D) else layer

    return keras.models.clone_model(network, clone_function=kept_or_replaced)


class _SlicedMaxPooling2D(keras.layers.MaxPooling2D):  # type: ignore[misc]
    """The larger of the pixels of each window, by comparing slices: the same values, and ties go to the first too."""

    @classmethod
    def of(cls, layer: keras.layers.MaxPooling2D) -> keras.Layer:
        """Raises `ValueError` if windows overlap or stick out."""
        if layer.pool_size != layer.strides or layer.padding != "valid":
            raise ValueError(f"{layer.name} has windows that overlap or stick out.")
        return cls.from_config(layer.get_config())

    def call(self, inputs: Any) -> Any:
        """`[batch, height, width, channels]`, with `channels_last`."""
        down, across = self.pool_size
        height, width = (size // step * step for size, step in zip(inputs.shape[1:3], self.pool_size, strict=True))
        slices = [inputs[:, i:height:down, j:width:across] for i in range(down) for j in range(across)]
        return functools.reduce(keras.ops.maximum, slices)

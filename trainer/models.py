"""Networks by name, and what each costs: parameters, operations, and images a second on this machine.

Usage: python -m trainer.models --model=NAME[,NAME...] [--image_size=PX] [--batch_size=N] [--precision=NAME]

It measures, on one device and each for --seconds, the network by itself (forward) and whole training steps: forward,
backward and update, without the input, which python -m trainer.bench_input is about. --model=all measures all networks
of this project; backbones of keras.applications, such as MobileNetV2 or EfficientNetV2B0, are measured when named.
FLOPs are two for each multiplication and addition of convolutions and matrix products, of one image, forward.
Nothing is written.

Examples:
  python -m trainer.models --model=all --image_size=128
  python -m trainer.models --model=residual,convnext,MobileNetV2 --precision=bfloat16 --json

In Python:
    model = build_model("seed", image_size=256, classes=5)

A model takes `[batch, image_size, image_size, 3] float32` in [0, 1] and gives `[batch, classes] float32` probabilities.
Its last but one layer, `logits`, is what the loss is computed from: the logarithm of a rounded softmax loses digits.
"""

if __name__ == "__main__":  # before anything imports TensorFlow: a wrong request is told at once
    from absl import flags

    from data_pipeline import cli
    from trainer import model_table

    model_table.define_flags()
    flags.adopt_module_key_flags(model_table)  # for --help
    cli.run(model_table.main)

import functools
from collections.abc import Callable
from typing import Any

import keras

from trainer.backbones import backbone
from trainer.convnext import convnext
from trainer.model_names import FAMILY_OF
from trainer.model_names import LOGITS as LOGITS  # the others know it from here
from trainer.residual import BATCH, GROUPS, LARGE, WIDE, residual, residual_team
from trainer.seed_network import seed, seed_pooled

MODELS: dict[str, Callable[[int, int], keras.Model]] = {
    "seed": seed,
    "seed_pooled": seed_pooled,
    "residual": residual,
    "residual_batch": functools.partial(residual, norm=BATCH),
    "residual_groups": functools.partial(residual, norm=GROUPS),
    "residual_team": residual_team,
    "residual_batch_team": functools.partial(residual_team, norm=BATCH),
    "residual_wide": functools.partial(residual, stages=WIDE),
    "residual_large": functools.partial(residual, stages=LARGE),
    "convnext": convnext,
    **{name: functools.partial(backbone, name) for name in FAMILY_OF},
}


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


def logits_of(model: keras.Model) -> keras.Model:
    """The same network with the same weights, up to its logits."""
    return keras.Model(model.inputs[0], model.get_layer(LOGITS).output)


def for_xla(network: keras.Model) -> keras.Model:
    """The same network with the same layers, but for max pooling, of which XLA has no deterministic gradient."""

    def kept_or_replaced(layer: keras.Layer) -> keras.Layer:
        pooling = isinstance(layer, keras.layers.MaxPooling2D)
        return _SlicedMaxPooling2D.from_config(layer.get_config()) if pooling else layer

    return keras.models.clone_model(network, clone_function=kept_or_replaced)


class _SlicedMaxPooling2D(keras.layers.MaxPooling2D):  # type: ignore[misc]
    """The larger of the pixels of each window, by comparing slices: the same values, and ties go to the first too."""

    def call(self, inputs: Any) -> Any:
        """`[batch, height, width, channels]`, with `channels_last`."""
        if self.padding == "same":
            around = [_around(*sizes) for sizes in zip(inputs.shape[1:3], self.pool_size, self.strides, strict=True)]
            inputs = keras.ops.pad(inputs, [(0, 0), *around, (0, 0)], constant_values=float("-inf"))
        steps = zip(inputs.shape[1:3], self.pool_size, self.strides, strict=True)
        down, across = ([slice(i, size - window + i + 1, step) for i in range(window)] for size, window, step in steps)
        return functools.reduce(keras.ops.maximum, [inputs[:, rows, columns] for rows in down for columns in across])


def _around(size: int, window: int, step: int) -> tuple[int, int]:
    """How many pixels are put before and after so many, for windows to begin at each `step`, as TensorFlow does it."""
    missing = max((-(-size // step) - 1) * step + window - size, 0)
    return missing // 2, missing - missing // 2

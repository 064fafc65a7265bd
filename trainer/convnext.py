"""A small ConvNeXt: what convolutional networks can take over from transformers, at the size that few images ask for.

    model = convnext(128, 7)

Z. Liu et al. 2022, "A ConvNet for the 2020s": patches instead of a stem, a depthwise 7 × 7 convolution, one norm and
one nonlinearity a block, four times as many channels inside it as outside, and a factor for what it adds that begins
near 0. A norm is over the channels of a place, so that the answer for an image doesn't depend on those beside it.
"""

from typing import Any

import keras
from keras import layers

from trainer.model_ends import ended, image_input

STAGES = ((48, 2), (96, 2), (192, 2))  # channels, blocks
PATCH_PX = 4
FIRST_SCALE = 1e-6


def convnext(image_size: int, classes: int) -> keras.Model:
    """0.9 million parameters at any size."""
    image = image_input(image_size)
    x = layers.Rescaling(4.0, offset=-2.0, name="centred")(image)
    for number, (channels, blocks) in enumerate(STAGES):
        if number == 0:
            x = _norm(_convolution(channels, PATCH_PX, strides=PATCH_PX, name="stem")(x))
        else:
            x = _convolution(channels, 2, strides=2, name=f"stage{number}_halved")(_norm(x))
        for block in range(blocks):
            x = _block(x, channels, name=f"stage{number}_block{block}")
    pooled = layers.GlobalAveragePooling2D(name="features")(x)
    return ended(image, _norm(pooled), classes, name="convnext")


def _block(x: Any, channels: int, *, name: str) -> Any:
    y = layers.DepthwiseConv2D(7, padding="same", depthwise_initializer=_small(), name=f"{name}_depthwise")(x)
    y = _convolution(4 * channels, 1, activation="gelu", name=f"{name}_wide")(_norm(y))
    y = _convolution(channels, 1, name=f"{name}_narrow")(y)
    # A factor for each channel. A layer of our own would say so, but then whoever loads the model would need it too.
    first = keras.initializers.Constant(FIRST_SCALE)
    scale = layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer=first, name=f"{name}_scale")
    return layers.Add(name=name)([x, scale(y)])


def _convolution(channels: int, kernel: int, **more: Any) -> keras.Layer:
    return layers.Conv2D(channels, kernel, kernel_initializer=_small(), **more)


def _norm(x: Any) -> Any:
    return layers.LayerNormalization(epsilon=1e-6)(x)


def _small() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)

"""A small residual network for small data sets, with batch normalisation or without any statistics of a batch.

    model = residual(image_size=128, classes=7, norm=BATCH)
    model = residual_team(image_size=128, classes=7, norm=BATCH)    # four of them that answer together
    served = baked(model)               # the same function, of Keras's own layers alone

With batch normalisation what is learnt of an image depends on those that share its batch; on small data sets that makes
for better networks (see recipes/RESULTS.md). By default kernels are standardised instead of features (S. Qiao et al.
2019, "Micro-batch training with batch-channel normalization and weight standardization"), with scales that keep the
variance of features near 1 from block to block (A. Brock, S. De, S. Smith 2021, "Characterizing signal propagation to
close the performance gap in unnormalized ResNets"). That is faster on CPUs: nothing is computed of features but
convolutions, sums and ReLUs.

Resolution is halved by averaging before the convolution, not by leaving out pixels, so that a shift by a pixel changes
little (R. Zhang 2019, "Making convolutional networks shift-invariant again").
"""

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from trainer.model_ends import ended, image_input

STEM_PX = 4  # kernels of the two strided layers that begin: at full resolution, layers cost most and say least
BRANCH_SCALE = 0.2  # of what a block adds, Brock et al.'s α
RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))  # makes the variance 1 again after a ReLU of a standard normal
LEAST_VARIANCE = 1e-4
GROUP_CHANNELS = 8
MOMENTUM = 0.9  # of batch statistics: a run on some hundred images has few batches

WEIGHTS, BATCH, GROUPS = NORMS = ("weights", "batch", "groups")


@dataclass(frozen=True, slots=True)
class Stage:
    """So many blocks of so many channels; each stage but the first has half the resolution of the one before."""

    channels: int
    blocks: int


SMALL = (Stage(32, 2), Stage(64, 2), Stage(128, 2))
WIDE = (Stage(64, 2), Stage(128, 2), Stage(256, 2))
LARGE = (Stage(96, 3), Stage(192, 4), Stage(384, 6), Stage(768, 3))
MEMBERS = 4


def residual(image_size: int, classes: int, *, norm: str = WEIGHTS, stages: tuple[Stage, ...] = SMALL) -> keras.Model:
    """The network that standardises its `weights`, or its features by `batch` or by `groups` of channels."""
    image = image_input(image_size)
    features = layers.GlobalAveragePooling2D()(_feature_map(image, norm, stages))
    return ended(image, features, classes, name="residual")


def residual_team(
    image_size: int, classes: int, *, norm: str = WEIGHTS, members: int = MEMBERS, stages: tuple[Stage, ...] = SMALL
) -> keras.Model:
    """So many networks side by side, whose answer is the mean of their log-probabilities.

    Each starts from weights of its own, learns by its own loss and errs in its own way: together they err less (B.
    Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles"), and are
    one model to train, save and serve.
    """
    image = image_input(image_size)
    maps = layers.Concatenate()([_feature_map(image, norm, stages) for _ in range(members)])
    return ended(image, layers.GlobalAveragePooling2D()(maps), classes, name="residual_team", members=members)


def _feature_map(image: Any, norm: str, stages: tuple[Stage, ...]) -> Any:
    """`[batch, height, width, channels]` of the last stage."""
    x = layers.Rescaling(4.0, offset=-2.0)(image)  # about as wide as the standard normal
    width = stages[0].channels
    x = layers.Conv2D(width // 2, STEM_PX, strides=2, padding="same", kernel_initializer="he_normal")(x)
    x = _convolved(_active(x, norm), width, STEM_PX, norm, strides=2)
    variance = 1.0
    for number, stage in enumerate(stages):
        for block in range(stage.blocks):
            enters = block == 0 and number > 0
            x = _block(x, stage.channels, norm, variance=variance, enters=enters)
            variance = (1.0 if enters else variance) + BRANCH_SCALE**2
    return _active(x, norm)


def _block(x: Any, channels: int, norm: str, *, variance: float, enters: bool) -> Any:
    """`x`, and what two convolutions add to it; `variance` is that of `x`. `enters` halves the resolution first."""
    seen, scale = _active(x, norm), 1 / math.sqrt(variance)
    if enters:
        seen = layers.AveragePooling2D(2)(seen)
        x = _convolved(seen, channels, 1, norm, scale=scale)
    added = _convolved(seen, channels, 3, norm, scale=scale)
    return layers.Add()([x, _convolved(_active(added, norm), channels, 3, norm, scale=BRANCH_SCALE)])


def _active(x: Any, norm: str) -> Any:
    if norm == GROUPS:
        x = layers.GroupNormalization(max(1, x.shape[-1] // GROUP_CHANNELS))(x)
    elif norm == BATCH:
        x = layers.BatchNormalization(momentum=MOMENTUM)(x)
    return layers.Activation("relu")(x)


def _convolved(x: Any, channels: int, kernel_px: int, norm: str, *, scale: float = 1.0, strides: int = 1) -> Any:
    """Scales are for networks whose features aren't normalised: the others undo them."""
    if norm == WEIGHTS:
        convolution = StandardizedConv2D(channels, kernel_px, strides=strides, padding="same", gain=RELU_GAIN * scale)
    else:
        convolution = layers.Conv2D(
            channels, kernel_px, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal"
        )
    return convolution(x)


class StandardizedConv2D(layers.Conv2D):  # type: ignore[misc]
    """A convolution whose kernels have mean 0 and, all of what an output sees together, variance 1, times `gain`.

    A factor for each output channel is learnt. Standardised in float32, whatever the precision.
    """

    def __init__(self, *args: Any, gain: float = 1.0, **more: Any) -> None:
        super().__init__(*args, **{"kernel_initializer": "he_normal"} | more)
        self.gain = gain

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.factor = self.add_weight(shape=(self.filters,), initializer="ones", name="factor")

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return super().convolution_op(inputs, ops.cast(self.standardized(), self.compute_dtype))

    def standardized(self) -> Any:
        """The kernel that is convolved with: `[height, width, in, out] float32`."""
        kernel = ops.convert_to_tensor(self.kernel, dtype="float32")
        mean, variance = ops.moments(kernel, axes=(0, 1, 2), keepdims=True)
        seen = math.prod(kernel.shape[:3])
        factor = self.gain * ops.convert_to_tensor(self.factor, dtype="float32")
        return (kernel - mean) * ops.rsqrt(ops.maximum(variance * seen, LEAST_VARIANCE)) * factor

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {"gain": self.gain}


def baked(model: keras.Model) -> keras.Model:
    """The same function with the same weights, standardised kernels written down: Keras's own layers are enough.

    So the exported files can be loaded without this project. A model that has none is given back as it is.
    """
    if not any(isinstance(layer, StandardizedConv2D) for layer in model.layers):
        return model

    def plain(layer: keras.Layer) -> keras.Layer:
        if not isinstance(layer, StandardizedConv2D):
            return layer.__class__.from_config(layer.get_config())
        settings = layer.get_config()
        del settings["gain"]
        return layers.Conv2D.from_config(settings)

    copy = keras.models.clone_model(model, clone_function=plain)
    for ours, theirs in zip(model.layers, copy.layers, strict=True):
        if isinstance(ours, StandardizedConv2D):
            theirs.set_weights([ops.convert_to_numpy(ours.standardized()), ops.convert_to_numpy(ours.bias)])
        else:
            theirs.set_weights(ours.get_weights())
    return copy

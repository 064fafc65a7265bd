"""What a network costs: parameters, floating-point operations, and how many images a second it takes here.

    costs = costs_of(config, classes=5, seconds=3.0)
    costs.flops, costs.training.speed

Operations are counted as papers count them: two for each multiplication and addition of convolutions and matrix
products, of one image, forward. Biases, activations, norms and pooling aren't counted: they take time by the memory
they read, not by their arithmetic. What is multiplied with padding is counted, as hardware computes it too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from trainer.advice import Rate
from trainer.config import TrainConfig
from trainer.input_stages import TICKS, rate_of
from trainer.model_ends import EACH_ITS_OWN
from trainer.models import logits_of
from trainer.step import make_train_step
from trainer.trainable import trainable

TICKS_A_MODEL = 2 * TICKS


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one network: `flops` is of one image, forward; rates are of inference, and of whole training steps."""

    model: str
    parameters: int
    flops: int
    forward: Rate
    training: Rate


def costs_of(config: TrainConfig, *, classes: int, seconds: float, tick: Callable[[int], Any] = int) -> Costs:
    """Measure on one device, each rate for about `seconds`; `tick` is told of `TICKS_A_MODEL` steps on the way.

    The step is that of training, with the optimizer of `config`, on one batch of random images again and again.
    """
    batch, stop = _batch(config, classes), tf.constant(0.0)
    strategy = tf.distribute.OneDeviceStrategy("GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0")
    with strategy.scope():
        learner = trainable(config, classes=classes, steps_per_epoch=1)
    network = logits_of(learner.model)
    forward = tf.function(lambda images: network(images, training=False), autograph=False)
    step = make_train_step(strategy, learner.model, learner.optimizer, scale=learner.scale)
    return Costs(
        config.model,
        learner.model.count_params(),
        flops_of(learner.model),
        rate_of(lambda: len(np.asarray(forward(batch["image"]))), seconds=seconds, tick=tick),
        rate_of(lambda: int(np.asarray(step(batch, stop))[2]), seconds=seconds, tick=tick),
    )


def device_name() -> str:
    """The one that is measured, as a person knows it."""
    gpus = tf.config.list_physical_devices("GPU")
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")) if gpus else "CPU"


def flops_of(model: keras.Model) -> int:
    """The operations of one image, forward. Raises `ValueError` for a layer that multiplies in a way not known here."""
    return sum(flops_of(layer) if isinstance(layer, keras.Model) else _flops(layer) for layer in model.layers)


def _flops(layer: keras.Layer) -> int:
    if isinstance(layer, layers.EinsumDense) and layer.equation == EACH_ITS_OWN:
        return int(2 * prod(layer.kernel.shape))
    if isinstance(layer, layers.SeparableConv2D):
        kernels = [layer.depthwise_kernel, layer.pointwise_kernel]
    elif isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
        kernels = [layer.kernel]
    elif any(len(weight.shape) > 1 for weight in layer.weights):
        raise ValueError(f"The operations of {layer.name!r}, a {type(layer).__name__}, can't be counted.")
    else:
        return 0
    # Each place of the output takes each number of the kernel once: channels that are apart share none.
    return int(2 * prod(layer.output.shape[1:-1]) * sum(prod(kernel.shape) for kernel in kernels))


def _batch(config: TrainConfig, classes: int) -> dict[str, Any]:
    """Random images, as training gets them."""
    count, random = config.batch_size, np.random.default_rng(config.seed)
    images = random.random((count, config.image_size, config.image_size, 3), dtype=np.float32)
    return {
        "image": tf.constant(images),
        "label": tf.constant(np.arange(count) % classes),
        "weight": tf.fill([count], 1 / count),
        "index": tf.range(count, dtype=tf.int64),
    }

"""A new model, and all that changes its weights, as the settings of a run say.

with strategy.scope():
    learner = trainable(config, classes=7, steps_per_epoch=17)
learner.served          # the model whose answers count: the average, if there is one
"""

import math
from dataclasses import dataclass

import keras

from trainer.averaging import averaged_copy
from trainer.batch_statistics import of_whole_batches
from trainer.config import FLOAT16, TrainConfig
from trainer.late_weights import Adamax, AdamW
from trainer.learning_config import ADAMW, COSINE
from trainer.loss_scale import LossScale
from trainer.model_ends import parts_of
from trainer.models import build_model
from trainer.schedule import Course, ScheduledRate


@dataclass(frozen=True)
class Learner:
    """A model and what changes it: `scale` is float16's, `average` holds the moving average of the weights."""

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    scale: LossScale | None = None
    average: keras.Model | None = None

    @property
    def served(self) -> keras.Model:
        """The model that is validated, tested and exported."""
        return self.average or self.model


def trainable(config: TrainConfig, *, classes: int, steps_per_epoch: int) -> Learner:
    """A new learner. To be called in the strategy's scope. Raises `RequestError` for weights that don't fit."""
    keras.utils.set_random_seed(config.seed)
    model = build_model(config.model, image_size=config.image_size, classes=classes, precision=config.precision)
    if config.weights:
        from trainer.backbones import load_backbone_weights

        load_backbone_weights(model, config.weights)
    model = of_whole_batches(model)
    rate = ScheduledRate(course_of(config, steps_per_epoch))
    optimizer = _optimizer(config, rate, model)
    rate.belong_to(optimizer, highest=config.learning_rate)
    scale = LossScale(optimizer) if config.precision == FLOAT16 else None
    optimizer.build(model.trainable_variables)
    if config.freeze_epochs:
        optimizer.begin_late(parts_of(model)[0].trainable_variables, after=config.freeze_epochs * steps_per_epoch)
    return Learner(model, optimizer, scale, averaged_copy(model) if config.ema else None)


def course_of(config: TrainConfig, steps_per_epoch: int) -> Course:
    """How the learning rate goes over the run, in steps."""
    steps, frozen = (epochs * steps_per_epoch for epochs in (config.epochs, config.freeze_epochs))
    return Course(
        steps=steps,
        warmup=round(config.warmup * (steps - frozen)),
        falls=config.schedule == COSINE,
        frozen=frozen,
        then=(config.fine_tune_rate or config.learning_rate) / config.learning_rate,
    )


def _optimizer(config: TrainConfig, rate: ScheduledRate, model: keras.Model) -> AdamW | Adamax:
    if config.optimizer == ADAMW:
        optimizer: AdamW | Adamax = AdamW(rate, weight_decay=config.weight_decay)
    else:
        optimizer = Adamax(rate, weight_decay=config.weight_decay or None)
    optimizer.exclude_from_weight_decay(var_list=[one for one in model.trainable_variables if not _is_kernel(one)])
    return optimizer


def _is_kernel(variable: keras.Variable) -> bool:
    """Kernels alone shrink, not biases, gains and scales (T. He et al. 2019, "Bag of tricks for image classification").

    A team's last layer has a row of biases for each member.
    """
    return variable.name != "bias" and bool(math.prod(variable.shape) > max(variable.shape, default=1))

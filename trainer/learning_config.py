"""How a network learns, as flags and as frozen settings. TensorFlow isn't needed to know it.

    define_learning_flags()                # in __main__
    check_learning_flags(flags.FLAGS)      # raises RequestError

What each does, and where it is from, is said in `schedule.py`, `losses.py`, `averaging.py`, `dropout.py` and
`trainable.py`.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

from absl import flags

from data_pipeline.cli import invalid_flag
from trainer.model_names import check_weights_file, is_backbone

_, ADAMW = OPTIMIZERS = ("adamax", "adamw")
_, COSINE = SCHEDULES = ("constant", "cosine")
_, BALANCED, ROOT, EFFECTIVE = CLASS_WEIGHTS = ("none", "balanced", "root", "effective")
BEST, LAST = KEPT = ("best", "last")
MAX_RATE = 10.0
MAX_EPOCHS = 10**6
MOST_AVERAGED = 0.99999


@dataclass(frozen=True)
class LearningFlags:
    """The flags and their defaults, which are the seed's; `TrainConfig` has the same fields."""

    optimizer: str = "adamax"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    class_weights: str = "none"
    dropout: float = 0.0
    ema: float = 0.0
    keep: str = BEST
    weights: str = ""
    freeze_epochs: int = 0
    fine_tune_rate: float = 0.0


def define_learning_flags() -> None:
    """Declare the flags, with the defaults of `LearningFlags`."""
    default = {field.name: field.default for field in fields(LearningFlags)}
    choice, number = flags.DEFINE_enum, flags.DEFINE_float
    choice("optimizer", default["optimizer"], list(OPTIMIZERS), "What changes the weights.")
    number("learning_rate", default["learning_rate"], "The highest that the schedule reaches.")
    choice(
        "schedule", default["schedule"], list(SCHEDULES), "Leave the learning rate, or let it fall to 0 over the run."
    )
    for name, highest, text in (
        ("warmup", 0.9, "Let the learning rate rise over this share of the run first, such as 0.05."),
        (
            "weight_decay",
            1.0,
            "Shrink kernels by this share of themselves and of the learning rate a step, such as 0.05.",
        ),
        ("label_smoothing", 0.9, "Ask for this much less than certainty, spread over all classes, such as 0.1."),
        ("dropout", 0.9, "Leave out this share of what the last layer sees, another one each step, such as 0.2."),
        (
            "ema",
            MOST_AVERAGED,
            "Validate and export a moving average of the weights that keeps this share a step, such as 0.99.",
        ),
        ("fine_tune_rate", MAX_RATE, "With --freeze_epochs, the learning rate after them; 0: the same."),
    ):
        number(name, default[name], text, lower_bound=0.0, upper_bound=highest)
    choice(
        "class_weights",
        default["class_weights"],
        list(CLASS_WEIGHTS),
        "Have rare classes count as much as others together, as roots of numbers, or by effective numbers.",
    )
    choice(
        "keep",
        default["keep"],
        list(KEPT),
        "Which epoch is exported: the best by --monitor, or the last, where the learning rate has fallen to 0.",
    )
    flags.DEFINE_string("weights", default["weights"], "File of a backbone's pretrained weights, without its top.")
    flags.DEFINE_integer(
        "freeze_epochs",
        default["freeze_epochs"],
        "Train the last layer alone for so many epochs, then all.",
        lower_bound=0,
        upper_bound=MAX_EPOCHS,
    )


def check_learning_flags(values: Any) -> None:
    """What the types of the flags don't say. Raises `RequestError`."""
    rate = values.learning_rate
    if not 0 < rate < MAX_RATE:  # NaN isn't either
        expected = f"a number above 0 and below {MAX_RATE:g}"
        raise invalid_flag("learning_rate", expected=expected, received=rate, fix="try --learning_rate=0.001")
    for field in fields(LearningFlags):
        value = getattr(values, field.name)
        if isinstance(value, float) and not math.isfinite(value):  # NaN is neither too small nor too large
            fix = f"leave it out, or give --{field.name}={field.default}"
            raise invalid_flag(field.name, expected="a number", received=value, fix=fix)
    if values.freeze_epochs and values.freeze_epochs >= values.epochs:
        expected, fix = f"less than --epochs={values.epochs}", "give more --epochs, or less of it"
        raise invalid_flag("freeze_epochs", expected=expected, received=values.freeze_epochs, fix=fix)
    if values.keep == LAST and values.patience:
        fix = "leave it out, or give --keep=best"
        raise invalid_flag("patience", expected="0 with --keep=last", received=values.patience, fix=fix)
    if values.fine_tune_rate and not values.freeze_epochs:
        fix = "give --freeze_epochs, or set --learning_rate instead"
        raise invalid_flag(
            "fine_tune_rate", expected="0 without --freeze_epochs", received=values.fine_tune_rate, fix=fix
        )
    if values.weights:
        if not is_backbone(values.model):
            fix = "leave it out, or name a backbone of keras.applications, such as --model=MobileNetV2"
            raise invalid_flag("weights", expected=f"none for --model={values.model}", received=values.weights, fix=fix)
        check_weights_file(values.model, values.weights)

"""What `python -m trainer.models` does: its flags, what their types don't say of them, and the table.

define_flags()                       # in __main__
configs = configs_of(flags.FLAGS)    # raises RequestError before TensorFlow is imported

What is measured, and how operations are counted, says `model_costs.py`.
"""

import difflib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from data_pipeline import cli
from trainer.advice import Rate, number
from trainer.config import PRECISIONS, TrainConfig, check_image_size
from trainer.model_names import LEAST_PX, MODEL_NAMES, OWN_MODELS
from trainer.train_flags import MAX_BATCH, MAX_IMAGE_SIZE

if TYPE_CHECKING:
    from trainer.model_costs import Costs

ALL = "all"
MIN_S, MAX_S = 0.1, 600.0
MAX_CLASSES = 10**5


@dataclass(frozen=True)
class Facts:
    """What the figures are of. `load_before` is the load average: what else was done takes part in them."""

    device: str
    cpus: int
    load_before: float
    precision: str
    image_size: int
    batch_size: int
    classes: int


def main(argv: Sequence[str]) -> None:
    """Measure the networks of the command line, and print a table of them."""
    values = flags.FLAGS
    if argv[1:]:
        raise cli.RequestError(f"Unexpected argument {argv[1]!r}. To fix it: flags begin with --, see --help.")
    facts, found = measure(configs_of(values), classes=values.classes, seconds=values.seconds)
    print(as_json(facts, found) if values.json else table(facts, found), flush=True)


def define_flags() -> None:
    """Declare the flags."""
    networks = f"The networks: names with commas between, or {ALL} for {', '.join(OWN_MODELS)}."
    flags.DEFINE_list("model", None, f"{networks} Every backbone of keras.applications can be named too.")
    integer, boolean = flags.DEFINE_integer, flags.DEFINE_boolean
    integer("image_size", 256, "Width and height in pixels.", lower_bound=LEAST_PX, upper_bound=MAX_IMAGE_SIZE)
    integer("classes", 5, "Diagnoses to tell apart.", lower_bound=2, upper_bound=MAX_CLASSES)
    integer("batch_size", 32, "Images a step.", lower_bound=1, upper_bound=MAX_BATCH)
    flags.DEFINE_enum("precision", "float32", list(PRECISIONS), "Of the layers.")
    flags.DEFINE_float("seconds", 3.0, "How long to measure each rate.", lower_bound=MIN_S, upper_bound=MAX_S)
    boolean("json", False, "Print JSON instead of a table, with each slice of time that was measured.")
    flags.mark_flag_as_required("model")


def configs_of(values: Any) -> list[TrainConfig]:
    """What is to be measured, each network once. Raises `RequestError`."""
    if values.seconds != values.seconds:
        raise cli.invalid_flag("seconds", expected="a number", received=values.seconds, fix="leave it out")
    names = [each for name in values.model for each in (OWN_MODELS if name == ALL else [name])] or [""]
    for name in names:
        if name not in MODEL_NAMES:
            raise _unknown(name)
        check_image_size(values.image_size, name)
    how = TrainConfig(
        organ="",
        tfrecords=Path(),
        runs=Path(),
        image_size=values.image_size,
        batch_size=values.batch_size,
        precision=values.precision,
    )
    return [replace(how, model=name) for name in dict.fromkeys(names)]


def _unknown(name: str) -> cli.RequestError:
    by_lower = {known.lower(): known for known in MODEL_NAMES}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    fix = f"did you mean {by_lower[close[0]]}?" if close else f"name one of them, or give --model={ALL}"
    return cli.invalid_flag("model", expected=f"{ALL}, or of {', '.join(MODEL_NAMES)}", received=name, fix=fix)


def measure(configs: Sequence[TrainConfig], *, classes: int, seconds: float) -> tuple[Facts, "list[Costs]"]:
    """Measure one network after another, with a progress bar. Raises `FaultError` if the memory doesn't hold one."""
    load = os.getloadavg()[0]
    import keras  # takes seconds, and what imports it too
    import tensorflow as tf
    from tqdm import tqdm

    from trainer.devices import resolve_precision
    from trainer.model_costs import TICKS_A_MODEL, costs_of, device_name

    tf.config.experimental.enable_op_determinism()  # as in training
    precision = resolve_precision(configs[0].precision)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    how = configs[0]
    facts = Facts(device_name(), cpus, load, precision, how.image_size, how.batch_size, classes)
    slow = 0.1 if sys.stderr.isatty() else 10.0
    form = "{desc:<18} {percentage:3.0f}%|{bar}| {elapsed}"
    found = []
    with tqdm(total=TICKS_A_MODEL * len(configs), leave=False, mininterval=slow, bar_format=form) as bar:
        for config in configs:
            bar.set_description(config.model)
            try:
                config = replace(config, precision=precision)
                found.append(costs_of(config, classes=classes, seconds=seconds, tick=bar.update))
            except (MemoryError, tf.errors.ResourceExhaustedError) as error:
                raise cli.FaultError(
                    f"{config.model} takes more memory than there is. To fix it: give a smaller --batch_size or "
                    "--image_size."
                ) from error
            keras.backend.clear_session()  # or the memory of the last one would be held
    return facts, found


def table(facts: Facts, found: "Sequence[Costs]") -> str:
    """What was measured of, and a line for each network."""
    heading = (
        f"{facts.image_size} px, {facts.classes} classes, batch {facts.batch_size}, {facts.precision}, {facts.device}, "
        f"{facts.cpus} CPUs, load average {facts.load_before:.1f} before"
    )
    names = ("", "parameters", "FLOPs an image", "images/s forward", "images/s training")
    rows = [
        (
            costs.model,
            f"{costs.parameters:,}",
            f"{costs.flops:,}",
            number(costs.forward.speed),
            number(costs.training.speed),
        )
        for costs in found
    ]
    widths = [max(len(row[column]) for row in (names, *rows)) for column in range(len(names))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (names, *rows)]
    first = widths[0]
    return "\n".join([heading, *(line[:first].lstrip().ljust(first) + line[first:] for line in lines)])


def as_json(facts: Facts, found: "Sequence[Costs]") -> str:
    """All of it for programs."""

    def rate(of: Rate) -> dict[str, Any]:
        return {"images_per_s": of.speed, "cpu_ms_per_image": of.cost_ms, "slices_images_per_s": of.images_per_s}

    models = {
        costs.model: {
            "parameters": costs.parameters,
            "flops": costs.flops,
            "forward": rate(costs.forward),
            "training": rate(costs.training),
        }
        for costs in found
    }
    return json.dumps({"facts": asdict(facts), "models": models}, indent=1)

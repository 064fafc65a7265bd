"""See which side holds training up on your data and your machine: the input or the step, and what helps.

Usage: python -m trainer.bench_input --tfrecords=DIR --organ=ORGAN [flags of python -m trainer]

Give it the flags of augmentation, size, precision and cache that training will get. It reads the train split as
training does and measures, each for --seconds: reading from the disk, decoding, augmentation, images kept decoded, the
training step by itself, and both together. It ends with a verdict and, if the input is too slow, with what to do about
it, what helps most first. Nothing is written but --output, and the dataset is left as it is. A dataset in Cloud Storage
is fetched to --scratch first, as for training.

Examples:
  python -m trainer.bench_input --tfrecords=tfrecords --organ=cervix
  python -m trainer.bench_input --tfrecords=tfrecords --organ=cervix --precision=auto --blur=1.5 --output=input.json
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from data_pipeline import cli
from trainer import augment_config, bench_request, scratch
from trainer.advice import Facts, Measured, Rate, Verdict, judge, number
from trainer.augment_config import augmentation_of, mixing_of
from trainer.bench_request import SPLIT, Request, define_flags, request_of
from trainer.config import AUTO, CACHES, TrainConfig
from trainer.order import TrainOrder
from trainer.predict import output_of
from trainer.recipe_files import apply_recipe
from trainer.records import RecordReader

if TYPE_CHECKING:
    from trainer.input_stages import Stages

PNG = b"\x89PNG"
LOOKED_AT = 256  # records whose format is looked at
CHANGES = ("blur", "stain", "colour", "cutout")
MIXES = ("mixup", "cutmix")
STAGES = 7  # those that are always measured


def main(argv: Sequence[str]) -> None:
    """Measure the dataset of the command line."""
    values = flags.FLAGS
    apply_recipe(values, only=bench_request.OF_TRAINING)
    if argv[1:]:
        raise cli.RequestError(f"Unexpected argument {argv[1]!r}. To fix it: flags begin with --, see --help.")
    output = output_of(values.output)
    if output:
        output.check([])
    with request_of(values) as request:
        measured, facts = measure(values, request)
    verdict = judge(measured, facts)
    print(f"\n{table(measured, facts)}\n\n{verdict}", flush=True)
    if output:
        output.write((json.dumps(as_json(measured, facts, verdict), indent=1, ensure_ascii=False) + "\n").encode())
        cli.say(f"Written: {output}")


def measure(values: Any, request: Request) -> tuple[Measured, Facts]:
    """Measure every stage, with a progress bar. `values` are the flags. Raises `DatasetError` for a damaged record."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf  # takes seconds, and what imports it too
    from tqdm import tqdm

    from trainer import cluster, devices
    from trainer.decoded_cache import available_bytes
    from trainer.input_pipeline import TrainInput
    from trainer.input_stages import TICKS, Stages

    tf.config.experimental.enable_op_determinism()
    strategy = cluster.make_strategy("auto", logical_cpus=0)
    reader = RecordReader(request.folder, request.manifest, SPLIT)
    batch = max(values.batch_size, strategy.num_replicas_in_sync)
    config = _config(values, request)
    on_device = devices.augments_in_step(config.augment_on)
    augmentation, mixing = augmentation_of(values), mixing_of(values)
    how = TrainInput(request.image_size, augmentation, values.seed, mixing, on_device=on_device)
    on_cpu = not tf.config.list_physical_devices("GPU")
    facts = _facts(values, config, request, reader, on_cpu=on_cpu, free=available_bytes())
    cli.say(
        f"{request.manifest.organ}: {len(reader)} training images stored at {reader.image_size} px, used at "
        f"{request.image_size}; {cluster.describe(strategy)}, {facts.cpus} CPUs"
    )
    slow = 0.1 if sys.stderr.isatty() else 10.0
    form = "{desc:<16} {percentage:3.0f}%|{bar}| {elapsed}"
    count = STAGES + len(_less(values, facts)) + 2 * _other_form_thinkable(facts)
    with tqdm(total=count * TICKS, leave=False, mininterval=slow, bar_format=form) as bar, reader.naming_failures():
        order = TrainOrder(len(reader), batch, values.seed)
        stages = Stages(reader, order, how, strategy, values.seconds, bar.update)
        return _stages(stages, values, config, request, facts, bar.set_description), facts


def _stages(
    stages: "Stages", values: Any, config: TrainConfig, request: Request, facts: Facts, title: Callable[[str], Any]
) -> Measured:
    reader = stages.reader
    title("reading")
    read_first, read_again = stages.reading(request.folder, request.manifest)
    title("decoding")
    decoded = stages.decoding()
    title("augmentation")
    whole = stages.input(reader)
    sample = stages.sample()
    title("kept decoded")
    kept = stages.input(sample)
    source = sample if facts.cached else reader
    without = {}
    for name, less in _less(values, facts).items():
        title(f"without {name}")
        how = replace(stages.how, augmentation=augmentation_of(less), mixing=mixing_of(less))
        without[name] = stages.input(source, how)
    title("forms of images")
    quality = request.manifest.settings["jpeg_quality"]
    forms = stages.forms(quality=quality) if _other_form_thinkable(facts) else {}
    title("training step")
    classes = len(request.manifest.classes)
    step, training, waiting_share = stages.training(source, config, classes=classes)
    return Measured(read_first, read_again, decoded, whole, kept, without, forms, step, training, waiting_share)


def _config(values: Any, request: Request) -> TrainConfig:
    """What the step depends on."""
    from trainer.devices import resolve_precision

    given = {name: getattr(values, name) for name in ("model", "precision", "xla", "augment_on", "seed")}
    config = TrainConfig(organ=request.manifest.organ, tfrecords=request.folder.parent, runs=Path(), **given)
    return replace(config, image_size=request.image_size, precision=resolve_precision(config.precision))


def _facts(
    values: Any, config: TrainConfig, request: Request, reader: RecordReader, *, on_cpu: bool, free: int
) -> Facts:
    import numpy as np

    from trainer.devices import augments_in_step, resolve_precision

    looked_at = reader.records(np.arange(min(len(reader), LOOKED_AT), dtype=np.int64))
    facts = Facts(
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load_before=request.load_before,
        on_cpu=on_cpu,
        records=len(reader),
        stored_px=reader.image_size,
        image_px=request.image_size,
        png_share=sum(record.image.startswith(PNG) for record in looked_at) / len(looked_at),
        dataset_bytes=sum(shard.bytes for shard in request.manifest.shards_of(SPLIT)),
        free_memory_bytes=free,
        cache_budget_bytes=request.cache_budget_bytes,
        free_disk_bytes=request.free_disk_bytes,
        cached=False,
        fetched=request.fetched,
        precision=config.precision,
        faster_precision=resolve_precision(AUTO),
        augmented_on_device=augments_in_step(config.augment_on),
    )
    auto, _, decoded = CACHES
    fits = facts.cache_bytes <= facts.cache_memory_bytes
    return replace(facts, cached=values.cache == decoded or (values.cache == auto and fits))


def _less(values: Any, facts: Facts) -> dict[str, Any]:
    """The flags without each change that is asked for and is no part of the one warp; mixes go together.

    There are none where the step makes them.
    """
    if facts.augmented_on_device:
        return {}
    groups = [(name,) for name in CHANGES] + [MIXES]
    used = [[name for name in group if getattr(values, name)] for group in groups]
    return {" ".join(f"--{name}" for name in group): _Without(values, frozenset(group)) for group in used if group}


@dataclass(frozen=True)
class _Without:
    """Flags of which some count as 0."""

    values: Any
    names: frozenset[str]

    def __getattr__(self, name: str) -> Any:
        return 0.0 if name in self.names else getattr(self.values, name)


def _other_form_thinkable(facts: Facts) -> bool:
    """Whether images could be stored so that they are decoded faster."""
    return not facts.cached and (facts.stored_px > facts.image_px or facts.png_share > 0.5)


def table(measured: Measured, facts: Facts) -> str:
    """A line for each stage: images a second with their range, and CPU time an image."""
    rows = [
        ("reading, first from the disk", measured.read_first),
        ("reading again, from memory", measured.read_again),
        ("+ decoding", measured.decoded),
        (f"+ {'hand over' if facts.augmented_on_device else 'augmentation'}: the whole input", measured.whole),
        ("the same, images kept decoded", measured.kept),
        *((f"without {name}", rate) for name, rate in measured.without.items()),
        (f"training step alone, {facts.precision}", measured.step),
        (f"training, waiting {measured.waiting_share:.0%} of the time", measured.training),
    ]
    lines = [f"{'':<34}  {'images/s':>9}  {'(range)':^17}  {'CPU ms an image':>15}"]
    for name, rate in rows:
        spread = f"({number(min(rate.images_per_s))} – {number(max(rate.images_per_s))})"
        lines.append(f"{name:<34}  {number(rate.speed):>9}  {spread:^17}  {rate.cost_ms:>15.3f}")
    return "\n".join(lines)


def as_json(measured: Measured, facts: Facts, verdict: Verdict) -> dict[str, Any]:
    """All of it for programs."""

    def stage(rate: Rate) -> dict[str, Any]:
        return {"images_per_s": rate.speed, "cpu_ms_per_image": rate.cost_ms, "slices_images_per_s": rate.images_per_s}

    values = {field.name: getattr(measured, field.name) for field in fields(measured)}
    stages = {name: stage(value) for name, value in values.items() if isinstance(value, Rate)}
    several = {name: {key: stage(rate) for key, rate in values[name].items()} for name in ("without", "forms")}
    advice = [{"text": remedy.text, "images_per_s": remedy.images_per_s} for remedy in verdict.remedies]
    said = {"verdict": verdict.sentence, "advice": advice, "notes": verdict.notes}
    return {"facts": asdict(facts), "stages": stages, **several, "waiting_share": measured.waiting_share, **said}


if __name__ == "__main__":
    define_flags()
    for module in (bench_request, augment_config, scratch):  # for --help
        flags.adopt_module_key_flags(module)
    cli.run(main)

"""Turn folders of microscope images into sealed TFRecord datasets with held-out test shards.

Usage: python -m data_pipeline --organ=ORGAN --images=DIR --tfrecords=DIR

  DIR of --images      holds  ORGAN/DIAGNOSIS/image files, at any depth below DIAGNOSIS
  DIR of --tfrecords   gets   ORGAN/ with train, validation and test shards, manifest.json, quarantine.csv and card.html

Examples:
  python -m data_pipeline --organ=cervix --images=images --tfrecords=tfrecords
  python -m data_pipeline --organ=cervix,lung --images=images --tfrecords=tfrecords --image_size=128
  python -m data_pipeline --organ=all --images=images --tfrecords=tfrecords --group_by='regex:^[^/]+/(?P<group>[^_]+)_'

Every file is decoded; what can't be used is listed in quarantine.csv with its reason, and nothing is lost silently.
Images of one slide or patient stay in one split. An interrupted run goes on where it was when the same command is given
again.

Exit codes: 0 done, 2 the request is wrong, 75 stopped by SIGTERM (run it again), anything else a fault.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from data_pipeline import cli
from data_pipeline.audit import audit_file, audit_shards
from data_pipeline.discover import discover, find_organs, sub_folders
from data_pipeline.grouping import Rule, parse_rule
from data_pipeline.inspect_stage import combine_sha256, inputs_sha256, inspect
from data_pipeline.manifest import FILE_NAME, QUARANTINE_NAME, DatasetError, Manifest
from data_pipeline.parallel import available_cpus
from data_pipeline.plan import Settings, make_plan
from data_pipeline.seal import restore_after_crash, seal
from data_pipeline.storage import exclusive, local_path
from data_pipeline.write import write_shards

ORGAN_NAME = re.compile(r"[\w][\w .-]*")


@dataclass(frozen=True)
class ConvertConfig:
    """The command line, checked."""

    organs: tuple[str, ...]
    images: Path
    tfrecords: Path
    settings: Settings
    rule: Rule
    overwrite: bool
    workers: int


def define_flags() -> None:
    """Declare this program's flags. Their defaults are those of `Settings`."""
    default = Settings()
    flags.DEFINE_list("organ", None, "Organ to convert: a folder of --images, a comma-separated list, or `all`.")
    flags.DEFINE_string("images", None, "Folder that holds ORGAN/DIAGNOSIS/image files.")
    flags.DEFINE_string("tfrecords", None, "Folder that gets a dataset per organ.")
    flags.DEFINE_integer("image_size", default.image_size, "Stored width and height in pixels.", lower_bound=8)
    flags.DEFINE_float("test_fraction", default.test_fraction, "Share of all images that is held out for the test.")
    flags.DEFINE_float("validation_fraction", default.validation_fraction, "Share of the other images for validation.")
    flags.DEFINE_integer("folds", default.folds, "Cross-validation: cut all but the test images into this many parts.")
    flags.DEFINE_integer("fold", default.fold, "Which of the --folds parts, from 0, is for validation.", lower_bound=0)
    flags.DEFINE_string(
        "group_by",
        default.group_by,
        "What ties images of one slide or patient together: auto (from the file names), folder (sub-folders of "
        "DIAGNOSIS), none, regex:PATTERN (searched in DIAGNOSIS/FILE, with a group named `group`), or csv:FILE (with "
        "the columns path and group).",
    )
    flags.DEFINE_integer("seed", default.seed, "Chooses another split.", lower_bound=0)
    flags.DEFINE_enum("encoding", default.encoding, ["jpeg", "png"], "How images that must be resized are stored.")
    flags.DEFINE_integer("jpeg_quality", default.jpeg_quality, "For --encoding=jpeg.", lower_bound=1, upper_bound=100)
    flags.DEFINE_bool("overwrite", False, "Replace a dataset of other images or flags once the new one is whole.")
    flags.DEFINE_integer("workers", available_cpus(), "How many processes work at once.", lower_bound=1)
    flags.mark_flags_as_required(["organ", "images", "tfrecords"])


def config_from_flags(values: flags.FlagValues) -> ConvertConfig:
    """The flags as a config. Raises `RequestError` for values that can't work."""
    for name in ("test_fraction", "validation_fraction"):
        if not 0 <= values[name].value < 1:
            fix = f"for example --{name}=0.2"
            raise cli.invalid_flag(
                name, expected="a number from 0 to less than 1", received=values[name].value, fix=fix
            )
    if (values.folds and not 2 <= values.folds > values.fold) or (not values.folds and values.fold):
        expected = "--folds of 2 or more (or 0: none) and --fold below it"
        fix = "for example --folds=5 --fold=0"
        raise cli.invalid_flag("folds", expected=expected, received=(values.folds, values.fold), fix=fix)
    images = local_path("images", values.images)
    organs = tuple(find_organs(images, values.organ))
    for organ in organs:
        if not ORGAN_NAME.fullmatch(organ):
            fix = f"rename {images / organ}"
            raise cli.invalid_flag("organ", expected="letters, digits, spaces and _ . -", received=organ, fix=fix)
    tfrecords = local_path("tfrecords", values.tfrecords)
    if any((images / organ).resolve() in [tfrecords.resolve(), *tfrecords.resolve().parents] for organ in organs):
        fix = "name a folder outside of the images"
        raise cli.invalid_flag("tfrecords", expected="another folder than the images", received=str(tfrecords), fix=fix)
    rule = parse_rule(values.group_by)
    settings = {name: values[name].value for name in Settings.__dataclass_fields__ if name in values}
    return ConvertConfig(
        organs=organs,
        images=images,
        tfrecords=tfrecords,
        settings=Settings(group_table_sha256=rule.table_sha256, **settings),
        rule=rule,
        overwrite=values.overwrite,
        workers=values.workers,
    )


def convert(organ: str, config: ConvertConfig) -> Manifest:
    """Convert one organ, or find that it is done. Raises `RequestError` where a person has to decide."""
    folder, target = config.images / organ, config.tfrecords / organ
    work = config.tfrecords / f".{organ}.partial"
    _make_folder(config.tfrecords)
    busy = f"{organ} is being converted by another process. To fix it: wait for its end."
    with exclusive(config.tfrecords / f".{organ}.lock", otherwise=busy):
        restore_after_crash(target)
        files = discover(folder)
        done = _existing(target, config, lambda: inputs_sha256(folder, files, workers=config.workers))
        if done:
            shutil.rmtree(work, ignore_errors=True)
            return done
        _say(f"{organ}: {len(files)} files")
        rows = inspect(folder, files, work=work / "inspect", workers=config.workers)
        plan = make_plan(rows, organ=organ, settings=config.settings, rule=config.rule, diagnoses=sub_folders(folder))
        _describe(plan.grouping.rule, plan.grouping.description, plan.grouping.examples)
        shards = write_shards(plan, folder, work=work, settings=config.settings, workers=config.workers)
        inputs = combine_sha256((row.id for row in rows), (row.sha256 for row in rows))
        manifest = seal(
            plan,
            shards,
            work=work,
            target=target,
            settings=config.settings,
            inputs_sha256=inputs,
            workers=config.workers,
        )
        shutil.rmtree(work, ignore_errors=True)
        return manifest


def _existing(target: Path, config: ConvertConfig, inputs: Callable[[], str]) -> Manifest | None:
    """The dataset at `target` if it is what was asked for; None if it must be made."""
    if not target.exists():
        return None
    if not (target / FILE_NAME).exists():
        raise cli.RequestError(f"{target} exists and is no dataset of ours. To fix it: move it away.")
    try:
        manifest = Manifest.load(target)
    except DatasetError:
        if config.overwrite:
            return None
        raise
    differences = [
        f"--{name} was {manifest.settings.get(name)!r} and is {value!r}"
        for name, value in config.settings.to_json().items()
        if manifest.settings.get(name) != value
    ]
    if not differences and manifest.inputs_sha256 != inputs():
        differences.append("the images have changed")
    if not differences:
        differences = _damage(target, manifest, config.workers)
    if not differences:
        _say(f"{manifest.organ}: up to date, nothing to do")
        return manifest
    if config.overwrite:
        return None
    raise cli.RequestError(
        f"The dataset at {target} isn't what this command would make: {'; '.join(differences[:5])}. "
        "To fix it: add --overwrite to replace it, or name another --tfrecords."
    )


def _damage(target: Path, manifest: Manifest, workers: int) -> list[str]:
    problems = [problem for file in manifest.files if (problem := audit_file(target, file))]
    audits = audit_shards(target, manifest, decode=False, workers=workers, title="check")
    return problems + [problem for audit in audits for problem in audit.problems]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fix = "name a folder that this user may write to"
        raise cli.invalid_flag(
            "tfrecords", expected="a writable folder", received=str(folder), fix=f"{fix} ({error})"
        ) from error


def _describe(rule: str, description: str, examples: dict[str, str]) -> None:
    _say(f"   group  {rule}: {description}")
    for name, group in examples.items():
        _say(f"          {name} → {group}")


def _summary(target: Path, manifest: Manifest) -> str:
    counts = manifest.counts
    splits = ", ".join(f"{split.records} {name}" for name, split in manifest.splits.items())
    return (
        f"Dataset: {target} ({counts.inputs} inputs = {counts.written} written + {counts.duplicates} duplicates + "
        f"{counts.quarantined} quarantined; {splits}; {manifest.grouping.groups} groups)"
    )


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> None:
    """Convert the organs of the command line, one after another."""
    if len(argv) > 1:
        raise cli.RequestError(f"Unexpected argument {argv[1]!r}. To fix it: flags begin with --, see --help.")
    cli.stop_on_sigterm()
    config = config_from_flags(flags.FLAGS)
    refused = []
    for organ in config.organs:
        try:
            manifest = convert(organ, config)
        except cli.RequestError as error:
            # One organ's trouble is no reason to keep the others waiting.
            refused.append(str(error))
            continue
        for warning in manifest.warnings:
            _say(f" warning  {warning}")
        left_out = manifest.counts.duplicates + manifest.counts.quarantined
        if left_out:
            _say(f"left out  {left_out} files, each with its reason in {config.tfrecords / organ / QUARANTINE_NAME}")
        print(_summary(config.tfrecords / organ, manifest), flush=True)
    if refused:
        raise cli.RequestError("\n".join(refused))


if __name__ == "__main__":
    define_flags()
    cli.run(main)

"""Turn folders of microscope images into sealed TFRecord datasets with held-out test shards.

Usage: python -m data_pipeline --organ=ORGAN --images=DIR --tfrecords=DIR

  --images     a folder that holds ORGAN/DIAGNOSIS/image files at any depth below DIAGNOSIS, one organ's folder alone,
               an archive of either as downloaded (.zip, .tar, .tar.gz), or tfds:NAME, a tensorflow-datasets set
  --tfrecords  gets ORGAN/ with train, validation and test shards, manifest.json, quarantine.csv and card.html
               Both may be folders of a bucket of Cloud Storage, gs://BUCKET/FOLDER.

Examples:
  python -m data_pipeline --organ=cervix --images=images --tfrecords=tfrecords
  python -m data_pipeline --organ=cervix,lung --images=images --tfrecords=tfrecords --image_size=128
  python -m data_pipeline --organ=lung --images=LC25000.zip --tfrecords=tfrecords
  python -m data_pipeline --organ=all --images=tfds:colorectal_histology --tfrecords=tfrecords
  python -m data_pipeline --organ=cervix --images=gs://lab/images --tfrecords=gs://lab/tfrecords
  python -m data_pipeline --organ=all --images=images --tfrecords=tfrecords --group_by='regex:^[^/]+/(?P<group>[^_]+)_'

Every file is read and decoded once; what can't be used is listed in quarantine.csv with its reason, and nothing is lost
silently. Images of one slide or patient stay in one split, and so do images that look alike. An interrupted run goes on
where it was when the same command is given again.

Several machines share the work over one --tfrecords folder if each runs the same command with --num_workers=N and its
own --worker from 0 to N-1 (in a Kubernetes Indexed Job that number is known). To run one stage at a time instead, give
all workers --stage=inspect, then worker 0 --stage=plan, all --stage=write, and worker 0 --stage=seal.

A dataset for a bucket is made in the folder --scratch and then published: files first, the manifest last. What is
inspected is kept in the bucket too, so that a machine that is lost, and its disk, only costs what it had under way.
Credentials come from the environment: Workload Identity, or `gcloud auth application-default login`.

Exit codes: 0 done, 2 the request is wrong, 75 stopped by SIGTERM (run it again), anything else a fault.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from data_pipeline import cli
from data_pipeline.conversion import STAGES, Conversion, Share
from data_pipeline.csv_table import table_sha256
from data_pipeline.folder_source import FolderSource
from data_pipeline.given_splits import parse_split_table
from data_pipeline.grouping import parse_rule
from data_pipeline.manifest import QUARANTINE_NAME, Manifest
from data_pipeline.parallel import available_cpus
from data_pipeline.scratch import scratch_for
from data_pipeline.settings import Settings
from data_pipeline.sources import Source, open_sources
from data_pipeline.storage import in_bucket, local_path, make_folder

if TYPE_CHECKING:
    from data_pipeline.bucket import BucketFolder

ORGAN_NAME = re.compile(r"[\w][\w .-]*")
LEADERS_STAGES = ("plan", "seal")
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"  # how a Kubernetes Indexed Job numbers its pods


def define_flags() -> None:
    """Declare this program's flags. Their defaults are those of `Settings`."""
    default = Settings()
    flags.DEFINE_list("organ", None, "Organ to convert: a folder of --images, a comma-separated list, or `all`.")
    flags.DEFINE_string(
        "images",
        None,
        "Folder of ORGAN/DIAGNOSIS/image files, one organ's folder, an archive of either, gs://BUCKET/FOLDER, or "
        "tfds:NAME.",
    )
    flags.DEFINE_string("tfrecords", None, "Folder, or gs://BUCKET/FOLDER, that gets a dataset per organ.")
    flags.DEFINE_string(
        "scratch",
        "",
        "With --tfrecords=gs://…: folder to work in; by default `cytotrain` in the one for temporary files.",
    )
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
    flags.DEFINE_enum(
        "near_duplicates",
        default.near_duplicates,
        ["link", "ignore"],
        "Whether images that look alike (turned, flipped, resized, re-encoded copies) are put into one group.",
    )
    flags.DEFINE_string(
        "split_csv",
        default.split_csv,
        "CSV file with the columns path (DIAGNOSIS/FILE) and split (train, validation or test), for given splits. "
        "Without any for validation, --validation_fraction of the training images are taken.",
    )
    flags.DEFINE_integer("seed", default.seed, "Chooses another split.", lower_bound=0)
    flags.DEFINE_enum("encoding", default.encoding, ["jpeg", "png"], "How images that must be resized are stored.")
    flags.DEFINE_integer("jpeg_quality", default.jpeg_quality, "For --encoding=jpeg.", lower_bound=1, upper_bound=100)
    flags.DEFINE_bool("overwrite", False, "Replace a dataset of other images or flags once the new one is whole.")
    flags.DEFINE_integer("workers", available_cpus(), "How many processes work at once.", lower_bound=1)
    flags.DEFINE_integer("num_workers", 1, "How many machines share the work.", lower_bound=1)
    flags.DEFINE_integer(
        "worker", None, f"Which of --num_workers this is, from 0; by default ${INDEX_VARIABLE}.", lower_bound=0
    )
    flags.DEFINE_float(
        "patience_s",
        Conversion.patience_s,
        "With --num_workers: after how many seconds without a sign of the others worker 0 does their work itself.",
        lower_bound=0,
    )
    flags.DEFINE_enum("stage", "all", ["all", *STAGES], "Which stage to run.")
    flags.mark_flags_as_required(["organ", "images", "tfrecords"])


def conversions_from_flags(values: flags.FlagValues) -> list[Conversion]:
    """A conversion for each organ. Raises `RequestError` for values that can't work."""
    _check_fractions(values)
    sources = open_sources(values.images, values.organ)
    bucket = _bucket(values.tfrecords)
    tfrecords = scratch_for(values.scratch, bucket) if bucket else local_path("tfrecords", values.tfrecords)
    _check_places(sources, tfrecords, bucket)
    rule, given = parse_rule(values.group_by), parse_split_table(values.split_csv)
    if given and values.folds and "validation" in given.values():
        fix = "leave --folds out, or leave the images for validation out of the table"
        raise cli.invalid_flag(
            "folds", expected="no folds beside given validation images", received=values.folds, fix=fix
        )
    settings = Settings(
        group_table_sha256=table_sha256(rule.table),
        split_table_sha256=table_sha256(given),
        **{name: values[name].value for name in Settings.__dataclass_fields__ if name in values},
    )
    return [
        Conversion(
            organ=organ,
            source=source,
            tfrecords=tfrecords,
            settings=settings,
            rule=rule,
            given=given,
            overwrite=values.overwrite,
            workers=values.workers,
            stages=STAGES if values.stage == "all" else (values.stage,),
            share=_share(values),
            patience_s=values.patience_s,
            bucket=bucket,
        )
        for organ, source in sources.items()
    ]


def _check_places(sources: Mapping[str, Source], tfrecords: Path, bucket: "BucketFolder | None") -> None:
    for organ in sources:
        if not ORGAN_NAME.fullmatch(organ):
            fix = "rename the folder"
            raise cli.invalid_flag("organ", expected="letters, digits, spaces and _ . -", received=organ, fix=fix)
        _keep_apart(sources[organ], tfrecords / organ, tfrecords)
        _keep_apart_in_bucket(sources[organ], organ, bucket)


def _bucket(tfrecords: str) -> "BucketFolder | None":
    if not in_bucket(tfrecords):
        return None
    from data_pipeline.bucket import BucketFolder  # not above: see `conversion.py`

    return BucketFolder.of("tfrecords", tfrecords)


def _keep_apart(source: Source, target: Path, tfrecords: Path) -> None:
    """Raise `RequestError` if datasets would be written among the images of a folder, or in their place."""
    if not isinstance(source, FolderSource):
        return
    images = source.folder.resolve()
    if images == target.resolve() or images in (tfrecords.resolve(), *tfrecords.resolve().parents):
        fix = "name a folder outside of the images"
        raise cli.invalid_flag("tfrecords", expected="another folder than the images", received=str(tfrecords), fix=fix)


def _keep_apart_in_bucket(source: Source, organ: str, bucket: "BucketFolder | None") -> None:
    """The same, of folders of a bucket."""
    if bucket is None:
        return
    from data_pipeline.bucket_source import BucketSource

    if not isinstance(source, BucketSource) or source.folder.bucket != bucket.bucket:
        return
    images, target = source.folder.prefix, (bucket / organ).prefix
    if target.startswith(images) or images.startswith(target):
        fix = "name a folder outside of the images"
        raise cli.invalid_flag("tfrecords", expected="another folder than the images", received=str(bucket), fix=fix)


def _check_fractions(values: flags.FlagValues) -> None:
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


def _share(values: flags.FlagValues) -> Share:
    number, of = values.worker, values.num_workers
    if number is None:
        given = os.environ.get(INDEX_VARIABLE, "0") if of > 1 else "0"
        number = int(given) if given.isdecimal() else of  # anything else is refused below
    if number >= of:
        fix = f"number the workers from 0 to {of - 1}, or raise --num_workers"
        raise cli.invalid_flag("worker", expected=f"less than --num_workers={of}", received=number, fix=fix)
    return Share(number, of)


def _summary(place: "Path | BucketFolder", manifest: Manifest) -> str:
    counts = manifest.counts
    splits = ", ".join(f"{split.records} {name}" for name, split in manifest.splits.items())
    return (
        f"Dataset: {place} ({counts.inputs} inputs = {counts.written} written + {counts.duplicates} duplicates + "
        f"{counts.quarantined} quarantined; {splits}; {manifest.grouping.groups} groups)"
    )


def _report(conversion: Conversion, manifest: Manifest | None) -> None:
    """Say what became of it: the last line on stdout says where the result is."""
    if manifest is None:
        part = f"its part of stage {conversion.stages[0]}" if len(conversion.stages) == 1 else "its shards"
        if not conversion.share.leads and conversion.stages[0] in LEADERS_STAGES and len(conversion.stages) == 1:
            part = f"nothing: worker 0 does stage {conversion.stages[0]}"
        who = f"worker {conversion.share.number} of {conversion.share.of}"
        print(f"{conversion.organ}: {who} has done {part}; see {conversion.work}", flush=True)
        return
    for warning in manifest.warnings:
        cli.say(f" warning  {warning}")
    left_out = manifest.counts.duplicates + manifest.counts.quarantined
    if left_out:
        cli.say(f"left out  {left_out} files, each with its reason in {conversion.place}/{QUARANTINE_NAME}")
    print(_summary(conversion.place, manifest), flush=True)


def main(argv: Sequence[str]) -> None:
    """Convert the organs of the command line, one after another."""
    if len(argv) > 1:
        raise cli.RequestError(f"Unexpected argument {argv[1]!r}. To fix it: flags begin with --, see --help.")
    from data_pipeline.stages import convert  # not above: worker processes import this module, and start the sooner

    cli.stop_on_sigterm()
    conversions = conversions_from_flags(flags.FLAGS)
    refused = []
    for conversion in conversions:
        try:
            if conversion.bucket:
                from data_pipeline.bucket_conversion import convert_to_bucket

                make_folder("scratch", conversion.tfrecords)
                _report(conversion, convert_to_bucket(conversion, conversion.bucket))
            else:
                make_folder("tfrecords", conversion.tfrecords)
                _report(conversion, convert(conversion))
        except cli.RequestError as error:
            # One organ's trouble is no reason to keep the others waiting.
            refused.append(str(error))
    if refused:
        raise cli.RequestError("\n".join(refused))


if __name__ == "__main__":
    define_flags()
    cli.run(main)

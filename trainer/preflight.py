"""What can be wrong with a request, found before TensorFlow is imported.

    configs = runs_to_do(flags.FLAGS, argv[1:])     # raises RequestError, or says that a run is finished

Nothing is written but notes on the files that were found right, in the folder of a run that may begin: a request that
is refused leaves nothing behind.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from absl import flags

from data_pipeline import cli
from data_pipeline.manifest import FILE_NAME, SPLITS, Manifest
from data_pipeline.storage import local_path
from trainer import run_folder, seal_check
from trainer.addresses import find_workers
from trainer.config import MIN_IMAGE_SIZE, TrainConfig, config_from_flags, image_too_small

MIN_CLASSES = 2


def runs_to_do(values: flags.FlagValues, stray: Sequence[str]) -> list[TrainConfig]:
    """The runs of the command line that aren't finished, in order. Raises `RequestError`, whichever it is about."""
    if stray:
        raise cli.RequestError(f"Unexpected argument {stray[0]!r}. To fix it: flags begin with --, see --help.")
    tfrecords = local_path("tfrecords", values.tfrecords)
    configs = [config_from_flags(values, organ) for organ in chosen_organs(values.organ, tfrecords)]
    workers = find_workers(configs[0], os.environ, hostname=socket.gethostname())
    first = workers is None or workers.chief
    check_batch(configs, replicas=max(values.logical_cpus, len(workers.addresses) if workers else 1))
    manifests = [checked_manifest(config.dataset_folder) for config in configs]
    runs = [(_resolved(config, manifest), manifest) for config, manifest in zip(configs, manifests, strict=True)]
    to_do = [(config, manifest) for config, manifest in runs if not _is_finished(config, manifest)]
    for config, manifest in to_do:
        check_run(config, manifest, first=first)
    for config, manifest in to_do:  # last, for it may take long
        check_seal(config, manifest, first=first)
    return [config for config, _ in to_do]


def chosen_organs(names: Sequence[str], tfrecords: Path) -> list[str]:
    """The datasets to train on, each once. Raises `RequestError` if one isn't there."""
    try:
        folders = {path.name: (path / FILE_NAME).exists() for path in sorted(tfrecords.iterdir()) if path.is_dir()}
    except OSError as error:
        fix = f"name the folder that python -m data_pipeline has written to ({error.strerror})"
        raise cli.invalid_flag("tfrecords", expected="a folder", received=str(tfrecords), fix=fix) from error
    there = [name for name, sealed in folders.items() if sealed and not name.startswith(".")]
    if not there and not any(name in folders for name in names):
        raise cli.RequestError(f"{tfrecords} holds no dataset. To fix it: run python -m data_pipeline first.")
    if list(names) == ["all"]:
        return there
    for name in names or [""]:
        if name not in folders:  # one that is there without a manifest is told what it lacks, later
            expected = f"one of {', '.join(there)}, a list of them, or all"
            fix = "name an organ that is there, or convert its images with python -m data_pipeline"
            raise cli.invalid_flag("organ", expected=expected, received=name, fix=fix)
    return list(dict.fromkeys(names))


def checked_manifest(folder: Path) -> Manifest:
    """The manifest of a dataset that can be trained on. Raises `RequestError`."""
    manifest = Manifest.load(folder)
    for split in SPLITS:
        if split not in manifest.splits or manifest.splits[split].records == 0:
            raise cli.RequestError(
                f"The dataset at {folder} has no {split} records. To fix it: convert more groups of "
                "images, or with larger --test_fraction and --validation_fraction."
            )
    if len(manifest.classes) < MIN_CLASSES:
        raise cli.RequestError(
            f"The dataset at {folder} has one class, {', '.join(manifest.classes)}: there is nothing to tell apart. "
            "To fix it: convert images of two diagnoses or more."
        )
    return manifest


def check_batch(configs: Sequence[TrainConfig], *, replicas: int) -> None:
    """Raises `RequestError` if some replicas would get no image."""
    for config in configs:
        if config.batch_size < replicas:
            expected = f"{replicas} or more, one image for each replica"
            fix = f"give --batch_size={replicas} or more, or use fewer devices"
            raise cli.invalid_flag("batch_size", expected=expected, received=config.batch_size, fix=fix)


def check_run(config: TrainConfig, manifest: Manifest, *, first: bool) -> None:
    """Whether the run can begin or go on; `first` says that this is the worker that writes. Raises `RequestError`."""
    folder = config.run_folder(manifest.fingerprint)
    dataset = config.dataset_folder.resolve()
    if dataset in (folder.resolve(), *folder.resolve().parents):
        fix = "name a folder outside of --tfrecords"
        raise cli.invalid_flag("runs", expected="no folder in a dataset", received=str(config.runs), fix=fix)
    if first:
        run_folder.check_writable(folder)
        run_folder.check_alone(folder)


def check_seal(config: TrainConfig, manifest: Manifest, *, first: bool) -> None:
    """Whether the dataset's files are those that were sealed. The `first` worker reads them, for all the others.

    Raises `DatasetError` naming each file that isn't, `OSError` if a disk fails.
    """
    seal_check.check_sizes(config.dataset_folder, manifest)
    if first:
        notes = config.run_folder(manifest.fingerprint) / seal_check.NOTES
        seal_check.check_contents(config.dataset_folder, manifest, notes=notes)


def _resolved(config: TrainConfig, manifest: Manifest) -> TrainConfig:
    """`config` with what depends on dataset and device filled in. Raises `RequestError` for what can't work."""
    size = config.image_size or manifest.image_size
    if size < MIN_IMAGE_SIZE:
        raise image_too_small(size)
    precision = config.precision
    if precision == "auto":
        from trainer.precision import resolve_precision  # only now: it asks TensorFlow which devices there are

        precision = resolve_precision(precision)
    return replace(config, image_size=size, precision=precision)


def _is_finished(config: TrainConfig, manifest: Manifest) -> bool:
    """Whether there is nothing left to do for this run; if so, say where its report is. Raises `RequestError`."""
    folder = config.run_folder(manifest.fingerprint)
    if run_folder.has_begun(folder):
        run_folder.check_same(folder, config, dataset=manifest.fingerprint)
    finished = run_folder.is_finished(folder)
    if finished:
        cli.say(f"{config.organ}: this run is finished already")
        print(f"Report: {folder / run_folder.REPORT}", flush=True)
    return finished

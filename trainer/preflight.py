"""What can be wrong with a request, found before TensorFlow is imported.

    configs = runs_to_do(flags.FLAGS, argv[1:])     # raises RequestError, or says that a run is finished

Nothing is written but notes on the files that were found right, in the folder of a run that may begin: a request that
is refused leaves nothing behind. What is in a bucket is fetched last, when nothing can be said against it any more:
first datasets, then the checkpoints of runs that go on.
"""

import os
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from data_pipeline import cli
from data_pipeline.manifest import SPLITS, Manifest, datasets_in
from data_pipeline.storage import in_bucket, local_path
from trainer import run_folder, scratch, seal_check
from trainer.addresses import find_workers
from trainer.config import AUTO, TrainConfig, check_image_size
from trainer.model_names import weights_digest
from trainer.order import TrainOrder
from trainer.train_flags import config_from_flags

if TYPE_CHECKING:
    from trainer.remote_run import RemoteRun
    from trainer.staging import BucketDatasets

MIN_CLASSES = 2


@dataclass(frozen=True)
class _Run:
    """What a run is about; `remote` if its place is in a bucket."""

    config: TrainConfig
    manifest: Manifest
    remote: "RemoteRun | None"


def runs_to_do(values: flags.FlagValues, stray: Sequence[str]) -> list[TrainConfig]:
    """The runs of the command line that aren't finished, in order. Raises `RequestError`, whichever it is about."""
    if stray:
        raise cli.RequestError(f"Unexpected argument {stray[0]!r}. To fix it: flags begin with --, see --help.")
    datasets = _datasets(values)
    configs = [config_from_flags(values, organ) for organ in chosen_organs(values.organ, datasets)]
    workers = find_workers(configs[0], os.environ, hostname=socket.gethostname())
    first = workers is None or workers.chief
    check_batch(configs, replicas=max(values.logical_cpus, len(workers.addresses) if workers else 1))
    manifests = [checked_manifest(datasets, config.organ) for config in configs]
    runs = [
        _resolved(config, manifest, scratch.of_flags(values), worker=workers.index if workers else 0)
        for config, manifest in zip(configs, manifests, strict=True)
    ]
    to_do = [run for run in runs if not _is_finished(run)]
    for run in to_do:
        _check_run(run, first=first)
    # ── From here on it may take long ────────────────────────────────────────────────────────────────────────────
    if not isinstance(datasets, Path) and to_do:
        datasets.reserve([run.manifest for run in to_do])
        for run in to_do:
            datasets.stage(run.manifest)
    for run in to_do:
        if isinstance(datasets, Path):
            check_seal(run.config, run.manifest, first=first)
        if run.remote:
            run.remote.fetch(_steps_needed(run), alone=workers is None)
    return [run.config for run in to_do]


def _datasets(values: flags.FlagValues) -> "Path | BucketDatasets":
    """The folder that `--tfrecords` names, or what stands for it in a bucket."""
    if not in_bucket(values.tfrecords):
        return local_path("tfrecords", values.tfrecords)
    from trainer.staging import BucketDatasets  # only now: the client of Cloud Storage takes half a second

    return BucketDatasets(values.tfrecords, scratch.of_flags(values))


def chosen_organs(names: Sequence[str], datasets: "Path | BucketDatasets") -> list[str]:
    """The datasets to train on, each once. Raises `RequestError` if one isn't there."""
    folders = datasets_in(datasets) if isinstance(datasets, Path) else datasets.organs()
    return cli.chosen(names, folders, place=str(datasets))


def checked_manifest(datasets: "Path | BucketDatasets", organ: str) -> Manifest:
    """The manifest of a dataset that can be trained on. Raises `RequestError`."""
    folder = f"{datasets}/{organ}"
    manifest = Manifest.load(datasets / organ) if isinstance(datasets, Path) else datasets.manifest(organ)
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


def _check_run(run: _Run, *, first: bool) -> None:
    """Whether the run can begin or go on; `first` says that this is the worker that writes. Raises `RequestError`."""
    config, folder = run.config, run.config.run_folder(run.manifest.fingerprint)
    place = config.run_place(run.manifest.fingerprint)
    if _is_below(config, place):
        fix = "name a folder outside of --tfrecords"
        received = config.runs_address or str(config.runs)
        raise cli.invalid_flag("runs", expected="no folder in a dataset", received=received, fix=fix)
    if run.remote:
        scratch.Scratch.of(config.scratch, config.scratch_budget).open()
        if first:
            run.remote.check_writable()
    elif first:
        run_folder.check_writable(folder)
    if first:
        run_folder.check_alone(folder, place=place)


def _is_below(config: TrainConfig, place: str) -> bool:
    """Whether the run would lie in its dataset."""
    if config.runs_address or config.tfrecords_address:
        return f"{place}/".startswith(f"{config.tfrecords_address.rstrip('/') or 'no'}/{config.organ}/")
    dataset, folder = config.dataset_folder.resolve(), Path(place).resolve()
    return dataset in (folder, *folder.parents)


def check_seal(config: TrainConfig, manifest: Manifest, *, first: bool) -> None:
    """Whether the dataset's files are those that were sealed. The `first` worker reads them, for all the others.

    Raises `DatasetError` naming each file that isn't, `OSError` if a disk fails.
    """
    seal_check.check_sizes(config.dataset_folder, manifest)
    if first:
        notes = config.run_folder(manifest.fingerprint) / seal_check.NOTES
        seal_check.check_contents(config.dataset_folder, manifest, notes=notes)


def _resolved(config: TrainConfig, manifest: Manifest, where: scratch.Scratch, *, worker: int) -> _Run:
    """`config` with what depends on dataset and machine filled in. Raises `RequestError` for what can't work."""
    size = config.image_size or manifest.image_size
    check_image_size(size, config.model)
    precision = config.precision
    if precision == AUTO:
        from trainer.devices import resolve_precision  # only now: it asks TensorFlow which there are

        precision = resolve_precision(precision)
    digest = weights_digest(config.weights)
    config = replace(config, image_size=size, precision=precision, weights_sha256=digest)
    if config.tfrecords_address:
        config = replace(config, tfrecords=where.dataset(manifest.fingerprint))
    if not config.runs_address:
        return _Run(config, manifest, None)
    from trainer.remote_run import RemoteRun

    config = replace(config, runs=where.runs(config.runs_address, worker=worker))
    fingerprint = manifest.fingerprint
    return _Run(config, manifest, RemoteRun(config.run_place(fingerprint), config.run_folder(fingerprint)))


def _is_finished(run: _Run) -> bool:
    """Whether there is nothing left to do for this run; if so, say where its report is. Raises `RequestError`."""
    config, fingerprint = run.config, run.manifest.fingerprint
    folder, place = config.run_folder(fingerprint), config.run_place(fingerprint)
    if run.remote:
        finished = run.remote.has(run_folder.results(tflite=config.tflite))
        if run.remote.begun:
            run_folder.check_config(run.remote.config, config, dataset=fingerprint, place=place)
    else:
        if run_folder.has_begun(folder):
            run_folder.check_same(folder, config, dataset=fingerprint)
        finished = run_folder.is_finished(folder, tflite=config.tflite)
    if finished:
        cli.say(f"{config.organ}: this run is finished already")
        print(f"Report: {place}/{run_folder.REPORT}", flush=True)
    return finished


def _steps_needed(run: _Run) -> Callable[[dict[str, Any]], Collection[int]]:
    """Of a checkpoint's progress, the steps whose checkpoints it takes to go on from it: see `divergence.py`."""
    records = run.manifest.splits["train"].records
    order = TrainOrder(records, run.config.batch_size, run.config.seed)

    def steps(progress: dict[str, Any]) -> Collection[int]:
        start = len(progress["history"]) * order.steps_per_epoch
        return {progress["best_step"], *([start] if run.config.on_nan == "rollback" else [])}

    return steps

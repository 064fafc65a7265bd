"""Exact evaluation: every record of a split once, each prediction with its own label.

Usage: python -m trainer.evaluate --model=DIR --tfrecords=DIR --organ=ORGAN [--split=test]

Tests an exported model on a sealed dataset with the same classes and prints the scores, with 95 % intervals that
resample its groups; the last line on stdout is one line of JSON. Both may be in Cloud Storage; of a dataset there, the
split is fetched to --scratch and kept.

A prediction stays paired with its record because the record's number travels with it: through shuffling, padding and
replicas. At the end the numbers must be exactly 0 … n − 1, or the evaluation fails.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from numpy.typing import NDArray
from tqdm import tqdm

from data_pipeline import cli
from data_pipeline.manifest import SPLITS, Manifest
from data_pipeline.page import NO_GROUPS
from data_pipeline.storage import in_bucket, local_path
from trainer import scratch
from trainer.calibration import apply_temperature
from trainer.export import Served, load_served
from trainer.input_pipeline import Layout, evaluation_batches
from trainer.metrics import Predictions
from trainer.records import RecordReader
from trainer.run_folder import model_folder
from trainer.scores import AREAS, SCORES, split_scores
from trainer.seal_check import check_contents, check_sizes

SERVED_BATCH = 32


def make_evaluation_step(strategy: tf.distribute.Strategy, model: keras.Model) -> Callable[[Any], Any]:
    """A compiled step: batch → for each local replica a table `[n, 3 + classes] float64`.

    A row is (record number, weight, label, probabilities …): one table, so that its parts can't get out of step.
    float64 holds every number exactly.
    """

    def on_replica(batch: dict[str, Any]) -> Any:
        columns = [batch["index"], batch["weight"], batch["label"]]
        numbers = tf.stack([tf.cast(column, tf.float64) for column in columns], axis=1)
        return tf.concat([numbers, tf.cast(model(batch["image"], training=False), tf.float64)], axis=1)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def step(batch: Any) -> Any:
        return strategy.run(on_replica, args=(batch,))

    return step  # type: ignore[no-any-return]


def predict_split(
    strategy: tf.distribute.Strategy,
    step: Callable[[Any], Any],
    reader: RecordReader,
    *,
    batch_size: int,
    image_size: int,
    layout: Layout,
    before_batch: Callable[[], None] = lambda: None,
) -> Predictions:
    """What the model behind `step` says about every record of `reader`, computed on all replicas.

    Every worker calls `before_batch` before each batch; it may raise, if it does so on all of them.
    """

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return evaluation_batches(reader, batch_size=batch_size, image_size=image_size, layout=layout)

    dataset = strategy.distribute_datasets_from_function(batches)
    with reader.naming_failures():
        per_step = []
        delivered = iter(dataset)  # with a name, so that a stop doesn't wait for it to be taken apart, see `loop.train`
        for batch in delivered:
            before_batch()
            per_step.append(strategy.experimental_local_results(step(batch)))
    per_replica = [np.concatenate([np.asarray(table) for table in tables]) for tables in zip(*per_step, strict=True)]
    table = _from_all_workers(strategy, layout, per_replica)
    real = table[table[:, 1] > 0]
    return _paired(reader, real[:, 0].astype(np.int64), real[:, 2].astype(np.int64), real[:, 3:].astype(np.float32))


def _from_all_workers(
    strategy: tf.distribute.Strategy, layout: Layout, per_replica: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """The tables of this process's replicas, joined by those of the other workers where there are any."""
    if layout.alone:
        return np.concatenate(per_replica)
    # Every worker has tables of the same shape, padding included, as the collective operation wants them.
    tables = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(per_replica[context.replica_id_in_sync_group - layout.first])
    )
    return np.asarray(strategy.gather(tables, axis=0))


def predict_served(served: Served, reader: RecordReader, *, title: str) -> tuple[Predictions, NDArray[np.float32]]:
    """What a served model says about the stored bytes of every record of `reader`, and the logits `[n, classes]`."""
    labels, probabilities, logits = [], [], []
    with tqdm(total=len(reader), desc=title, unit="image", leave=False) as bar:
        for start in range(0, len(reader), SERVED_BATCH):
            records = reader.records(np.arange(start, min(start + SERVED_BATCH, len(reader))))
            calibrated, before = served.answers([record.image for record in records])
            probabilities.append(calibrated)
            logits.append(before)
            labels += [record.label for record in records]
            bar.update(len(records))
    index = np.arange(len(reader), dtype=np.int64)
    predictions = _paired(reader, index, np.array(labels, dtype=np.int64), np.concatenate(probabilities))
    return predictions, np.concatenate(logits)


def _paired(
    reader: RecordReader,
    index: NDArray[np.int64],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
) -> Predictions:
    """Predictions in the order of the records. Raises `RuntimeError` if one is missing, doubled or mislabelled."""
    order = np.argsort(index, kind="stable")
    if not np.array_equal(index[order], np.arange(len(reader))):
        raise RuntimeError(
            f"Evaluation saw {len(index)} records with {len(set(index.tolist()))} numbers of {len(reader)}."
        )
    records = reader.records(index[order])
    if [record.label for record in records] != labels[order].tolist():
        raise RuntimeError("Evaluation paired a prediction with another record's label.")
    return Predictions(
        ids=tuple(record.id for record in records),
        groups=tuple(record.group for record in records),
        labels=labels[order],
        probabilities=probabilities[order],
    )


def evaluate_served(model: Path, dataset: Path, manifest: Manifest, split: str) -> dict[str, Any]:
    """The scores of an exported model on a split. Raises `RequestError` if model and dataset don't fit."""
    served = load_served(model)
    if served.classes != manifest.classes:
        raise cli.RequestError(
            f"The model at {model} knows the classes {', '.join(served.classes)}; the dataset at {dataset} has "
            f"{', '.join(manifest.classes)}. To fix it: name a dataset with the same classes."
        )
    predictions, logits = predict_served(served, RecordReader(dataset, manifest, split), title=split)
    return scores_of(predictions, logits, manifest)


def scores_of(predictions: Predictions, logits: NDArray[np.float32], manifest: Manifest) -> dict[str, Any]:
    """All that a report says of a split, with what the calibration changed."""
    before = replace(predictions, probabilities=apply_temperature(logits, 1.0))
    known = manifest.grouping.rule != NO_GROUPS
    return split_scores(predictions, manifest.classes, groups_known=known, uncalibrated=before)


@contextmanager
def checked_split(values: flags.FlagValues) -> Iterator[tuple[Path, Manifest]]:
    """The dataset of the command line, on this machine; one split of it is as it was sealed. Raises `RequestError`."""
    if not in_bucket(values.tfrecords):
        dataset = local_path("tfrecords", values.tfrecords) / values.organ
        manifest = Manifest.load(dataset)
        _check_records(manifest, values)
        check_sizes(dataset, manifest, values.split)
        check_contents(dataset, manifest, values.split)
        yield dataset, manifest
        return
    from trainer.staging import (  # only now: the client of Cloud Storage takes half a second
        BucketDatasets,
        fetched_again,
    )

    datasets = BucketDatasets(values.tfrecords, scratch.of_flags(values))
    manifest = datasets.manifest(values.organ)
    _check_records(manifest, values)
    datasets.reserve([manifest], values.split)
    tfrecords = datasets.stage(manifest, values.split)
    with fetched_again(tfrecords, values.tfrecords):
        yield tfrecords / values.organ, manifest


def _check_records(manifest: Manifest, values: flags.FlagValues) -> None:
    if manifest.splits[values.split].records == 0:
        raise cli.RequestError(
            f"{values.tfrecords}/{values.organ} has no {values.split} records. To fix it: name another --split."
        )


def as_text(metrics: dict[str, Any]) -> str:
    """The scores of a split for a person to read, with their 95 % intervals."""
    lines = [f"{name:>20}  {metrics[name]}" for name in ("n", "groups")]
    for name in (*SCORES, *AREAS):
        lines.append(f"{name:>20}  {_number(metrics[name])}  {_range(metrics['intervals'][name])}".rstrip())
    for name, row in metrics["per_class"].items():
        precision, recall = (_number(row[score]) for score in ("precision", "recall"))
        lines.append(f"{name:>20}  precision {precision}  recall {recall}  n {row['support']}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _range(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"({_number(interval[0])} – {_number(interval[1])})"


def main(argv: Sequence[str]) -> None:
    """Test the model of the command line."""
    if len(argv) > 1:
        raise cli.RequestError(f"Unexpected argument {argv[1]!r}. To fix it: flags begin with --, see --help.")
    values = flags.FLAGS
    with model_folder(values.model) as model, checked_split(values) as (dataset, manifest):
        metrics = evaluate_served(model, dataset, manifest, values.split)
    print(as_text(metrics), file=sys.stderr)
    print(json.dumps({values.split: metrics}))


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "An exported model: RUN/model, or the run's folder; on a disk or at gs://.")
    flags.DEFINE_string("tfrecords", None, "Folder of datasets, on a disk or at gs://.")
    flags.DEFINE_string("organ", None, "Which dataset of --tfrecords.")
    flags.DEFINE_enum("split", "test", list(SPLITS), "Which split to test on.")
    flags.mark_flags_as_required(["model", "tfrecords", "organ"])
    scratch.define_scratch_flags()
    flags.adopt_module_key_flags(scratch)  # for --help
    cli.run(main)

"""Train an image classifier on a sealed dataset, test it once on held-out images, and write report and model.

Usage: python -m trainer --organ=ORGAN --tfrecords=DIR --runs=DIR

  DIR of --tfrecords   holds  ORGAN/manifest.json and shards, as written by python -m data_pipeline
  DIR of --runs        gets   ORGAN/RUN/ with report.html, metrics.json, model/ (SavedModel), model.keras, checkpoints/
                              and TensorBoard events

Examples:
  python -m trainer --organ=cervix --tfrecords=tfrecords --runs=runs
  python -m trainer --organ=cervix --tfrecords=tfrecords --runs=runs --recipe=strong
  python -m trainer --organ=cervix --tfrecords=tfrecords --runs=runs --epochs=60 --patience=10 --precision=auto
  python -m trainer --organ=all --tfrecords=tfrecords --runs=runs --distribution=mirrored

Both may be in Cloud Storage. Datasets are fetched to --scratch, checked and kept there; checkpoints are uploaded while
training goes on, and the same command goes on from them on any machine:
  python -m trainer --organ=cervix --tfrecords=gs://lab/tfrecords --runs=gs://lab/runs --scratch=/mnt/ssd

All GPUs of the machine are used by default. Give the same command again to go on with a run that was interrupted, or to
be shown the report of one that is done. SIGTERM saves and ends the run with exit code 75.

Several machines train one model if each runs the same command with --num_workers and --worker_service in a Kubernetes
Indexed Job or a JobSet, or with TF_CONFIG anywhere. They wait for each other; if one is lost, all others end with 75.

Exit codes: 0 done, 2 the request is wrong, 75 stopped by SIGTERM or another worker was lost (run it again), anything
else a fault.
"""

from trainer.preemption import StopSignal, exit_when_stopped

exit_when_stopped()  # before the imports below, which take seconds

import os
import socket
from collections.abc import Sequence

from absl import flags

from data_pipeline import cli
from trainer import augment_config, learning_config, preflight, scratch
from trainer import train_flags
from trainer.addresses import find_workers
from trainer.allocation import keep_freed_memory
from trainer.recipe_files import apply_recipe


def main(argv: Sequence[str]) -> None:
    """Train on the organs of the command line, one after another."""
    values = flags.FLAGS
    apply_recipe(values)
    # Wrong requests end here, whichever organ they are about. Finished runs too: a strategy would wait for workers
    # that have ended long ago.
    configs = preflight.runs_to_do(values, argv[1:])
    if not configs:
        return
    keep_freed_memory()
    import tensorflow as tf  # takes seconds, and what imports it too

    from trainer import cluster
    from trainer.training import train_organ

    stop = StopSignal()
    tf.config.experimental.enable_op_determinism()
    workers = find_workers(configs[0], os.environ, hostname=socket.gethostname())
    with cluster.connected(configs, workers, stop) as strategy:
        preflight.check_batch(configs, replicas=strategy.num_replicas_in_sync)  # now GPUs count too
        for config in configs:
            report = train_organ(config, strategy, stop)
            print(f"Report: {report}", flush=True)


if __name__ == "__main__":
    train_flags.define_flags()
    for module in (train_flags, augment_config, learning_config, scratch):  # for --help
        flags.adopt_module_key_flags(module)
    cli.run(main)

"""A training step of the seed network, as the product takes it.

python -m tests.benchmarks.stepping PRECISION SIZE BATCH  # prints a line of JSON, as `peers.py` reads it
"""

import json
import sys
import time

import trainer  # noqa: F401  # isort: skip  # tells TensorFlow what to use, before it is imported

import keras
import numpy as np
import tensorflow as tf

from trainer.allocation import keep_freed_memory
from trainer.models import build_model
from trainer.step import make_train_step

CLASSES = 5
WARM_UP, STEPS = 2, 6


def measure(precision: str, size: int, batch_size: int) -> dict[str, object]:
    """Images a second and CPU time an image, with deterministic operations, as training has them."""
    keep_freed_memory()  # as the input does before the first step
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        model = build_model("seed", image_size=size, classes=CLASSES, precision=precision)
        optimizer = keras.optimizers.Adamax(1e-3)
        optimizer.build(model.trainable_variables)
    step = make_train_step(strategy, model, optimizer)
    random = np.random.default_rng(0)
    batch = {
        "image": tf.constant(random.random((batch_size, size, size, 3), dtype=np.float32)),
        "label": tf.constant(random.integers(0, CLASSES, batch_size)),
        "index": tf.range(batch_size, dtype=tf.int64),
        "weight": tf.fill([batch_size], np.float32(1 / batch_size)),
    }
    for _ in range(WARM_UP):
        np.asarray(step(batch, tf.constant(0.0)))
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        np.asarray(step(batch, tf.constant(0.0)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = STEPS * batch_size
    return {"images_per_s": count / wall, "cpu_ms": cpu / count * 1e3, "parameters": model.count_params()}


def main() -> None:
    precision, size, batch = sys.argv[1], *map(int, sys.argv[2:4])
    print(json.dumps(measure(precision, size, batch)))


if __name__ == "__main__":
    main()

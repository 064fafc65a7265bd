"""Which devices train, and the `tf.distribute` strategy that binds them.

    strategy = make_strategy(config.distribution, logical_cpus=0)
    layout = layout_of(strategy)

`auto` takes every GPU of this machine, or the CPU where there is none. A machine without a GPU can stand in for one
with several: `--logical_cpus=2` cuts the CPU into two devices, on which MirroredStrategy does what it does on GPUs.
"""

import json
import os

import tensorflow as tf

from data_pipeline.cli import RequestError, invalid_flag
from trainer.input_pipeline import Layout

AUTO, SINGLE, MIRRORED, MULTIWORKER = DISTRIBUTIONS = ("auto", "single", "mirrored", "multiworker")


def make_strategy(distribution: str, *, logical_cpus: int) -> tf.distribute.Strategy:
    """The strategy for `distribution`. Must be called before TensorFlow has used a device. Raises `RequestError`."""
    cpus = _logical_cpus(logical_cpus)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if distribution == MULTIWORKER or (distribution == AUTO and _workers_in_environment() > 1):
        return _multiworker()
    if distribution == MIRRORED or (distribution == AUTO and (len(gpus) > 1 or cpus > 1)):
        devices = [f"GPU:{i}" for i in range(len(gpus))] or [f"CPU:{i}" for i in range(cpus)]
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.OneDeviceStrategy("GPU:0" if gpus else "CPU:0")


def layout_of(strategy: tf.distribute.Strategy) -> Layout:
    """Which replicas this process feeds."""
    replicas = strategy.num_replicas_in_sync
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec():
        return Layout(replicas, 0, replicas)
    workers = resolver.cluster_spec().num_tasks("worker")
    local = replicas // workers
    return Layout(replicas, resolver.task_id * local, local)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files that all workers share."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.cluster_spec() or resolver.task_id == 0


def describe(strategy: tf.distribute.Strategy) -> str:
    """The devices in a few words, for the log and the report."""
    devices = [device.split("device:")[-1] for device in strategy.extended.worker_devices]
    several_hosts = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    name = "MultiWorkerMirroredStrategy" if several_hosts else type(strategy).__name__
    count = strategy.num_replicas_in_sync
    return f"{name} over {count} replica{'s' if count > 1 else ''}, here {', '.join(devices)}"


def _logical_cpus(wanted: int) -> int:
    """Cut the CPU into `wanted` devices; does nothing for 0 or where that is done already."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    there = tf.config.get_logical_device_configuration(cpu)
    if wanted > 1 and len(there or ()) != wanted:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * wanted)
        except RuntimeError as error:
            fix = "start a new process for another number of logical CPUs"
            raise invalid_flag("logical_cpus", expected=f"{len(there or ())}", received=wanted, fix=fix) from error
    return max(1, wanted)


def _workers_in_environment() -> int:
    """How many workers TF_CONFIG names. Raises `RequestError` for a cluster of any other kind."""
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        others = sorted(set(cluster) - {"worker"})
        workers = len(cluster.get("worker", []))
        index = task.get("index", -1)
    except (ValueError, AttributeError, TypeError) as error:
        raise _bad_tf_config("JSON", text) from error
    if others:
        raise _bad_tf_config(f"no task but workers, of which the first is the chief; found {', '.join(others)}", text)
    if workers and (task.get("type") != "worker" or index not in range(workers)):
        raise _bad_tf_config(f"a task of type worker with an index from 0 to {workers - 1}", text)
    return workers


def _bad_tf_config(expected: str, received: str) -> RequestError:
    fix = 'use {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
    return RequestError(f"Invalid value for `TF_CONFIG`. Expected {expected}. Received: {received!r}. To fix it: {fix}")


def _multiworker() -> tf.distribute.Strategy:
    if _workers_in_environment() == 0:
        raise _bad_tf_config("the addresses of all workers, for --distribution=multiworker", "")
    return tf.distribute.MultiWorkerMirroredStrategy()

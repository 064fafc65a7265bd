"""Which devices train, and the `tf.distribute` strategy that binds them.

    with connected(configs, workers, stop) as strategy:     # workers=None: this process trains alone
        layout = layout_of(strategy)

`auto` takes every GPU of this machine, or the CPU where there is none. A machine without a GPU can stand in for one
with several: `--logical_cpus=2` cuts the CPU into two devices, on which MirroredStrategy does what it does on GPUs.
Several workers are made sure of before (`meeting.py`) and watched from then on (`peers.py`): should one be lost, the
others end with exit code 75.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import tensorflow as tf

from data_pipeline.cli import FaultError, WorkerLost, invalid_flag, say
from trainer.addresses import Workers
from trainer.config import AUTO, MIRRORED, TrainConfig
from trainer.input_pipeline import Layout
from trainer.intervals import parse_seconds
from trainer.last_resort import exit_after
from trainer.meeting import key_of, meet
from trainer.peers import Peers
from trainer.preemption import StopSignal

CONNECT_S = 50.0  # so that no worker outlives another by a minute
SETTLE_S = {True: 3.0, False: 8.0}  # worker 0, then the others, to whom worker 0 says what it knows
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
LOST_WORDS = ("ollective", "/job:worker", "oordination", "onnection reset", "GRPC")


@contextmanager
def connected(
    configs: Sequence[TrainConfig], workers: Workers | None, stop: StopSignal
) -> Iterator[tf.distribute.Strategy]:
    """The strategy of a command line, for as long as all of its workers are there. From now on `stop` listens.

    Must be called before TensorFlow has used a device. Raises `WorkerLost`, `RequestError` and `FaultError`.
    """
    first = configs[0]
    timeout_s = parse_seconds("start_timeout", first.start_timeout)
    if workers is None:
        stop.listen()
        yield make_strategy(first.distribution, logical_cpus=first.logical_cpus)
        return
    with meet(workers, key_of(configs), timeout_s=timeout_s) as peers, lost_workers(peers, chief=workers.chief):
        strategy = make_strategy(
            first.distribution, logical_cpus=first.logical_cpus, workers=workers, timeout_s=timeout_s
        )
        stop.listen()  # only now: TensorFlow has taken the signal for itself
        self_test(strategy, workers, peers, timeout_s=timeout_s)
        yield strategy
        # Not before: if worker 0 is lost while it tests, it can't begin again without the others.
        with stop.at_once():
            peers.wait_for_chief()


def make_strategy(
    distribution: str, *, logical_cpus: int, workers: Workers | None = None, timeout_s: float = CONNECT_S
) -> tf.distribute.Strategy:
    """The strategy for `distribution`. Must be called before TensorFlow has used a device. Raises `RequestError`.

    `workers` have met, see `meeting.py`: should one be lost just now, the process ends with exit code 75.
    """
    cpus = _logical_cpus(logical_cpus)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if workers:
        return _multiworker(workers, timeout_s if gpus else min(timeout_s, CONNECT_S))
    if distribution == MIRRORED or (distribution == AUTO and (len(gpus) > 1 or cpus > 1)):
        devices = [f"GPU:{i}" for i in range(len(gpus))] or [f"CPU:{i}" for i in range(cpus)]
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.OneDeviceStrategy("GPU:0" if gpus else "CPU:0")


def self_test(strategy: tf.distribute.Strategy, workers: Workers, peers: Peers, *, timeout_s: float) -> None:
    """Add up over all workers what each is known to give.

    Raises `FaultError` for a wrong sum; ends the process with exit code 75 if there is none in time.
    """
    count = len(workers.addresses)
    layout = layout_of(strategy)
    answered = threading.Event()

    def watch() -> None:
        if not answered.wait(timeout_s):
            silent = ", ".join(peers.suspects()) or "it isn't known which"
            peers.leave(f"The workers' first sum has no answer after {timeout_s:g} s; silent: {silent}.")

    threading.Thread(target=watch, name="self-test", daemon=True).start()
    number = tf.constant(workers.index + 1.0)
    total = float(strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.identity(number)), axis=None))
    answered.set()
    expected = layout.local * count * (count + 1) / 2
    if total != expected:
        raise FaultError(
            f"The sum over {count} workers is {total:g} and not {expected:g}: what they learn would be wrong. To fix "
            "it: see that all have the same number of devices, the same TensorFlow and the same network library."
        )


@contextmanager
def lost_workers(peers: Peers, *, chief: bool) -> Iterator[None]:
    """TensorFlow's errors about a worker that has gone, as `WorkerLost`."""
    try:
        yield
    except tf.errors.OpError as error:
        if not _is_loss(error):
            raise
        threading.Event().wait(SETTLE_S[chief])  # who knows which it was ends this process
        silent = peers.suspects()
        who = f"Nothing is heard of {', '.join(silent)}" if silent else "Another worker was lost"
        what = str(error.message).strip().splitlines()[0][:500]
        raise WorkerLost(
            f"{who}, says TensorFlow: {what} This process ends with exit code 75: started again, all of them go on "
            "from the last checkpoint."
        ) from error


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


def _multiworker(workers: Workers, timeout_s: float) -> tf.distribute.Strategy:
    if len(workers.addresses) > 1:
        say(f"All workers are there. Connecting TensorFlow's; if it takes more than {timeout_s:g} s, exit code 75.")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(workers.addresses)}),
        task_type="worker",
        task_id=workers.index,
        rpc_layer="grpc",
    )
    # It waits for all others in C++, holding Python's lock: no thread of ours could end it.
    with exit_after(timeout_s):
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def _is_loss(error: tf.errors.OpError) -> bool:
    """An internal error is one if it comes from what connects workers."""
    if isinstance(error, tf.errors.InternalError | tf.errors.UnknownError | tf.errors.FailedPreconditionError):
        return any(word in str(error) for word in LOST_WORDS)
    return isinstance(error, LOST)

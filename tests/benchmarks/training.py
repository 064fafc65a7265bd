"""How fast training goes and what it takes of memory: `python -m tests.benchmarks.training` prints the table.

The loop is that of the product; the bare step, on one batch again and again, takes turns with its epochs: it runs where
validation would, after a pause in which the input fills its buffers.
"""

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trainer  # noqa: F401  # isort: skip  # tells TensorFlow what to use, before it is imported

import keras
import numpy as np
import tensorflow as tf

from data_pipeline.conversion import Conversion
from data_pipeline.grouping import parse_rule
from data_pipeline.manifest import Manifest
from data_pipeline.settings import Settings
from data_pipeline.sources import open_sources
from data_pipeline.stages import convert
from tests.benchmarks.comparison import TURNS, AtLeast, AtMost, Row, table
from tests.benchmarks.smears import ORGAN, draw_jpegs
from tests.benchmarks.training_epoch import epoch_rows
from tests.benchmarks.training_memory import part_rows, size_rows
from trainer.augment_config import Augmentation
from trainer.checkpoints import Checkpoints, Progress
from trainer.devices import resolve_precision
from trainer.input_pipeline import Layout, TrainInput, train_batches
from trainer.intervals import Interval
from trainer.loop import TrainJob, train
from trainer.models import build_model
from trainer.order import TrainOrder
from trainer.preemption import StopSignal
from trainer.records import RecordReader
from trainer.step import make_train_step
from trainer.watchdog import Watchdog

SIZE_PX, BATCH, STEPS = 128, 32, 20
PAUSE_S = 1.0
EPOCH_TURNS, MEMORY_TURNS = 3, 1
SCORE = {"log_loss": 1.0, "accuracy": 0.5, "balanced_accuracy": 0.5, "macro_f1": 0.5}


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds, and seconds of CPU time of all threads."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> "Clock":
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: "Clock") -> "Clock":
        return Clock(self.wall_s - start.wall_s, self.cpu_s - start.cpu_s)


class Beats(Watchdog):
    """Takes the time between the first step of an epoch and its validation, as training tells its watchdog of them."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.epochs: list[Clock] = []
        self._began: Clock | None = None

    def beat(self, kind: str, detail: str = "", *, compiles: bool = False) -> None:
        if kind == "step" and self._began is None:
            self._began = Clock.now()
        elif kind == "validation" and self._began is not None:
            self.epochs.append(Clock.now().since(self._began))
            self._began = None


@dataclass
class Turns:
    """What the loop and the bare step took in each turn, and the share of the loop's time that it waited for data."""

    loop: list[Clock] = field(default_factory=list)
    bare: list[Clock] = field(default_factory=list)
    waiting_ms: list[float] = field(default_factory=list)


def loop_and_step(reader: RecordReader, folder: Path, precision: str, *, turns: int) -> Turns:
    """The loop's epochs and the bare step in turns, the first of which isn't counted."""
    order = TrainOrder(STEPS * BATCH, BATCH, seed=0)
    assert order.records <= len(reader)
    how = TrainInput(SIZE_PX, Augmentation(), seed=0)
    strategy = tf.distribute.OneDeviceStrategy("GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0")
    batch = next(iter(train_batches(reader, order, how, Layout(), start_step=0, stop_step=1)))
    step = make_train_step(strategy, *_network(strategy, precision))
    beats, result = Beats(), Turns()
    rows: list[dict[str, float]] = []

    def bare() -> dict[str, Any]:
        time.sleep(PAUSE_S)
        np.asarray(step(batch, tf.constant(0.0)))
        started = Clock.now()
        sums = [step(batch, tf.constant(0.0)) for _ in range(STEPS)]
        np.asarray(sums[-1])
        result.bare.append(Clock.now().since(started))
        return SCORE

    model, optimizer = _network(strategy, precision)
    job = TrainJob(
        strategy=strategy,
        layout=Layout(),
        model=model,
        optimizer=optimizer,
        reader=reader,
        order=order,
        how=how,
        epochs=turns + 1,
        patience=0,
        monitor="balanced_accuracy",
        checkpoint_every=Interval(),
        checkpoints=Checkpoints(folder, model, optimizer),
        validate=bare,
        on_epoch=rows.append,
        stop=StopSignal(),
        chief=True,
        watchdog=beats,
    )
    train(job, Progress())
    result.loop = beats.epochs[1:]
    result.bare = result.bare[1:]
    result.waiting_ms = [row["waiting_share"] * row["ms_per_step"] for row in rows[1:]]
    return result


def _network(strategy: tf.distribute.Strategy, precision: str) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_model("seed", image_size=SIZE_PX, classes=5, precision=precision)
        optimizer = keras.optimizers.Adamax()
        optimizer.build(model.trainable_variables)
    return model, optimizer


def loop_rows(folder: Path, *, turns: int) -> list[Row]:
    """The loop against the bare step, in each precision that this machine is fast in."""
    images = draw_jpegs(folder, slides=8, tiles=30, image_size=SIZE_PX)
    source = open_sources(str(images), [ORGAN])[ORGAN]
    converted = Conversion(ORGAN, source, folder, Settings(image_size=SIZE_PX), parse_rule("auto"))
    convert(converted)
    reader = RecordReader(converted.target, Manifest.load(converted.target), "train")
    rows = []
    for precision in dict.fromkeys(("float32", resolve_precision("auto"))):
        took = loop_and_step(reader, folder / f"checkpoints-{precision}", precision, turns=turns)
        images_seen = STEPS * BATCH
        loop, bare = ([images_seen / one.wall_s for one in clocks] for clocks in (took.loop, took.bare))
        loop_cpu, bare_cpu = ([1e6 * one.cpu_s / images_seen for one in clocks] for clocks in (took.loop, took.bare))
        whole_ms = [1e3 * one.wall_s / STEPS for one in took.loop]
        name = f"{precision}, {SIZE_PX} px, batch {BATCH}"
        rows += [
            Row(f"training loop against the bare step, {name}", "images/s", loop, bare, AtLeast(0.95)),
            Row(f"the same, CPU time an image, {name}", "µs CPU", loop_cpu, bare_cpu),
            Row(f"waiting for data, of the time of a step, {name}", "ms", took.waiting_ms, whole_ms, AtMost(0.02)),
        ]
    return rows


def run(*, turns: int = TURNS, epoch_turns: int = EPOCH_TURNS, memory_turns: int = MEMORY_TURNS) -> str:
    """The group's section of RESULTS.md."""
    tf.config.experimental.enable_op_determinism()  # as training does
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = loop_rows(folder / "loop", turns=turns)
        rows += epoch_rows(folder / "epoch", turns=epoch_turns)
        rows += size_rows(folder / "size", turns=memory_turns)
        rows += part_rows(folder / "part", turns=memory_turns)
    return (
        f"The notebooks' network. Medians (lowest – highest) of {turns} turns for the loop, {epoch_turns} for epochs "
        f"and {memory_turns} for memory. An epoch of theirs is `ImageDataGenerator.flow_from_directory` with "
        "`model.fit`, batch 128, 256 px, the same files in the same splits, TensorFlow as it is by default; memory "
        "is the highest resident set size of the program, from its start to its report.\n\n"
        f"{table(rows)}"
    )


if __name__ == "__main__":
    print(run())

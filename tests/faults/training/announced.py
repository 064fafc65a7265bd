"""The trainer, run as it is, except that it notes what it does and says when it has come to a given moment.

    FAULTS_FOLDER=notes FAULTS_WORKER=0 FAULTS_MOMENT=step@9 python -m tests.faults.training.announced --organ=gland …

All flags are the trainer's. Every step is noted in `notes/journal-0.jsonl`: the records it consumed, what it computed,
and a digest of all weights after it. At the moment, `POINT@COUNT`, the file `notes/reached-0` appears, and the process
waits there for `notes/sent`, which says that the signal is on its way; then it goes on. Nothing that is computed
changes: functions of the trainer are wrapped as their modules are loaded, after the program has begun as ever.
"""

import contextlib
import hashlib
import importlib.abc
import importlib.machinery
import json
import os
import runpy
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

WAIT_S = 60.0  # for the signal, before the process gives up and goes on
POLL_S = 0.002


class Here:
    """What this process notes and announces."""

    def __init__(self, folder: Path, worker: int, moment: str) -> None:
        self._folder, self._worker = folder, worker
        self._point, _, count = moment.partition("@")
        self._count = int(count or 1)
        self._seen = Counter[str]()
        self._journal = os.open(folder / f"journal-{worker}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, **values: Any) -> None:
        """One line of the journal, in one write, so that a kill can't cut it."""
        os.write(self._journal, (json.dumps(values | {"time": time.monotonic()}) + "\n").encode())

    def come(self, point: str, count: int = 0) -> None:
        """The process is at `point`, for the `count`-th time, or once more than before if that isn't known."""
        self._seen[point] += 1
        if point == self._point and (count or self._seen[point]) == self._count:
            self._point = ""
            self._announce()

    def watches(self, points: Sequence[str]) -> bool:
        return self._point in points

    def _announce(self) -> None:
        (self._folder / f"reached-{self._worker}").touch()
        deadline = time.monotonic() + WAIT_S
        while not (self._folder / "sent").exists() and time.monotonic() < deadline:
            time.sleep(POLL_S)


def watch_loop(loop: Any, here: Here) -> None:
    """`step`: before step COUNT. `stepped`: one is made, not counted yet."""
    make = loop.make_train_step

    def make_watched(strategy: Any, model: Any, optimizer: Any, *rest: Any, **named: Any) -> Callable[..., Any]:
        step = make(strategy, model, optimizer, *rest, **named)

        def watched(batch: Any, *arguments: Any) -> Any:
            number = int(optimizer.iterations.numpy()) + 1
            here.come("step", number)
            result = step(batch, *arguments)
            here.note(
                step=number,
                records=_records(strategy, batch),
                computed=[float(value) for value in result][:3],
                digest=_digest([*model.variables, *optimizer.variables]),
            )
            here.come("stepped")
            return result

        return watched

    loop.make_train_step = make_watched


def watch_step(module: Any, here: Here) -> None:
    """`compile`: while the step is traced."""
    import tensorflow as tf

    logits_of = module.logits_of

    def logits_watched(model: Any) -> Any:
        network = logits_of(model)

        def call(*arguments: Any, **named: Any) -> Any:
            here.come("compile")
            return network(*arguments, **named)

        return tf.autograph.experimental.do_not_convert(call)

    module.logits_of = logits_watched


def _records(strategy: Any, batch: Any) -> list[int]:
    """The numbers of the records that this process puts into the step; padding has no weight."""
    parts = (strategy.experimental_local_results(batch[name]) for name in ("index", "weight"))
    return [int(i) for index, weight in zip(*parts, strict=True) for i in index.numpy()[weight.numpy() > 0]]


def _digest(variables: Sequence[Any]) -> str:
    import keras

    digest = hashlib.sha256()
    for variable in variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()


def watch_evaluation(evaluate: Any, here: Here) -> None:
    """`validation`: between two batches of it. `test`: the test split is about to be opened."""
    make, predict_served = evaluate.make_evaluation_step, evaluate.predict_served

    def make_watched(*arguments: Any) -> Callable[..., Any]:
        step = make(*arguments)

        def watched(batch: Any) -> Any:
            tables = step(batch)
            here.come("validation")
            return tables

        return watched

    def predict_watched(*arguments: Any, title: str) -> Any:
        if title == "test":
            here.come("test")
        return predict_served(*arguments, title=title)

    evaluate.make_evaluation_step, evaluate.predict_served = make_watched, predict_watched


def watch_run_folder(run_folder: Any, here: Here) -> None:
    """`epoch`: an epoch is over and logged, not yet saved."""
    log, say_nothing = run_folder.EpochLog.__call__, run_folder.say_nothing

    def log_watched(self: Any, row: Any) -> None:
        log(self, row)
        here.come("epoch")

    def nothing_watched(row: Any) -> None:
        say_nothing(row)
        here.come("epoch")

    run_folder.EpochLog.__call__, run_folder.say_nothing = log_watched, nothing_watched


def watch_report(report: Any, here: Here) -> None:
    """`report`: all numbers are on the disk, the report is not."""
    write = report.write_report

    def write_watched(*arguments: Any) -> Any:
        here.come("report")
        return write(*arguments)

    report.write_report = write_watched


def watch_models(models: Any, here: Here) -> None:
    """`loading`: the program is still being imported."""
    here.come("loading")


def watch_cluster(cluster: Any, here: Here) -> None:
    """`devices`: TensorFlow has its devices and knows the other workers; nothing is loaded yet."""
    make = cluster.make_strategy

    def make_watched(*arguments: Any, **named: Any) -> Any:
        strategy = make(*arguments, **named)
        here.come("devices")
        return strategy

    cluster.make_strategy = make_watched


PATCHES = {
    "trainer.cluster": watch_cluster,
    "trainer.loop": watch_loop,
    "trainer.step": watch_step,
    "trainer.evaluate": watch_evaluation,
    "trainer.run_folder": watch_run_folder,
    "trainer.report": watch_report,
    "trainer.models": watch_models,
}


class Patching(importlib.abc.MetaPathFinder):
    """Wraps what is to be watched in a module as soon as that is loaded."""

    def __init__(self, here: Here) -> None:
        self._here = here

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name in PATCHES else None
        if spec and spec.loader:
            load = spec.loader.exec_module

            def load_and_wrap(module: ModuleType) -> None:
                load(module)
                PATCHES[name](module, self._here)

            spec.loader.exec_module = load_and_wrap  # type: ignore[method-assign]
        return spec


def disk_point(event: str, arguments: tuple[Any, ...]) -> str:
    """Which change to the disk this is, of those that Python announces before it makes them."""
    if event == "os.rename":
        source, target = (Path(os.fsdecode(path)) for path in arguments[:2])
        if source.name.startswith(".step-"):
            return "save-rename"
        if target.name == "last.json":
            return "save-pointer"
        return {"model": "export", "model.keras": "export-keras"}.get(target.name, "")
    if event == "shutil.rmtree" and Path(os.fsdecode(arguments[0])).name.startswith("step-"):
        return "save-prune" if Path(os.fsdecode(arguments[0])).exists() else ""
    if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
        path = Path(arguments[0])
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
        return "save-state" if writes and "state.json" in path.name else ""
    return ""


DISK_POINTS = ("save-state", "save-rename", "save-pointer", "save-prune", "export", "export-keras")


def main() -> None:
    folder, worker = Path(os.environ["FAULTS_FOLDER"]), int(os.environ["FAULTS_WORKER"])
    here = Here(folder, worker, os.environ.get("FAULTS_MOMENT", ""))
    here.note(started=os.getpid())
    sys.meta_path.insert(0, Patching(here))
    if here.watches(DISK_POINTS):

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            point = ""
            with contextlib.suppress(TypeError):  # a path given as a file descriptor
                point = disk_point(event, arguments)
            if point:
                here.come(point)

        sys.addaudithook(watch)
    runpy.run_module("trainer", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

"""What a run needs to go on as if nothing had happened, saved so that a crash at any moment loses nothing published.

    checkpoints = Checkpoints(folder, model, optimizer)
    progress = checkpoints.restore_last() or Progress()
    checkpoints.save(progress)
    checkpoints.restore_best(progress)

A checkpoint is a folder `step-00001234/` with the weights of model and optimizer and `state.json`, which holds the
progress and the SHA-256 of every file. It is written beside its place, flushed, renamed, and only then pointed to by
`last.json`. A checkpoint whose files don't match its state is passed over for the one before.
"""

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import keras
import tensorflow as tf

from data_pipeline.cli import RequestError
from data_pipeline.storage import sync_folder, write_atomic

STATE = "state.json"
WEIGHTS = "weights"
LAST = "last.json"
KEEP_LAST = 2


@dataclass(frozen=True)
class Progress:
    """Where training stands after `step` steps.

    `sums` are those of the epoch under way: loss, hits, records; `epoch_seconds` is the time spent on its steps. `best`
    is (value, −loss) of the best epoch, to compare the next one with; `best_step` names the checkpoint made after it.
    """

    step: int = 0
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    history: tuple[dict[str, float], ...] = ()
    best_epoch: int = 0
    best_step: int = 0
    best: tuple[float, ...] = ()
    epoch_seconds: float = 0.0
    finished: bool = False

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict` and JSON. Raises `TypeError` or `KeyError` for anything else."""
        lists = {name: tuple(values[name]) for name in ("sums", "history", "best")}
        return cls(**values | lists)


class Checkpoints:
    """The checkpoints of one run, in `folder`."""

    def __init__(self, folder: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        self._folder = folder
        self._tracked = tf.train.Checkpoint(model=model, optimizer=optimizer)

    def clean(self) -> None:
        """Remove what a killed process left half written. Only for the process that saves."""
        for leftover in self._folder.glob(".step-*.tmp"):
            shutil.rmtree(leftover)

    def save(self, progress: Progress) -> None:
        """Write and publish a checkpoint, then remove those that are neither recent nor the best."""
        name = _name(progress.step)
        aside = self._folder / f".{name}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        self._tracked.write(str(aside / WEIGHTS))
        files = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        write_atomic(aside / STATE, json.dumps({"progress": asdict(progress), "files": files}, indent=1).encode())
        _flush(aside)
        target = self._folder / name
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
        sync_folder(self._folder)
        write_atomic(self._folder / LAST, json.dumps({"checkpoint": name}).encode())
        # Later ones are damaged, or this one would not have been made.
        later = [other for other in self._names() if other > name]
        for old in later + [other for other in self._names() if other <= name][KEEP_LAST:]:
            if old != _name(progress.best_step):
                shutil.rmtree(self._folder / old)

    def restore_last(self) -> Progress | None:
        """Load the newest undamaged checkpoint; None if there is none."""
        for name in self._newest_first():
            progress = self._restore(name)
            if progress:
                return progress
            print(f"Checkpoint {self._folder / name} is damaged and is passed over.", file=sys.stderr, flush=True)
        return None

    def restore_best(self, progress: Progress) -> None:
        """Load the weights of the best epoch. Raises `RequestError` if they are gone or damaged."""
        name = _name(progress.best_step)
        if self._restore(name) is None:
            raise RequestError(
                f"The best checkpoint, {self._folder / name}, is missing or damaged, and can't be made up for. "
                f"To fix it: remove {self._folder.parent} and train again."
            )

    def _restore(self, name: str) -> Progress | None:
        progress = _read(self._folder / name)
        if progress:
            self._tracked.read(str(self._folder / name / WEIGHTS)).assert_consumed()
        return progress

    def _names(self) -> list[str]:
        return sorted((path.name for path in self._folder.glob("step-*")), reverse=True)

    def _newest_first(self) -> list[str]:
        """All checkpoints, except those beyond the pointer: they were never published."""
        try:
            last = str(json.loads((self._folder / LAST).read_text())["checkpoint"])
        except (OSError, ValueError, KeyError, TypeError):
            return self._names()
        return [name for name in self._names() if name <= last]


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _read(folder: Path) -> Progress | None:
    """The progress of a checkpoint; None if any of its files isn't what was written."""
    try:
        state = json.loads((folder / STATE).read_text())
        if any(_sha256(folder / name) != digest for name, digest in state["files"].items()):
            return None
        return Progress.from_json(state["progress"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)

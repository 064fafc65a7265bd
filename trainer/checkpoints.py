"""What a run needs to go on as if nothing had happened, saved so that a crash at any moment loses nothing published.

    checkpoints = Checkpoints(folder, model, optimizer)
    progress = checkpoints.restore_last() or Progress()
    checkpoints.save(progress, best=True)

A checkpoint is a folder `step-00001234/` with the weights of model and optimizer and `state.json`, which holds the
progress and the SHA-256 of every file. It is written beside its place, flushed, renamed, and only then pointed to by
`last.json` (and `best.json`). A checkpoint whose files don't match its state is passed over for the one before.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import keras
import tensorflow as tf

from data_pipeline.storage import sync_folder, write_atomic

STATE = "state.json"
WEIGHTS = "weights"
LAST, BEST = "last", "best"
KEEP_LAST = 2


@dataclass(frozen=True)
class Progress:
    """Where training stands after `step` steps.

    `sums` are those of the epoch under way: loss, hits, records. `best` is (value, −loss) of the best epoch, to compare
    the next one with, `epoch_seconds` the time spent on the steps of the epoch under way.
    """

    step: int = 0
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    history: tuple[dict[str, float], ...] = ()
    best_epoch: int = 0
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

    def save(self, progress: Progress, *, best: bool = False) -> None:
        """Write and publish a checkpoint; with `best` also as the best one so far."""
        name = f"step-{progress.step:08d}"
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
        for pointer in (LAST, BEST) if best else (LAST,):
            write_atomic(self._folder / f"{pointer}.json", json.dumps({"checkpoint": name}).encode())
        self._remove_old()

    def restore_last(self) -> Progress | None:
        """Load the newest undamaged checkpoint; None if there is none."""
        return self._restore(self._newest_first())

    def restore_best(self) -> Progress | None:
        """Load the weights of the best epoch; None if they are gone or damaged."""
        return self._restore(iter([name] if (name := self._pointed_to(BEST)) else []))

    def peek(self) -> Progress | None:
        """The progress of the newest undamaged checkpoint, without loading it."""
        for name in self._newest_first():
            progress = _read(self._folder / name)
            if progress:
                return progress
        return None

    def _restore(self, names: Iterator[str]) -> Progress | None:
        for name in names:
            progress = _read(self._folder / name)
            if progress:
                self._tracked.read(str(self._folder / name / WEIGHTS)).assert_consumed()
                return progress
            print(f"Checkpoint {self._folder / name} is damaged and is passed over.", file=sys.stderr, flush=True)
        return None

    def _newest_first(self) -> Iterator[str]:
        last = self._pointed_to(LAST)
        names = sorted((path.name for path in self._folder.glob("step-*")), reverse=True)
        # What lies beyond the pointer was never published.
        yield from (name for name in names if last is None or name <= last)

    def _pointed_to(self, pointer: str) -> str | None:
        try:
            return str(json.loads((self._folder / f"{pointer}.json").read_text())["checkpoint"])
        except (OSError, ValueError, KeyError):
            return None

    def _remove_old(self) -> None:
        names = sorted((path.name for path in self._folder.glob("step-*")), reverse=True)
        for name in names[KEEP_LAST:]:
            if name != self._pointed_to(BEST):
                shutil.rmtree(self._folder / name)


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

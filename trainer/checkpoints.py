"""What a run needs to go on as if nothing had happened, saved so that a crash at any moment loses nothing published.

    checkpoints = Checkpoints(folder, model, optimizer, Identity(manifest.fingerprint, config.settings()))
    progress = checkpoints.restore_last() or Progress()
    checkpoints.save(progress)
    checkpoints.restore_best(progress)

A checkpoint is a folder `step-00001234/` with the weights of model, optimizer and average, and `state.json`: the
progress, whose run it is, and the SHA-256 of every file and of itself. It is written beside its place, flushed,
renamed, and only then pointed to by `last.json`. Nothing published is ever written over: a second checkpoint of a step
is `step-00001234-2`. One that isn't as it was written is passed over for the one before; one of another run is refused.
"""

import json
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data_pipeline.cli import RequestError, say
from data_pipeline.storage import TEMPORARY, errors_naming, file_sha256, flush, sync_folder, write_atomic
from trainer.published import LAST, Name, kept_with, names_in, read_pointer, write_pointer
from trainer.sealed_state import STATE, DamagedError, read_whole, sealed
from trainer.uploads import NoUploads, Uploads

FORMAT = 4
WEIGHTS = "weights"
KEEP_LAST = 2

Snapshot = tuple[NDArray[Any], ...]


class NotFiniteError(RequestError):
    """The weights, or what the optimizer remembers, hold NaN or Inf: not worth saving."""


@dataclass(frozen=True)
class Progress:
    """Where training stands after `step` steps.

    `sums` are those of the epoch under way: loss, hits, records; `epoch_seconds` is the time spent on its steps,
    `waiting_seconds` the part of it in which no batch was ready. `best`
    is (value, −loss) of the best epoch, to compare the next one with; `best_step` names the checkpoint made after it.
    `rollbacks` counts how often training went back and halved the learning rate.
    """

    step: int = 0
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    history: tuple[dict[str, float], ...] = ()
    best_epoch: int = 0
    best_step: int = 0
    best: tuple[float, ...] = ()
    epoch_seconds: float = 0.0
    waiting_seconds: float = 0.0
    finished: bool = False
    rollbacks: int = 0

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict` and JSON. Raises `TypeError` or `KeyError` for anything else."""
        lists = {name: tuple(values[name]) for name in ("sums", "history", "best")}
        return cls(**values | lists)


@dataclass(frozen=True)
class Identity:
    """Whose checkpoints these are: the fingerprint of the dataset, and the settings that decide the result."""

    dataset: str
    settings: dict[str, Any]

    def differences(self, other: dict[str, Any]) -> list[str]:
        """What is not the same in `other`, an identity that was read back from JSON."""
        ours, theirs = json.loads(json.dumps(self.settings)), other["settings"]
        names = sorted({*ours, *theirs})
        changed = [f"--{n} was {theirs.get(n)!r} and is {ours.get(n)!r}" for n in names if ours.get(n) != theirs.get(n)]
        if other["dataset"] != self.dataset:
            changed.append(f"the dataset was {other['dataset'][:12]} and is {self.dataset[:12]}")
        return changed


class Checkpoints:
    """The checkpoints of one run, in `folder`. Without an `identity`, those of whatever run are taken."""

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        identity: Identity | None = None,
        uploads: Uploads | None = None,
        average: keras.Model | None = None,
    ) -> None:
        self.folder = folder
        self.uploads: Uploads = uploads or NoUploads()
        self._identity = identity
        more = {"average": average} if average else {}
        self._tracked = tf.train.Checkpoint(model=model, optimizer=optimizer, **more)
        self._variables = (*model.variables, *optimizer.variables, *(average.variables if average else ()))

    def clean(self) -> None:
        """Remove what a killed process left unfinished or unpublished. Only for the process that saves."""
        for leftover in self.folder.glob(f".*{TEMPORARY}"):
            _remove(leftover)
        last = read_pointer(self.folder)
        for name in names_in(self.folder) if last else ():
            if last and name > last:
                _remove(self.folder / str(name))

    def save(self, progress: Progress, *, keep: Collection[int] = ()) -> None:
        """Write and publish a checkpoint, then remove those that aren't among the last, the best or of steps `keep`.

        Raises `NotFiniteError`, and `OSError` or `tf.errors.OpError` when the disk refuses; what it wrote is gone then.
        """
        if not all(np.isfinite(_to_numpy(variable)).all() for variable in self._variables):
            raise NotFiniteError(
                f"The weights after step {progress.step} aren't finite: training has diverged, and they are not worth "
                "saving. To fix it: a smaller --learning_rate. The last good checkpoint is kept."
            )
        names = (*names_in(self.folder), *self.uploads.taken())
        there = [name.generation for name in names if name.step == progress.step]
        name = Name(progress.step, max(there, default=0) + 1)
        target, aside = self.folder / str(name), self.folder / f".{name}{TEMPORARY}"
        try:
            self._write(aside, progress)
            aside.rename(target)
            sync_folder(self.folder)
            write_pointer(self.folder, name)
        except BaseException:
            # What stays of each failed try would fill a full disk further.
            _remove(aside)
            _remove(target)
            raise
        self._prune(name, {*keep, progress.best_step})
        self.uploads.saved({*keep, progress.best_step})

    def _write(self, aside: Path, progress: Progress) -> None:
        _remove(aside)
        aside.mkdir(parents=True)
        self._tracked.write(str(aside / WEIGHTS))
        files = sorted(aside.iterdir())
        for path in files:
            with errors_naming(path):
                flush(path)
        state = {
            "format": FORMAT,
            "identity": asdict(self._identity) if self._identity else None,
            "progress": asdict(progress),
            "files": {path.name: file_sha256(path) for path in files},
        }
        write_atomic(aside / STATE, sealed(state).encode())

    def _prune(self, newest: Name, keep: Collection[int]) -> None:
        """Later ones are damaged or of a way that was given up, or the newest would not have been made."""
        earlier = [name for name in names_in(self.folder) if name.step < newest.step]
        kept = {*earlier[: KEEP_LAST - 1], *kept_with(newest, earlier, keep)}
        for name in names_in(self.folder):
            if name not in kept:
                _remove(self.folder / str(name))

    def restore_last(self) -> Progress | None:
        """Load the newest undamaged checkpoint; None if there is none. Raises `RequestError` for one of another run."""
        names, last = names_in(self.folder), read_pointer(self.folder)
        if names and last is None:
            say(f"{self.folder / LAST} doesn't name a checkpoint that is there; the newest whole one is used.")
        return self._restore(names, up_to=last)

    def restore_step(self, step: int) -> Progress | None:
        """Load the checkpoint of this step; None if there is none that is whole."""
        names = [name for name in names_in(self.folder) if name.step == step]
        return self._restore(names, up_to=read_pointer(self.folder))

    def restore_best(self, progress: Progress) -> None:
        """Load the weights of the best epoch. Raises `RequestError` if they are gone or damaged."""
        if self.restore_step(progress.best_step) is None:
            raise RequestError(
                f"The best checkpoint, {self.folder / str(Name(progress.best_step))}, is missing or damaged, and can't "
                f"be made up for. To fix it: remove {self.folder.parent} and train again."
            )

    def _restore(self, names: list[Name], *, up_to: Name | None) -> Progress | None:
        """Load the first of `names` that is whole; those beyond the pointer were never published."""
        for name in names:
            if up_to is None or name <= up_to:
                folder = self.folder / str(name)
                try:
                    progress = self._read(folder, name.step)
                except DamagedError as damage:
                    say(f"Checkpoint {folder} is damaged and is passed over for the one before: {damage}.")
                    continue
                self._tracked.read(str(folder / WEIGHTS)).assert_consumed()
                return progress
        return None

    def _read(self, folder: Path, step: int) -> Progress:
        """The progress of a checkpoint, all of whose files have been checked."""
        state = read_whole(folder)
        self._check_ours(folder, state)
        progress = Progress.from_json(state["progress"])
        if progress.step != step:
            raise DamagedError(f"it is the one of step {progress.step}")
        return progress

    def _check_ours(self, folder: Path, state: dict[str, Any]) -> None:
        fix = "give another --run, or take that folder away"
        if state["format"] != FORMAT:
            changed = [f"its format is {state['format']}, this program's {FORMAT}"]
        elif self._identity is None:
            changed = []
        else:
            changed = self._identity.differences(state["identity"] or {"dataset": "", "settings": {}})
        if changed:
            raise RequestError(f"The checkpoint {folder} is of another run: {'; '.join(changed)}. To fix it: {fix}.")

    def snapshot(self) -> Snapshot:
        """A copy of all that is saved, in the memory of this machine."""
        return tuple(_to_numpy(variable) for variable in self._variables)

    def load(self, snapshot: Snapshot) -> None:
        """Go back to a copy."""
        for variable, value in zip(self._variables, snapshot, strict=True):
            variable.assign(value)

    def save_snapshot(self, snapshot: Snapshot, progress: Progress, *, keep: Collection[int] = ()) -> None:
        """Save what was, as `save` would have done then."""
        now = self.snapshot()
        self.load(snapshot)
        try:
            self.save(progress, keep=keep)
        finally:
            self.load(now)


def _to_numpy(variable: keras.Variable) -> NDArray[Any]:
    """A copy of its own."""
    return np.asarray(tf.convert_to_tensor(variable).numpy())


def _remove(path: Path) -> None:
    """Take away a file, a link or a folder. One that the disk doesn't let go of stays: it is never read."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

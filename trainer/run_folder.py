"""The folder of a run: whose it is, and what is logged there after each epoch.

open_run(folder, config, dataset=manifest.fingerprint, chief=True)
log = EpochLog(folder, epochs=30)
log({"epoch": 1, "train_loss": 1.2, ...})
"""

import errno
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipeline import cli
from data_pipeline.storage import exclusive, in_bucket, local_path, write_atomic
from trainer.config import TrainConfig
from trainer.pace import describe

CONFIG_NAME = "config.json"
LOCK = ".lock"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.json"
MODEL = "model"
SAVED_MODEL = "saved_model.pb"
REPORT = "report.html"
TENSORBOARD = "tensorboard"
SERVING = "serving"
CARD = "MODEL_CARD.md"
PREDICTIONS = "predictions.csv"
TFLITE, TFLITE_LABELS = f"{MODEL}.tflite", f"{MODEL}.labels.txt"
RESULTS = (METRICS, REPORT, CARD, PREDICTIONS, f"{MODEL}/{SAVED_MODEL}", f"{MODEL}.keras")
PROBE_BYTES = 1 << 20  # what a disk must take at the least; checkpoints are larger, but how much depends on the network


def open_run(folder: Path, config: TrainConfig, *, dataset: str, chief: bool) -> None:
    """Make the run's folder, or check that the one there is of the same settings and data. Raises `RequestError`."""
    path = folder / CONFIG_NAME
    if has_begun(folder):
        check_same(folder, config, dataset=dataset)
    elif chief:
        ours = {"settings": config.settings(), "dataset": dataset, "command": config.command()}
        try:
            write_atomic(path, (json.dumps(ours, indent=1) + "\n").encode())
        except OSError as error:
            raise _not_writable(folder, error) from error


def has_begun(folder: Path) -> bool:
    """Whether there is a run that can be gone on with. Raises `RequestError` if there is something else."""
    try:
        if any((folder / name).exists() for name in (CONFIG_NAME, CHECKPOINTS)):
            return True
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError as error:  # a name too long, say
        raise _not_writable(folder, error) from error
    if not there.is_dir():
        fix = "name another folder, or take the file out of the way"
        raise cli.invalid_flag(
            "runs", expected=f"no file in place of the folder {there}", received=str(folder), fix=fix
        )
    return False


def check_same(folder: Path, config: TrainConfig, *, dataset: str) -> None:
    """Raises `RequestError`, naming each difference, if the run in `folder` is of other settings or data."""
    try:
        data = (folder / CONFIG_NAME).read_bytes()
    except OSError:
        data = b""
    check_config(data, config, dataset=dataset, place=folder)


def check_config(data: bytes, config: TrainConfig, *, dataset: str, place: object) -> None:
    """The same for the contents of its `config.json`, of a run that messages call `place`."""
    before, now = _read_config(data, place), config.settings()
    was = before["settings"]
    changed = [f"--{k} was {was.get(k)!r} and is {value!r}" for k, value in now.items() if was.get(k) != value]
    if before["dataset"] != dataset:
        changed.append(f"the dataset is another one (fingerprint {before['dataset'][:8]} then, {dataset[:8]} now)")
    if changed:
        fix = "repeat its settings, or give another --run"
        raise cli.RequestError(f"The run in {place} can't go on: {'; '.join(changed)}. To fix it: {fix}.")


def check_writable(folder: Path) -> None:
    """Write something where the run would, and take it away again. Raises `RequestError`.

    A disk that is full before the run begins is the wrong one. One that has filled up since is waited for when there is
    something to save, and one that fails raises `OSError`: both may be better the next time.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        if error.errno in (errno.EIO, errno.ESTALE):
            raise
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not has_begun(folder):
            raise _not_writable(folder, error) from error


def check_alone(folder: Path, *, place: object) -> None:
    """Raises `RequestError` if another process works on the run, which messages call `place`."""
    if (folder / LOCK).exists():
        with exclusive(folder / LOCK, otherwise=busy(place)):
            pass


def busy(place: object) -> str:
    """What to say if another process works on the run."""
    return f"The run in {place} is under way. To fix it: wait for its end, or give another --run."


def results(*, tflite: bool) -> tuple[str, ...]:
    """The files that a finished run has."""
    return (*RESULTS, TFLITE) if tflite else RESULTS


def is_finished(folder: Path, *, tflite: bool = False) -> bool:
    """Whether all that a run leaves is there."""
    return all((folder / name).exists() for name in results(tflite=tflite))


def find_model(folder: Path) -> Path:
    """The SavedModel in `folder`, which may be a run's or the model's own. Raises `RequestError`."""
    try:
        found = next((path for path in (folder, folder / MODEL) if (path / SAVED_MODEL).is_file()), None)
    except OSError:  # a name too long, say
        found = None
    if found is None:
        fix = "name the folder `model` of a finished run"
        raise cli.invalid_flag("model", expected="a folder with a SavedModel", received=str(folder), fix=fix)
    return found


@contextmanager
def model_folder(value: str) -> Iterator[Path]:
    """The SavedModel that `--model` names, on this machine while the block lasts. Raises `RequestError`."""
    if not in_bucket(value):
        yield find_model(local_path("model", value))
        return
    from trainer.remote_files import local_model

    with local_model(value) as folder:
        try:
            yield folder
        except cli.RequestError as error:
            raise cli.RequestError(str(error).replace(str(folder), value)) from error


def _read_config(data: bytes, place: object) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(data)
        if isinstance(config["settings"], dict) and isinstance(config["dataset"], str):
            return config
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise cli.RequestError(
        f"There is a run in {place}, but its {CONFIG_NAME} doesn't say of which settings. "
        "To fix it: restore the file, remove the folder, or give another --run."
    )


def _not_writable(folder: Path, error: OSError) -> cli.RequestError:
    fix = f"name a folder that this user may write to, with space in it ({error.strerror})"
    return cli.invalid_flag("runs", expected="a writable folder", received=str(folder), fix=fix)


class EpochLog:
    """What is said after each epoch: one line for people, scalars for TensorBoard."""

    def __init__(self, folder: Path, *, epochs: int) -> None:
        from tensorflow import summary  # not above: what can't work is found before it is imported

        self._summary = summary
        self._writer = summary.create_file_writer(str(folder / TENSORBOARD))
        self._epochs = epochs

    def __call__(self, row: dict[str, float]) -> None:
        with self._writer.as_default(step=int(row["epoch"])):
            for name, value in row.items():
                if name != "epoch":
                    self._summary.scalar(name, value)
        self._writer.flush()
        line = (
            f"epoch {row['epoch']:>3}/{self._epochs}   train loss {row['train_loss']:.3f}, accuracy "
            f"{row['train_accuracy']:.3f}   validation loss {row['validation_loss']:.3f}, accuracy "
            f"{row['validation_accuracy']:.3f}, balanced {row['validation_balanced_accuracy']:.3f}   "
            f"{describe(row)}"
        )
        print(line, file=sys.stderr, flush=True)


def say_nothing(row: dict[str, float]) -> None:
    """The log of a worker that isn't the chief."""

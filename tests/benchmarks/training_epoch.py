"""One epoch end to end, of ours and of what it replaces, each as a program: for `training.py`.

rows = epoch_rows(Path("…"), turns=3)
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.manifest import Manifest
from tests.benchmarks import seed_script
from tests.benchmarks.comparison import AtLeast, Row
from tests.benchmarks.smears import ORGAN, draw_jpegs
from tests.conftest import REAL_IMAGES, ROOT
from trainer.records import RecordReader

REAL_ORGAN = "cervix"
BAR = AtLeast(2.5)
# The flags of training, and whether the bar is for them: what a user would give who wants it fast.
SETTINGS: tuple[tuple[tuple[str, ...], bool], ...] = (((), False), (("--precision=auto",), True))
OURS_ALONE = "TF_"  # what `trainer` sets for TensorFlow when it is imported, as it is here; theirs doesn't
DAY_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds to the end of the first epoch, from the program's start and from when its data was known.

    `cpu_s` is the CPU time from its start on.
    """

    whole_s: float
    epoch_s: float
    cpu_s: float


def epoch_rows(folder: Path, *, turns: int) -> list[Row]:
    """Epochs a day, if all went on like the first; everything takes turns."""
    images, organ = _images(folder)
    dataset = _convert(images, organ, folder / "tfrecords")
    files = _as_folders(images / organ, dataset, folder / "files")
    theirs, ours = [], [[] for _ in SETTINGS]  # type: tuple[list[Took], list[list[Took]]]
    for _ in range(turns):
        theirs.append(_seed_script(files))
        for took, (flags, _) in zip(ours, SETTINGS, strict=True):
            took.append(_trainer(dataset, flags))
    rows = []
    for took, (flags, wanted) in zip(ours, SETTINGS, strict=True):
        name = f"one epoch of {organ}, validation included, {' '.join(flags) or 'defaults'}"
        bar = BAR if wanted else None
        whole = [DAY_S / one.whole_s for one in took], [DAY_S / one.whole_s for one in theirs]
        alone = [DAY_S / one.epoch_s for one in took], [DAY_S / one.epoch_s for one in theirs]
        rows.append(Row(f"{name}: from start of the program", "a day", *whole, bar))
        rows.append(Row(f"{name}: from when data is known", "a day", *alone))
        rows.append(Row(f"{name}: in all", "s CPU", [one.cpu_s for one in took], [one.cpu_s for one in theirs]))
    return rows


def _images(folder: Path) -> tuple[Path, str]:
    """A folder of organs, and which of them."""
    if (REAL_IMAGES / REAL_ORGAN).is_dir():
        return REAL_IMAGES, REAL_ORGAN
    return draw_jpegs(folder, slides=10, tiles=20, image_size=seed_script.SIZE_PX), ORGAN


def _convert(images: Path, organ: str, tfrecords: Path) -> Path:
    command = [sys.executable, "-m", "data_pipeline", f"--organ={organ}", f"--images={images}"]
    subprocess.run([*command, f"--tfrecords={tfrecords}"], cwd=ROOT, check=True, capture_output=True)
    return tfrecords / organ


def _as_folders(images: Path, dataset: Path, target: Path) -> Path:
    """The very files of both splits, as `flow_from_directory` wants them."""
    manifest = Manifest.load(dataset)
    for split in ("train", "validation"):
        reader = RecordReader(dataset, manifest, split)
        for record in reader.records(np.arange(len(reader))):
            path = target / split / record.id
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(images / record.id, path)
    return target


def _seed_script(files: Path) -> Took:
    command = [sys.executable, "-m", "tests.benchmarks.seed_script", str(files)]
    return _watched(command, seed_script.DATA_KNOWN, seed_script.EPOCH_DONE)


def _trainer(dataset: Path, flags: Sequence[str]) -> Took:
    with tempfile.TemporaryDirectory() as runs:
        where = [f"--organ={dataset.name}", f"--tfrecords={dataset.parent}", f"--runs={runs}", "--epochs=1"]
        return _watched([sys.executable, "-m", "trainer", *where, *flags], " train, ", "epoch   1/1   ")


def _watched(command: Sequence[str], known: str, done: str) -> Took:
    """Run `command` until it says that the epoch is `done`, and end it then.

    Raises `CalledProcessError`, after showing what it said.
    """
    started, known_at, done_at, cpu = time.perf_counter(), 0.0, 0.0, _cpu_of_children()
    said = []
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS_ALONE)}
    with subprocess.Popen(command, cwd=ROOT, env=env, **pipes) as process:  # type: ignore[call-overload]
        for line in process.stdout:
            said.append(line)
            if known in line and not known_at:
                known_at = time.perf_counter()
            if done in line:
                done_at = time.perf_counter()
                process.kill()
                break
    if done_at:
        return Took(done_at - started, done_at - known_at, _cpu_of_children() - cpu)
    sys.stderr.writelines(said)
    raise subprocess.CalledProcessError(process.returncode, command)


def _cpu_of_children() -> float:
    """Seconds of all that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
